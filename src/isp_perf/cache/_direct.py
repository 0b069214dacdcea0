"""The short way of a miss: no remote level, no ages beyond the ttl, no tags, arguments that are their own slot.

Means the same as the flow in ``_flow``, without its machinery: the loader runs in the caller's frame, a flight is taken
off with one dict operation, and the lock is held once, to land. Whatever is not simple about a call, before its load or
after, goes the long way from there.

A flight is attached before anybody looks whether the value is there: whoever lands stores first and detaches then, so
either the value is seen, or the flight in progress.
"""

from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from isp_perf._core.kinds import is_uuid_kind
from isp_perf._runtime.drive import without_frame
from isp_perf._runtime.flights import LEADING, Flight, leading
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine, Source
from isp_perf.cache._flow import fail_loading, finish, take_back
from isp_perf.cache._keyplan import KeyPlan
from isp_perf.cache._local import FINE_TTL
from isp_perf.cache._refusal import is_harmless
from isp_perf.cache._store import MOST_UNCOUNTED, Store

__all__ = ["Direct", "is_direct", "slot_finder"]

_EVERY_OUTCOME: Final = BaseException  # cancellation is an outcome too, and handed on
_HARMLESS: Final = frozenset({type(None), bool, int, float, str, bytes})
_OWN_SLOT: Final = frozenset({type(None), bool, int, str, bytes})
_NO_SLOT: Final = object()
_HEAD: Final = 32  # of a key that is shortened its first 64 bytes stay


Finder = tuple[int, frozenset[type], Callable[[tuple[Any, ...]], Any]]


class DirectSite(Source, Protocol):
    """What the short way asks of a decorated function."""

    engine: Engine
    function: Callable[..., Any]
    plan: KeyPlan
    store: Store


def is_direct(policy: CachePolicy) -> bool:
    """Return whether calls under this policy may go the short way: one age, no limits, no tags."""
    return not (policy.staged or policy.timed or policy.tags)


def _unconditional(policy: CachePolicy) -> bool:
    """Return whether every result of this policy is kept, for the same time and as it is."""
    return policy.when is None and policy.steady is not None and policy.cache_none is True


