"""What a decorated function is to a type checker, and the methods it carries."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

from isp_perf._runtime.drive import Failure, adrive, drive
from isp_perf.cache._ages import handed_out
from isp_perf.cache._engine import Flow
from isp_perf.cache._keyed import Keys
from isp_perf.cache._receipt import Receipt
from isp_perf.cache._site import Site

if TYPE_CHECKING:
    from isp_perf.cache._figures import CacheStats
    from isp_perf.cache._insight import Explanation

__all__ = ["AsyncCached", "CacheDecorator", "ManyDecorator", "SyncCached", "decorate"]

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")
K = TypeVar("K")


_POSITIONAL = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}


class SyncCached(Protocol[P, T_co]):
    """A cached plain function."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    @property
    def stats(self) -> "CacheStats":
        """Statistics of this function."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Return the cached result, or call the function."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: "SyncCached[Concatenate[S, Q], T_co]", instance: S, owner: type | None = None, /
    ) -> Callable[Q, T_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Remove the result of this call everywhere; a load in progress is not stored; gives a ``Receipt``."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Call the function and store its result, whatever is cached."""
        ...

    def peek(self, *args: Any, default: Any = None, **kwargs: Any) -> Any:
        """Return the cached result without loading, or ``default``."""
        ...

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Store ``value`` as the result of this call."""
        ...

    def many(self, iterable: Iterable[Any], /) -> Any:
        """Return the list of results for every argument (or tuple of arguments) in ``iterable``, in order."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the logical key of this call."""
        ...

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> "Explanation":
        """Return what the cache knows of this call in this process; never its value."""
        ...


class AsyncCached(SyncCached[P, Coroutine[Any, Any, T]], Protocol[P, T]):
    """A cached coroutine function: its methods are coroutine functions, ``key``, ``explain`` and ``stats`` apart."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Receipt]:
        """Remove the result of this call everywhere; a load in progress is not stored."""
        ...

    def peek(self, *args: Any, default: Any = None, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Return the cached result without loading, or ``default``."""
        ...

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        """Store ``value`` as the result of this call."""
        ...

    def many(self, iterable: Iterable[Any], /) -> Coroutine[Any, Any, list[T]]:
        """Return the list of results for every argument (or tuple of arguments) in ``iterable``, in order."""
        ...


class CacheDecorator(Protocol):
    """What ``cached`` returns: it keeps the function's signature, types and colour."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncCached[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> SyncCached[P, T]: ...


class ManyDecorator(Protocol):
    """What ``cached_many`` returns: a loader of many ids becomes a cached function of one."""

    @overload
    def __call__(
        self, function: Callable[[list[K]], Coroutine[Any, Any, Mapping[K, T]]], /
    ) -> AsyncCached[[K], T | None]: ...
    @overload
    def __call__(self, function: Callable[[list[K]], Mapping[K, T]], /) -> SyncCached[[K], T | None]: ...


class LiveStats:
    """The statistics of a function, read anew at each access; has the attributes of ``CacheStats``."""

    __slots__ = ("_take",)

    def __init__(self, take: "Callable[[], CacheStats]") -> None:
        self._take = take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._take(), name)

    def __repr__(self) -> str:
        return repr(self._take())


class _Methods:
    """The methods of one decorated function as flows."""

    def __init__(self, site: Site, keys: Keys, receipt: Callable[[object], Receipt]) -> None:
        self._site = site
        self._keys = keys
        self._receipt = receipt
        self._tasks = site.asynchronous
        kinds = [parameter.kind for parameter in site.signature.parameters.values()]
        self._alone = len(kinds) == 1 and kinds[0] in _POSITIONAL  # one argument is the values

    def key(self, *args: Any, **kwargs: Any) -> str:
        return self._site.call(self._site.bound(args, kwargs)).key()

    def explain(self, *args: Any, **kwargs: Any) -> "Explanation":
        from isp_perf.cache._insight import explain_call

        return explain_call(self._site.engine, lambda: self._site.call(self._site.bound(args, kwargs)))

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow:
        delivered = yield from self._keys.removal.invalidate((self.key(*args, **kwargs),), tasks=self._tasks)
        return self._receipt(delivered)

    def refresh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow:
        call = self._site.call(self._site.bound(args, kwargs))
        yield from self._keys.removal.superseded(call, tasks=self._tasks)
        return self._given((yield from self._keys.reload(call, tasks=self._tasks)))

    def _given(self, outcome: Any) -> Any:
        return outcome if outcome.__class__ is Failure else handed_out(self._site.policy, outcome)

    def many(self, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Flow:
        (iterable,) = args
        site = self._site
        if self._alone:
            calls = [site.call((item,)) for item in iterable]
        else:
            spread = len(site.plan.names) != 1
            calls = [site.call(site.bound(item if spread else (item,), {})) for item in iterable]
        return (yield from self._keys.together(site).answer(calls, tasks=self._tasks))

    def peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow:
        default = kwargs.pop("default", None)
        call = self._site.call(self._site.bound(args, kwargs))
        return self._given((yield from self._keys.peek(call, default, tasks=self._tasks)))

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow:
        value, *rest = args
        call = self._site.call(self._site.bound(tuple(rest), kwargs))
        yield from self._keys.write_call(call, value, tasks=self._tasks)


def decorate(wrapper: Any, site: Site, keys: Keys, *, receipt: Callable[[object], Receipt]) -> Any:
    """Give the wrapper of ``site`` its methods.

    ``many`` takes one argument per item, or for functions of several parameters a tuple of positional arguments.
    """
    methods = _Methods(site, keys, receipt)
    wrapper.key = methods.key
    wrapper.explain = methods.explain
    wrapper.stats = LiveStats(site.stats)
    for name in ("invalidate", "refresh", "peek", "put", "many"):
        setattr(wrapper, name, _shell(getattr(methods, name), tasks=site.asynchronous))
    return wrapper


def _shell(flow: Callable[[tuple[Any, ...], dict[str, Any]], Flow], *, tasks: bool) -> Callable[..., Any]:
    """Return the function that runs ``flow`` for tasks or for threads."""

    async def run_tasks(*args: Any, **kwargs: Any) -> Any:
        return unwrapped(await adrive(flow(args, kwargs)))

    def run(*args: Any, **kwargs: Any) -> Any:
        return unwrapped(drive(flow(args, kwargs)))

    return run_tasks if tasks else run


def unwrapped(outcome: Any) -> Any:
    """Return the outcome of a flow, or raise the error it holds."""
    if outcome.__class__ is Failure:
        raise outcome.error
    return outcome
