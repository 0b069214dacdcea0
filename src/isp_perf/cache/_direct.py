"""The short way of a miss: no remote level, nothing in the slot, arguments that are their own slot.

Means the same as the flow in ``_flow``, without its machinery: the wrapper itself leads, so the loader runs in the
frame that every call has anyway; a flight takes off with one dict operation, and the lock is held once, to land.
Whatever is not simple about a call, before its load or after, goes the long way from there.

A flight is attached before anybody looks whether the value is there: whoever lands stores first and detaches then, so
either the value is seen, or the flight in progress.
"""

from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from isp_perf._core.kinds import is_uuid_kind
from isp_perf._runtime.drive import without_frame
from isp_perf._runtime.flights import LEADING, Flight, leading
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine, Source
from isp_perf.cache._flow import fail_loading, finish, take_back
from isp_perf.cache._keyplan import KeyPlan
from isp_perf.cache._refusal import is_harmless
from isp_perf.cache._store import Store

__all__ = ["ShortWay", "is_direct", "short_way", "slot_test"]

_HARMLESS: Final = frozenset({type(None), bool, int, float, str, bytes})
_OWN_SLOT: Final = frozenset({type(None), bool, int, str, bytes})
_HEAD: Final = 32  # of a key that is shortened its first 64 bytes stay


SlotTest = tuple[frozenset[type], Callable[[Any], bool]]


class ShortWay(NamedTuple):
    """The three steps that the wrapper takes around the loader.

    Attributes:
        take_off: begins a load of a slot, where there are tags for the bound values; returns its flight, or ``None`` if
            the call has to go the long way.
        land: ends a flight with what the loader returned for the bound values; returns what the caller gets.
        fail: ends a flight with what the loader raised; returns what the caller gets.
    """

    take_off: Callable[..., Flight | None]
    land: Callable[[Flight, Any, tuple[Any, ...]], Any]
    fail: Callable[[Flight, BaseException, tuple[Any, ...]], Any]


class DirectSite(Source, Protocol):
    """What the short way asks of a decorated function."""

    asynchronous: bool
    engine: Engine
    plan: KeyPlan
    store: Store


def is_direct(policy: CachePolicy) -> bool:
    """Return whether calls under this policy may go the short way: nobody's patience is limited."""
    return not policy.timed


def _unconditional(policy: CachePolicy) -> bool:
    """Return whether every result of this policy is kept, for the same time and as it is."""
    return policy.when is None and policy.steady is not None and policy.cache_none is True


def short_way(site: DirectSite, fits: SlotTest) -> ShortWay:
    """Return the short way for one decorated function; ``fits`` is what ``slot_test`` says of its arguments."""
    site.store.head = site.plan.template.literals[0][:_HEAD]
    take_off = _take_off(site, fits)
    return ShortWay(_tagged(site, take_off) if site.policy.tags else take_off, _land(site), _fail(site))


def _take_off(site: DirectSite, fits: SlotTest) -> Callable[[Any], Flight | None]:
    local, store, tasks = site.engine.local, site.store, site.asynchronous
    hot, cold, flights, make_flight = store.hot, store.cold, store.flights, Flight.make
    kinds, is_slot = fits

    def take_off(slot: Any) -> Flight | None:
        if store.detour or not (slot.__class__ in kinds or is_slot(slot)):
            return None
        flight = make_flight(slot)
        if flights.setdefault(slot, flight) is not flight:
            return None
        if slot in hot or slot in cold:
            take_back(Call(site, store, slot, native=True, values=()), local, flight)
            return None
        if tasks:
            flight.loop = get_running_loop()
        flight.parent = leading()
        LEADING.set(flight)
        flight.began = local.clock()
        return flight

    return take_off


def _tagged(
    site: DirectSite, take_off: Callable[[Any], Flight | None]
) -> Callable[[Any, tuple[Any, ...]], Flight | None]:
    def tagged(slot: Any, values: tuple[Any, ...]) -> Flight | None:
        tags = frozenset(site.tags(values))  # first: this runs code of the arguments, which may raise
        flight = take_off(slot)
        if flight is not None:
            flight.tags = tags  # early enough: the load is still to begin
        return flight

    return tagged


def _land(site: DirectSite) -> Callable[[Flight, Any, tuple[Any, ...]], Any]:
    engine, store = site.engine, site.store
    local, lock = engine.local, engine.local.lock
    plain = store.ordered and not site.policy.tags and _unconditional(site.policy)
    harmless = _HARMLESS if plain else frozenset[type]()

    def land(flight: Flight, value: Any, values: tuple[Any, ...]) -> Any:
        simple = value.__class__ in harmless or (harmless and is_harmless(value))
        if not simple or flight.filling is not None or not (local.plain and store.ordered):
            flight.seconds = local.clock() - flight.began
            return finish(engine, Call(site, store, flight.slot, native=True, values=values), flight, value=value)
        lock.acquire()  # no with statement: it costs as much again
        try:
            local.keep_locked(store, flight, value)
        finally:
            lock.release()
        flight.landed = True
        if flight.waiters:
            flight.wake_all(value)
        return value

    return land


def _fail(site: DirectSite) -> Callable[[Flight, BaseException, tuple[Any, ...]], Any]:
    engine, store = site.engine, site.store

    def fail(flight: Flight, error: BaseException, values: tuple[Any, ...]) -> Any:
        LEADING.set(flight.parent)
        flight.seconds = engine.local.clock() - flight.began
        call = Call(site, store, flight.slot, native=True, values=values)
        return fail_loading(engine, call, flight, error=without_frame(error))

    return fail


def slot_test(plan: KeyPlan) -> SlotTest | None:
    """Return what tells whether a slot is one by value: types whose values are, and a test for any other slot.

    ``None``: every call goes the long way.
    """
    if not plan.native or plan.owner is not None:
        return None
    if plan.guard is not None:
        return (frozenset({plan.guard}), _is_never) if _is_own(plan.guard) else None
    if len(plan.parts) > 1 or plan.apart:
        return frozenset(), partial(_are_own, types_from=len(plan.parts) if plan.apart else None)
    return _OWN_SLOT, _is_uuid


def _is_own(kind: type) -> bool:
    return kind in _OWN_SLOT or is_uuid_kind(kind)


def _is_uuid(slot: Any) -> bool:
    return is_uuid_kind(slot.__class__)


def _is_never(_slot: Any) -> bool:
    return False


def _are_own(slot: Any, *, types_from: int | None) -> bool:
    """Tell whether every part of ``slot`` is its own slot; where types count they are in it, behind the values."""
    kinds = list(map(type, slot)) if types_from is None else slot[types_from:]
    return _OWN_SLOT.issuperset(kinds) or all(map(_is_own, kinds))
