"""The circuit breaker that callers use: every form of call, manual control and the report."""

from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from time import monotonic
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, NoReturn, ParamSpec, Protocol, Self, TypeVar, cast

from isp_perf._core.breaker_states import State
from isp_perf._core.ranges import seconds
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._emission import breaker_lines
from isp_perf.breaker._eras import IsolatedEra, OpenEra
from isp_perf.breaker._forms import BreakerBlock, Permit, admit, aenter, enter, follow
from isp_perf.breaker._half_open import HalfOpenEra, Probe, turn
from isp_perf.breaker._machine import Machine
from isp_perf.breaker._records import CircuitEvent, Counts
from isp_perf.breaker._wrapping import Site, build
from isp_perf.errors import ConfigurationError, ProbeLimitError, RejectedError
from isp_perf.typing import Clock

__all__ = ["CircuitBreaker", "Isolation"]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
F = TypeVar("F", bound=Callable[..., Any])


class Joinable(Protocol):
    """A registry that takes breakers in."""

    def add(self, breaker: Any, /) -> None:
        """Take ``breaker`` in under its name."""
        ...


class Isolation:
    """One isolation of ``breaker``, for a ``reason``; ends with ``release()``, its block, or its duration."""

    __slots__ = ("_breaker", "reason")

    reason: str

    def __init__(self, breaker: "CircuitBreaker", reason: str) -> None:
        self._breaker = breaker
        self.reason = reason

    def release(self) -> None:
        """Let go; the circuit closes when no other isolation holds it. A second call does nothing."""
        breaker = self._breaker
        with breaker.lock:
            era = breaker.era
            if isinstance(era, IsolatedEra) and era.held.pop(self, 0) != 0 and not era.held:
                breaker.close_locked("released")
        breaker.announce()
        if breaker.fleet is not None:
            breaker.fleet.tell_held()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class CircuitBreaker(Machine):
    """Stops calling a service that fails, and finds out when it works again.

    One breaker may be used from any number of threads, event loops and tasks. After ``fork`` the child goes on with a
    copy of its own.

    Args:
        name: for errors, reports and metrics; it comes from code, not from users.
        config: when to open and for how long; default ``CircuitConfig()``.
        registry: a ``CircuitRegistry`` to join; ``None``: none.
        clock: monotonic seconds; tests hand in ``isp_perf.testing.ManualClock``.

    Raises:
        ConfigurationError: the name is empty, or the registry has a breaker of that name.
    """

    __slots__ = ()

    rejected: int

    def __init__(
        self,
        name: str,
        config: CircuitConfig | None = None,
        *,
        registry: Joinable | None = None,
        clock: Clock = monotonic,
    ) -> None:
        if not name or not str(name).isprintable():
            raise ConfigurationError("name", name, "must be printable text", "name the protected service")
        super().__init__(name, CircuitConfig() if config is None else config, clock)
        if registry is not None:
            registry.add(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"

    # -- calls ---------------------------------------------------------------------------------------------------

    def __call__(self, function: F, /) -> F:
        """Decorate a function, coroutine function, generator function, async generator function or method.

        Raises:
            ConfigurationError: it is none of these, or the configured ``timeout`` cannot interrupt it.
        """
        wrapper: Any = build(function, (self,))
        getattr(wrapper, "__func__", wrapper).breaker = self
        return cast("F", wrapper)

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        self.bind(site)
        return breaker_lines(inner, site, site.bind("breaker", self))

    def bind(self, site: Site) -> None:
        """Check that this breaker can stand in front of the function of ``site``, and remember its kind."""
        if site.kind == "coroutine":
            return
        self.plain_functions = True
        if self.config.timeout is not None:
            _refuse_timeout(self.config.timeout)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` and count its outcome. An awaitable result is wrapped, so that *its* outcome counts.

        A ``TypeError`` for arguments that do not fit counts as nothing. One that a function written in C raises about
        its arguments looks the same, and counts as nothing, too.

        Raises:
            CircuitOpenError: the call was not made; with a ``fallback`` its answer is returned instead.
            ConfigurationError: the configuration has a ``timeout``, which only ``acall`` can keep.
        """
        era = self.era
        if era.shut:
            era = admit(self)
            if era is None:
                return cast("T", self.config.stand_in(*args, **kwargs))
        try:
            result = function(*args, **kwargs)
        except TypeError as error:
            _settle_type_error(era, error)
            raise
        except BaseException as error:
            era.fail(error)
            raise
        if result.__class__ is CoroutineType:
            return cast("T", follow(era, cast("Coroutine[Any, Any, Any]", result)))
        era.ok += 1
        if era.dirty:
            era.settle(result)
        return result

    async def acall(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, await what it returns, and count the outcome; as ``call`` otherwise.

        Raises:
            CircuitOpenError: the call was not made; with a ``fallback`` its answer is returned instead.
            TimeoutError: the configured ``timeout`` is over; a failure.
        """
        if self.era.shut:
            era = await aenter(self, fallback=True)
            if era is None:
                return cast("T", await self.answer(*args, **kwargs))
        else:
            era = self.era
        try:
            result = await function(*args, **kwargs)
        except TypeError as error:
            _settle_type_error(era, error)
            raise
        except BaseException as error:
            era.fail(error)
            raise
        era.ok += 1
        if era.dirty:
            era.settle(result)
        return result

    def try_call(
        self, function: Callable[..., T], /, *args: Any, default: D | None = None, **kwargs: Any
    ) -> T | D | None:
        """Call ``function`` if the circuit admits it, else return ``default``; nothing is raised for a rejection.

        Exceptions of ``function`` itself are counted and passed on. ``default`` is a keyword of this method, so that a
        ``function`` with a parameter of that name has to be wrapped in a lambda.
        """
        era = self.era
        if era.__class__ is OpenEra and era.until > self.clock():
            self.rejected += 1
            return default
        if not era.shut:
            return self.call(function, *args, **kwargs)
        try:
            found = enter(self)
        except RejectedError:
            return default
        return cast("T", Permit(found).run(function, *args, **kwargs))

    def guard(self) -> BreakerBlock:
        """Return a block for one use: ``with breaker.guard():`` or ``async with breaker.guard():``."""
        return BreakerBlock(self)

    def permit(self) -> Permit:
        """Ask for admission in two steps; settle the permit with ``ok``, ``failed`` or ``release``.

        Raises:
            CircuitOpenError: the call may not be made.
        """
        return Permit(enter(self))

    def __enter__(self) -> NoReturn:
        raise ConfigurationError(
            "with", self.name, "one breaker serves many calls at a time", "write `with breaker.guard():`"
        )

    async def __aenter__(self) -> NoReturn:
        self.__enter__()

    def __exit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    async def __aexit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    # -- what generated wrappers reach through their breaker -------------------------------------------------------

    caught: ClassVar[type[BaseException]] = BaseException

    async def answer(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return what the configured fallback answers, awaited if it has to be."""
        result = self.config.stand_in(*args, **kwargs)
        return await result if hasattr(result, "__await__") else result

    async def turn(self) -> Any:
        """Wait until the call is admitted, and return what it settles into."""
        return await turn(self)

    def follow(self, era: Any, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return a coroutine that awaits ``work`` of a plain function, and counts its outcome in ``era``."""
        return follow(era, work)

    # -- the Guard protocol: callers that ask and tell without a permit in hand -----------------------------------

    def before(self) -> None:
        """Return if a call may be made; never waits. Outcomes told later settle in the present era.

        Raises:
            RejectedError: the call may not be made.
        """
        era = self.era
        if not era.shut:
            return
        if isinstance(era, OpenEra) and era.until <= self.clock():
            era = era.due()
        if isinstance(era, HalfOpenEra):
            self._borrow(era)
        else:
            enter(self)

    def _borrow(self, era: HalfOpenEra) -> None:
        """Keep a probe for a caller without a permit, or raise; never wait."""
        found = era.lend()
        if isinstance(found, Probe):
            self.lent().append(found)
        elif found is None:
            raise ProbeLimitError(self.name, self.retry_after)
        elif isinstance(found, float):
            self.rejected += 1
            raise ProbeLimitError(self.name, found)
        else:
            self.before()  # the probes have been decided in the meantime

    def success(self) -> None:
        """Count a success."""
        era = self._unnamed()
        era.ok += 1
        if era.dirty:
            era.settle(None)

    def failure(self, error: BaseException, /) -> None:
        """Count ``error`` as it would be counted if a call had raised it."""
        self._unnamed().fail(error)

    def _unnamed(self) -> Any:
        """Return what an outcome without a permit settles into: the oldest probe lent so, else the present era."""
        lent = self.lent() if isinstance(self.era, HalfOpenEra) else None
        return lent.popleft() if lent else self.ticket()

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state: ``closed``, ``open``, ``half_open``, ``isolated``, ``disabled`` or ``metrics_only``.

        An open circuit whose break is over stays ``open`` until the next call arrives.
        """
        return cast("State", self.era.state)

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be let through; 0.0 if one may now, ``None`` if only a person can allow it."""
        era, now = self.era, self.clock()
        if isinstance(era, OpenEra):
            return max(0.0, era.until - now)
        if isinstance(era, IsolatedEra):
            return era.left(now)
        if isinstance(era, HalfOpenEra):
            return max(0.0, (era.probes.next_expiry() or now) - now)
        return 0.0

    @property
    def counts(self) -> Counts:
        """What became of all calls over the breaker's life."""
        return self.totals()

    def report(self) -> dict[str, Any]:
        """Return state and counts for JSON.

        ``failure_count`` is what is compared with the limit now (when open: the count that opened it),
        ``success_count`` the successes over the breaker's life; the other totals stand beside them.
        """
        totals = self.totals()
        failures, calls = self.present_counts(self.clock())
        era = self.era
        return {
            "state": self.state,
            "failure_count": failures,
            "success_count": totals.successes,
            "calls_counted": calls,
            **{name: getattr(totals, name) for name in totals.__slots__ if name != "successes"},
            "retry_after": self.retry_after,
            "error": era.cause if isinstance(era, OpenEra) else None,
            "reasons": [item.reason for item in era.held] if isinstance(era, IsolatedEra) else [],
            **self.past(),
            "would_have_opened": None if self.beside is None else self.beside.would_open,
            "shared": self.fleet is not None,
        }

    # -- manual control ------------------------------------------------------------------------------------------

    def isolate(self, reason: str, duration: float | timedelta | None = None) -> Isolation:
        """Open the circuit by hand until the returned handle is released, ``duration`` is over, or ``reset``.

        Isolations count: the last one to end closes the circuit.

        Args:
            reason: shown in the report.
            duration: seconds (> 0); ``None``: until released.
        """
        end = None if duration is None else self.clock() + seconds("duration", duration)
        handle = Isolation(self, reason)
        with self.lock:
            era = self.era
            if not isinstance(era, IsolatedEra):
                era = IsolatedEra(self)
                self.swap_locked(era, "isolated")
            era.held[handle] = end
        self.announce()
        if self.fleet is not None:
            self.fleet.tell_held()
        return handle

    def disable(self) -> None:
        """Make all calls and count none, until ``reset``."""
        self.move("disabled")

    def metrics_only(self) -> None:
        """Make all calls, count them and report when the circuit would have opened, until ``reset``."""
        self.move("metrics_only")

    def reset(self) -> None:
        """Close the circuit and forget what counted against it; totals over its life stay."""
        self.move("reset")

    def reconfigure(self, config: CircuitConfig) -> None:
        """Change the configuration while calls run; those under way settle under the old one. The state stays.

        Raises:
            ConfigurationError: ``config`` has a ``timeout`` and the breaker protects plain functions.
        """
        if config.timeout is not None and self.plain_functions:
            _refuse_timeout(config.timeout)
        with self.lock:
            self.config = config
            self.tune()
            self.swap_locked(self.rebuilt_locked(), "reconfigured")
        self.announce()

    def shadow(self, config: CircuitConfig | None) -> None:
        """Try ``config`` on the live calls: ``report()["would_have_opened"]`` says how often it would have opened.

        It rejects nothing and sees only calls that the live configuration lets through. ``None`` ends it.
        """
        beside = None
        if config is not None:
            beside = Machine(f"{self.name} (shadow)", config.replace(timeout=None), self.clock)
            beside.move("metrics_only")
        with self.lock:
            self.beside = beside
            self.swap_locked(self.rebuilt_locked(), "reconfigured")
        self.announce()

    def on(self, event: str, function: Callable[[CircuitEvent], object]) -> Callable[[], None]:
        """Call ``function`` with every ``event``; return a function that ends this.

        Listeners run after the lock is released, in the thread of the call that caused the event. One that raises is
        logged once and never reaches that call.

        Args:
            event: a state (it is entered), ``"transition"``, ``"rejected"`` or ``"would_open"``.
            function: called with a ``CircuitEvent``.

        Raises:
            ConfigurationError: there is no such event.
        """
        return self.listen(event, function)

    def timeline(self) -> str:
        """Return the remembered transitions as Mermaid text."""
        events = self.history()
        steps = [f"    {e.before} --> {e.after}: {e.cause} after {e.lasted:.3g} s" for e in events]
        return "\n".join(["stateDiagram-v2", *steps])


def _settle_type_error(era: Any, error: TypeError) -> None:
    """Count a TypeError, unless it was raised at our own call: then the arguments did not fit."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is None:
        era.forgo(error)
    else:
        era.fail(error)


def _refuse_timeout(timeout: object) -> None:
    raise ConfigurationError(
        "timeout", timeout, "only a coroutine function can be interrupted", "make it async def, or leave timeout out"
    )