class Direct:
    """The short way for one decorated function.

    Args:
        site: the function.
        slow: answers a call the long way.
        finder: what ``slot_finder`` says of the arguments.
    """

    __slots__ = (
        "_engine",
        "_flights",
        "_function",
        "_harmless",
        "_index",
        "_kinds",
        "_local",
        "_site",
        "_slot",
        "_slow",
        "_store",
    )

    def __init__(self, site: DirectSite, slow: Callable[[tuple[Any, ...]], Any], finder: Finder) -> None:
        self._site = site
        self._slow = slow
        self._engine = site.engine
        self._local = site.engine.local
        self._function = site.function
        self._store = site.store
        self._flights = site.store.flights
        site.store.head = site.plan.template.literals[0][:_HEAD]
        site.store.ttl = site.policy.steady or 0.0
        lasting = site.hit_clock is None and site.store.ttl >= FINE_TTL
        self._harmless = _HARMLESS if lasting and _unconditional(site.policy) else frozenset[type]()
        self._index, self._kinds, self._slot = finder

    def miss(self, values: tuple[Any, ...]) -> Any:
        """Answer a call of a plain function."""
        flight = Flight()
        slot = self._take_off(values, flight)
        if slot is _NO_SLOT:
            return self._slow(values)
        outer = LEADING.get()
        if outer is not None:
            flight.parent = outer = leading()
        LEADING.set(flight)
        started = self._local.clock()
        try:
            value = self._function(*values)
        except _EVERY_OUTCOME as error:
            LEADING.set(outer)
            return self._fail(flight, slot, without_frame(error), values=values, started=started)
        return self._land(flight, slot, value, values=values, started=started)

    async def amiss(self, values: tuple[Any, ...]) -> Any:
        """Answer a call of a coroutine function."""
        flight = Flight()
        slot = self._take_off(values, flight)
        if slot is _NO_SLOT:
            return await self._slow(values)
        flight.loop = get_running_loop()
        outer = LEADING.get()
        if outer is not None:
            flight.parent = outer = leading()
        LEADING.set(flight)
        started = self._local.clock()
        try:
            value = await self._function(*values)
        except _EVERY_OUTCOME as error:
            LEADING.set(outer)
            return self._fail(flight, slot, without_frame(error), values=values, started=started)
        return self._land(flight, slot, value, values=values, started=started)

    def _take_off(self, values: tuple[Any, ...], flight: Flight) -> Any:
        """Attach ``flight`` and return the slot of the call, or ``_NO_SLOT`` if it has to go the long way."""
        store = self._store
        slot = values[self._index]
        if slot.__class__ not in self._kinds:
            slot = self._slot(values)
        if slot is _NO_SLOT or store.detour or self._engine.asked:
            return _NO_SLOT
        if self._flights.setdefault(slot, flight) is not flight:
            return _NO_SLOT
        if slot in store.hot or slot in store.cold:
            take_back(self._call(slot, values), self._local, flight)
            return _NO_SLOT
        return slot

    def _is_simple(self, value: Any) -> bool:
        """Return whether ``value`` may be stored without a closer look, and needs no exact end."""
        return bool(self._harmless) and is_harmless(value)

    def _call(self, slot: Any, values: tuple[Any, ...]) -> Call:
        return Call(self._site, self._store, slot, native=True, values=values)

    def _fail(self, flight: Flight, slot: Any, error: BaseException, *, values: tuple[Any, ...], started: float) -> Any:
        """End a flight whose loader raised."""
        flight.seconds = self._local.clock() - started
        return fail_loading(self._engine, self._call(slot, values), flight, error=error)

    def _land(self, flight: Flight, slot: Any, value: Any, *, values: tuple[Any, ...], started: float) -> Any:
        """Store the value, unless the flight was detached, and give it to those who joined."""
        local, store = self._local, self._store
        now = local.clock()
        seconds = now - started
        simple = value.__class__ in self._harmless or self._is_simple(value)
        if not simple or flight.filling is not None or not local.plain:
            flight.seconds = seconds
            return finish(self._engine, self._call(slot, values), flight, value=value)
        lock = local.lock
        lock.acquire()  # no with statement: it costs as much again
        try:
            if flight.attached:
                local.keep_locked(store, slot, value, due=now + store.ttl)
                del store.flights[slot]
            store.spent.append(seconds)
            if len(store.spent) >= MOST_UNCOUNTED:
                store.fold_locked(local.counters)
        finally:
            lock.release()
        flight.landed = True
        if flight.waiters:
            flight.wake_all(value)
        return value


def slot_finder(plan: KeyPlan) -> Finder | None:
    """Return what finds the slot of a call if arguments are slots by themselves.

    That is: the index of an argument, the types of which a value there is the slot, and what finds the slot, or
    ``_NO_SLOT``, where it is of another type. ``None``: every call goes the long way.
    """
    if not plan.native or plan.owner is not None or any(part.path for part in plan.parts):
        return None
    return _finder(plan, [plan.names.index(part.name) for part in plan.parts], plan.guard)


def _finder(plan: KeyPlan, indexes: list[int], guard: type | None) -> Finder | None:
    if len(indexes) > 1 or (plan.apart and guard is None):
        return indexes[0], frozenset(), partial(_some, indexes, apart=plan.apart)
    if guard is None:
        return indexes[0], _OWN_SLOT, partial(_late, indexes[0])
    return (indexes[0], frozenset({guard}), _no_slot) if _is_own(guard) else None


def _is_own(kind: type) -> bool:
    return kind in _OWN_SLOT or is_uuid_kind(kind)


def _no_slot(_values: tuple[Any, ...]) -> Any:
    return _NO_SLOT


def _late(index: int, values: tuple[Any, ...]) -> Any:
    value = values[index]
    return value if is_uuid_kind(value.__class__) else _NO_SLOT


def _some(indexes: list[int], values: tuple[Any, ...], *, apart: bool) -> Any:
    given = [values[index] for index in indexes]
    kinds = [value.__class__ for value in given]
    if not (_OWN_SLOT.issuperset(kinds) or all(map(_is_own, kinds))):
        return _NO_SLOT
    return (*given, *kinds) if apart else tuple(given)
