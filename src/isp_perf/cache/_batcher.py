"""One loader for many: single calls of one loop tick become one call of a function from ids to values."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, update_wrapper
from string import Formatter
from typing import Any, Final, cast, get_args, get_type_hints

from isp_perf._runtime.drive import Failure, without_frame
from isp_perf._runtime.flights import LEADING, Flight, leading, own_copy
from isp_perf.cache._entry import BatchFlight
from isp_perf.cache._lanes import Lane
from isp_perf.errors import ConfigurationError

__all__ = ["Batcher", "batcher_for"]

_LIMIT: Final = 1000
_EVERY_ERROR: Final = Exception  # a loader may raise anything: it reaches every caller as its own copy


class _Batch:
    """Ids that are loaded together, and who waits for them."""

    __slots__ = ("flight", "futures", "items", "task")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.flight = BatchFlight.make()
        self.task: asyncio.Task[None] | None = None

    def left(self, _future: object) -> None:
        """Cancel the load when nobody waits any more."""
        if self.task is not None and all(future.cancelled() for future in self.futures):
            self.task.cancel()


class Batcher:
    """Calls a loader of many ids for callers of single ones.

    Args:
        loader: a function, or coroutine function, from a list of ids to a mapping; an id it does not have is ``None``,
            an id whose value is an exception fails alone.
        lock: guards flights.

    Attributes:
        single: the function of one id, with the loader's names.
    """

    single: Callable[..., Any]

    def __init__(self, loader: Callable[..., Any], lock: Any) -> None:
        self._loader = loader
        self._lock = lock
        self._open: dict[asyncio.AbstractEventLoop, _Batch] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def one_of_many(self, item: Any) -> Any:
        """Return the value of ``item``, loaded with those that others ask for in this tick of the loop."""
        loop = asyncio.get_running_loop()
        batch = self._open.get(loop)
        if batch is None or len(batch.items) >= _LIMIT:
            batch = self._open[loop] = _Batch()
            loop.call_soon(self._send, loop, batch)
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(batch.left)
        batch.items.append(item)
        batch.futures.append(future)
        self._bind(batch.flight, leading())
        outcome = await future
        if outcome.__class__ is Failure:
            raise own_copy(outcome).error
        return outcome

    def one_here(self, item: Any) -> Any:
        """Return the value of ``item``, loaded alone in this thread."""
        (outcome,) = self._load_here([item])
        if outcome.__class__ is Failure:
            raise outcome.error
        return outcome

    def is_single(self, step: Any) -> bool:
        """Return whether ``step`` loads one id for a cached function of this loader."""
        return isinstance(step, partial) and cast("Any", step).func is self.single

    def load_lanes(self, lanes: list[Lane]) -> list[Any]:
        """Answer the steps of ``lanes`` by as few calls of the loader as its limit allows."""
        flight = BatchFlight.make()
        flight.lead_by(leading(), tasks=False)
        for lane in lanes:
            self._bind(flight, lane.ask(leading))
        LEADING.set(flight)
        try:
            return self._load_here([cast("Any", lane.step).args[0] for lane in lanes])
        finally:
            flight.landed = True

    def _bind(self, flight: Flight, waiting: Flight | None) -> None:
        """Let the flight of an id wait for that of the batch: a loader that asks for its own ids is told so."""
        if waiting is not None:
            with self._lock:
                waiting.waits_for = [*waiting.waits_for, flight]

    def _load_here(self, items: list[Any]) -> list[Any]:
        outcomes: list[Any] = []
        for start in range(0, len(items), _LIMIT):
            some = items[start : start + _LIMIT]
            try:
                outcomes += _answers(self._loader(some), some)
            except _EVERY_ERROR as error:
                outcomes += [Failure(without_frame(error))] * len(some)
        return outcomes

    def _send(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        if self._open.get(loop) is batch:
            del self._open[loop]
        waiting = [place for place, future in enumerate(batch.futures) if not future.done()]
        batch.items = [batch.items[place] for place in waiting]
        batch.futures = [batch.futures[place] for place in waiting]
        if waiting:
            batch.task = loop.create_task(self._run(batch))
            self._running.add(batch.task)
            batch.task.add_done_callback(self._running.discard)

    async def _run(self, batch: _Batch) -> None:
        batch.flight.lead_by(None, tasks=True)
        LEADING.set(batch.flight)
        try:
            outcomes = _answers(await self._loader(list(batch.items)), batch.items)
        except _EVERY_ERROR as error:
            outcomes = [Failure(without_frame(error))] * len(batch.items)
        finally:
            batch.flight.landed = True
        for future, outcome in zip(batch.futures, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)


def _answers(found: Any, items: Sequence[Any]) -> list[Any]:
    """Return the outcome of each item, in order."""
    if not issubclass(type(found), Mapping):
        raise TypeError(f"a batch loader returns a dict of its ids, not {type(found).__qualname__}")
    return [Failure(value) if isinstance(value := found.get(item), Exception) else value for item in items]


def batcher_for(loader: Callable[..., Any], template: str, lock: Any) -> Batcher:
    """Return the batcher of ``loader``; its ``single`` has one parameter, named as in the key template.

    Raises:
        ConfigurationError: the loader does not take one list, or the template names several parameters.
    """
    parameter = _parameter_of(loader)
    names = {name.split(".")[0] for _, name, _, _ in Formatter().parse(template) if name} - {"hash"}
    if len(names) > 1:
        raise ConfigurationError("key", template, "one id has one field", 'write for example "user:{user_id}"')
    batcher = Batcher(loader, lock)
    single = _of_tasks(batcher) if inspect.iscoroutinefunction(loader) else _of_threads(batcher)
    batcher.single = _named(single, loader, name=next(iter(names), "item"), parameter=parameter)
    return batcher


def _parameter_of(loader: Any) -> str:
    names = list(inspect.signature(loader).parameters) if callable(loader) else []
    if len(names) != 1:
        raise ConfigurationError(
            "function", getattr(loader, "__qualname__", "?"), "a batch loader takes one list", "write def load(ids)"
        )
    return names[0]


def _of_tasks(batcher: Batcher) -> Any:
    async def load(item: Any) -> Any:
        return await batcher.one_of_many(item)

    return load


def _of_threads(batcher: Batcher) -> Any:
    def load(item: Any) -> Any:
        return batcher.one_here(item)

    return load


def _named(single: Any, loader: Callable[..., Any], *, name: str, parameter: str) -> Callable[..., Any]:
    """Give the function of one argument the names of ``loader`` and the types of one item."""
    update_wrapper(single, loader, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    del single.__wrapped__
    single.__annotations__ = _types(loader, name, parameter)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    annotation = single.__annotations__.get(name, inspect.Parameter.empty)
    returned = single.__annotations__.get("return", inspect.Signature.empty)
    single.__signature__ = inspect.Signature(
        [inspect.Parameter(name, kind, annotation=annotation)], return_annotation=returned
    )
    return cast("Callable[..., Any]", single)


def _types(loader: Callable[..., Any], name: str, parameter: str) -> dict[str, Any]:
    """Return the annotations of the function of one item: ``list[K]`` and ``dict[K, V]`` become ``K`` and ``V``."""
    try:
        hints = get_type_hints(loader)
    except (NameError, TypeError, AttributeError):
        return {}
    ids, values = get_args(hints.get(parameter)), get_args(hints.get("return"))
    found: dict[str, Any] = {name: ids[0]} if ids else {}
    if len(values) > 1:
        found["return"] = values[1] | None
    return found
