"""What a context asks of the cache: nothing from it (``bypass``), or one answer per key (``request_scope``).

Both are context variables: they hold for the code inside and the tasks it starts, and for nobody else. The wrapper of a
cached function asks for them only while some context of the process is open: until then, and afterwards, its code is
the one without the question.
"""

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from isp_perf._core.departures import BYPASSED
from isp_perf._runtime.drive import Failure, without_frame
from isp_perf._runtime.flights import LEADING, Flight, leading
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._flow import fetch as fetch_from_levels
from isp_perf.cache._store import Store

if TYPE_CHECKING:
    from isp_perf.cache._events import Events

__all__ = ["MODE", "Mode", "ModeContext", "bypassing", "fetch", "forget_keys", "forget_tags", "mode_of"]

_EVERY_OUTCOME: Final = BaseException  # cancellation is an outcome too, and handed on as a Failure


class Mode:
    """How one context uses one manager.

    Attributes:
        engine: the manager's levels.
        outer: the mode around it, which may be of another manager.
        memo: logical key -> (value, tags) of what was read in a request scope; ``None``: bypass.
        names: the logical keys of what was asked for, by store and slot.
        open: whether the context was not left yet; tasks may outlive it.
        version: changes with each invalidation made in the scope.
    """

    __slots__ = ("engine", "memo", "names", "open", "outer", "version")

    def __init__(self, engine: Engine, outer: "Mode | None", *, scoped: bool) -> None:
        self.engine = engine
        self.outer = outer
        self.memo: dict[str, tuple[Any, frozenset[str]]] | None = {} if scoped else None
        self.names: dict[tuple[Store, Any], str] = {}
        self.open = True
        self.version = 0


MODE: Final[ContextVar[Mode | None]] = ContextVar("isp_perf_cache_mode", default=None)


class ModeContext:
    """The context manager that ``bypass()`` and ``request_scope()`` return; may be nested, and used again.

    Args:
        engine: the manager's levels.
        scoped: a request scope; otherwise a bypass.
    """

    def __init__(self, engine: Engine, *, scoped: bool) -> None:
        self._engine = engine
        self._scoped = scoped
        self._entered: list[tuple[Mode, Token[Mode | None]]] = []

    def __enter__(self) -> None:
        mode = Mode(self._engine, MODE.get(), scoped=self._scoped)
        self._engine.open_context()
        self._entered.append((mode, MODE.set(mode)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        mode, token = self._entered.pop()
        mode.open = False
        self._engine.close_context()
        with suppress(ValueError):  # left in another context than it was entered in; a closed mode is no mode
            MODE.reset(token)


def mode_of(engine: Engine) -> Mode | None:
    """Return the innermost open mode of the running context for this manager."""
    mode = MODE.get() if engine.contexts else None
    while mode is not None and not (mode.open and mode.engine is engine):
        mode = mode.outer
    return mode


def bypassing(engine: Engine) -> bool:
    """Return whether the running context reads nothing from this manager."""
    mode = mode_of(engine)
    return mode is not None and mode.memo is None


def fetch(engine: Engine, call: Call, *, tasks: bool, reload: bool = False) -> Flow:
    """Return the flow that answers ``call`` in the mode of the running context."""
    if not engine.contexts:
        return fetch_from_levels(engine, call, tasks=tasks, reload=reload)
    mode = None if reload else mode_of(engine)
    if mode is None:
        flow = fetch_from_levels(engine, call, tasks=tasks, reload=reload)
    elif mode.memo is None:
        flow = _bypassed(engine, call, tasks=tasks)
    else:
        flow = _scoped(mode, call, tasks=tasks)
    return flow if engine.events is None else _told(engine.events, engine, call, flow=flow)


def _told(events: "Events", engine: Engine, call: Call, *, flow: Flow) -> Flow:
    """Run ``flow`` and tell the observer what happened."""
    try:
        return (yield from flow)
    finally:
        events.tell(call.source.counters, engine.local.counters, call.source.label)


def _bypassed(engine: Engine, call: Call, *, tasks: bool) -> Flow:
    """Call the loader for this caller alone; nothing is read and nothing is stored."""
    flight = Flight.make()
    flight.attached = False
    flight.lead_by(leading(), tasks=tasks)
    clock = engine.local.clock
    started = clock()
    failure: Failure | None = None
    value: Any = None
    LEADING.set(flight)
    try:
        value = yield call.source.step(call.values)
    except _EVERY_OUTCOME as error:
        failure = Failure(without_frame(error))
    flight.landed = True
    _count_bypass(engine, call, clock() - started, failed=failure is not None)
    return value if failure is None else failure


def _count_bypass(engine: Engine, call: Call, spent: float, *, failed: bool) -> None:
    with engine.local.lock:
        for counters in (engine.local.counters, call.source.counters):
            counters.misses += 1
            counters.errors += failed
            counters.count_load(spent)
            counters.missed[BYPASSED] = counters.missed.get(BYPASSED, 0) + 1


def _scoped(mode: Mode, call: Call, *, tasks: bool) -> Flow:
    """Answer from what this scope has read already. What a loader reads must be true for all, so it reads anew."""
    engine, memo = mode.engine, mode.memo
    if memo is None or leading() is not None:
        return (yield from fetch_from_levels(engine, call, tasks=tasks))
    place = (call.store, call.slot)
    key = mode.names.get(place)
    if key is None:
        key = mode.names[place] = call.key()
    kept = memo.get(key)
    if kept is not None:
        with engine.local.lock:
            engine.local.counters.retired += 1
            call.source.counters.retired += 1
        return kept[0]
    version = mode.version
    value = yield from fetch_from_levels(engine, call, tasks=tasks)
    if value.__class__ is not Failure and version == mode.version:
        memo[key] = (value, _tags_of(engine, call))
    return value


def _tags_of(engine: Engine, call: Call) -> frozenset[str]:
    with engine.local.lock:
        entry = call.store.find(call.slot)
        return frozenset(getattr(entry, "tags", ())) | frozenset(call.tags())


def forget_keys(engine: Engine, gone: Callable[[str], bool]) -> None:
    """Let the running context's scopes read again what is ``gone``."""
    _forget(engine, lambda key, _tags: gone(key))


def forget_tags(engine: Engine, gone: frozenset[str]) -> None:
    """Let the running context's scopes read again what has one of the tags that are ``gone``."""
    _forget(engine, lambda _key, tags: not gone.isdisjoint(tags))


def _forget(engine: Engine, gone: Callable[[str, frozenset[str]], bool]) -> None:
    mode = MODE.get() if engine.contexts else None
    while mode is not None:
        if mode.engine is engine and mode.memo is not None:
            mode.version += 1
            for key in [key for key, (_, tags) in mode.memo.items() if gone(key, tags)]:
                del mode.memo[key]
        mode = mode.outer
