"""What happens when the wrapper did not find the value: one flow for both colours.

    look again under the lock -> join the load in progress, or lead: remote level, loader, remote level, local level

The flow returns the value, or a ``Failure`` that the caller raises in its own frame.
"""

from functools import partial
from typing import Any, Final

from isp_perf._core.departures import ABSENT, EVICTED
from isp_perf._core.eviction import Entry
from isp_perf._runtime.drive import Failure, without_frame
from isp_perf._runtime.flights import (
    LEADING,
    TAKE_OVER,
    TIMED_OUT,
    Flight,
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    leading,
    own_copy,
)
from isp_perf.cache._ages import (
    MISSING,
    age_of,
    insert_locked,
    keep_etag,
    lifetime,
    local_ttl,
    opened,
    stale_value_locked,
    store_error_locked,
)
from isp_perf.cache._beyond import abandon, claimed, given_up, keep_remote, kept_locked, passed
from isp_perf.cache._claim import Claim
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._entry import filled
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._refusal import refuse
from isp_perf.cache._stats import Counters

__all__ = ["fail_loading", "fetch", "finish", "insert_locked", "lifetime", "local_ttl", "take_back"]

_EVERY_OUTCOME: Final = BaseException  # cancellation is an outcome too, and handed on as a Failure


def fetch(engine: Engine, call: Call, *, tasks: bool, reload: bool = False) -> Flow:
    """Return the value of ``call`` from the local level, from a load in progress, or from a load of its own."""
    local = engine.local
    with local.lock:
        entry = None if reload else local.find_locked(call.store, call.slot)
        if entry is not None and _serves_locked(engine, call, entry, tasks=tasks):
            entry.hits += 1
            return opened(entry.value)
        flight, waiter = _board_locked(engine, call, tasks=tasks, reload=reload)
    if waiter is not None:
        wait = _wait_timed if call.source.policy.timed else _wait
        outcome = yield from wait(engine, call, flight=flight, waiter=waiter)
        if outcome is not TAKE_OVER:
            return outcome
        flight.lead_by(leading(), tasks=tasks)
    return (yield from _lead(engine, call, flight, reload=reload))


def _serves_locked(engine: Engine, call: Call, entry: Entry, *, tasks: bool) -> bool:
    """Return whether ``entry`` may be returned; an ageing one is refreshed in the background."""
    served, ageing = age_of(engine, call, entry)
    if ageing:
        _start_locked(engine, call, tasks=tasks, reload=True)
    return served


def _board_locked(engine: Engine, call: Call, *, tasks: bool, reload: bool) -> tuple[Flight, Waiter | None]:
    """Return the flight of this call, and a waiter unless the caller is to lead it."""
    flight = call.store.flights.get(call.slot)
    if flight is None or flight.abandoned():
        if not call.source.policy.timed:
            flight = _take_off_locked(call, flight, tasks=tasks)
            flight.reason = engine.local.reason_locked(call.store, call.slot)
            return flight, None
        flight = _start_locked(engine, call, tasks=tasks, reload=reload)
        flight.reason = engine.local.reason_locked(call.store, call.slot)
        flight.task = flight.started
    return flight, _join_locked(engine, call, flight, tasks=tasks)


def _start_locked(engine: Engine, call: Call, *, tasks: bool, reload: bool) -> Flight:
    """Attach a flight that is led in the background."""
    flight = _take_off_locked(call, call.store.flights.get(call.slot), tasks=tasks)
    flight.parent = None
    flow = _lead(engine, call, flight, reload=reload)
    flight.started = engine.background.start(flow, call.source.context, tasks=tasks)
    return flight


def _join_locked(engine: Engine, call: Call, flight: Flight, *, tasks: bool) -> Waiter:
    """Wait for the load in progress."""
    waiter = TaskWaiter() if tasks else ThreadWaiter()
    flight.join_locked(waiter, leading(), name=call.source.label)
    for counters in (engine.local.counters, call.source.counters):
        counters.misses += 1
        counters.joined += 1
        _count_reason(counters, flight)
    return waiter


def _take_off_locked(call: Call, old: Flight | None, *, tasks: bool) -> Flight:
    """Attach a new flight; who waited for one whose leader is gone for good waits for this one."""
    flight = Flight.make()
    flight.lead_by(leading(), tasks=tasks)
    if call.source.policy.tags:
        flight.tags = frozenset(call.tags())
    if call.source.policy.staged:
        flight.stale = call.store.cold.get(call.slot)
    if old is not None:
        flight.waiters, old.waiters = old.waiters, []
        old.attached = False
    call.store.flights[call.slot] = flight
    return flight


def _land_locked(call: Call, flight: Flight) -> None:
    """Detach the flight at its end."""
    flight.landed = True
    if call.store.flights.get(call.slot) is flight:
        del call.store.flights[call.slot]


def _landed_locked(engine: Engine, call: Call, flight: Flight) -> None:
    """Detach the flight at its end, also from those whose question has left."""
    _land_locked(call, flight)
    if engine.second is not None:
        engine.second.sealed.pop(flight, None)


def _wait(engine: Engine, call: Call, *, flight: Flight, waiter: Waiter, limit: float | None = None) -> Flow:
    """Wait for the flight's outcome; a waiter that leaves although it was just made leader passes that on."""
    joiner = leading()
    try:
        outcome = yield waiter.wait if limit is None else partial(waiter.wait_for, limit)
    except BaseException:
        with engine.local.lock:
            flight.leave_locked(waiter, joiner)
            if waiter.outcome is TAKE_OVER and not flight.hand_over_locked():
                _landed_locked(engine, call, flight)
        raise
    if outcome is TIMED_OUT:
        return outcome
    with engine.local.lock:
        flight.leave_locked(waiter, joiner)
    return own_copy(outcome) if outcome.__class__ is Failure else outcome


def _wait_timed(engine: Engine, call: Call, *, flight: Flight, waiter: Waiter) -> Flow:
    """As ``_wait``, with the limits of the policy."""
    soft, hard = call.source.policy.limits
    if soft is not None and (hard is None or soft < hard):
        outcome = yield from _wait(engine, call, flight=flight, waiter=waiter, limit=soft)
        if outcome is not TIMED_OUT:
            return outcome
        with engine.local.lock:
            value = stale_value_locked(engine, call, flight, failed=False)
            if value is not MISSING:
                flight.task = None  # nobody may be left to wait, and the load goes on all the same
                flight.leave_locked(waiter, leading())
                return value
        hard = None if hard is None else hard - soft
    outcome = yield from _wait(engine, call, flight=flight, waiter=waiter, limit=hard)
    if outcome is TIMED_OUT:
        with engine.local.lock:
            flight.leave_locked(waiter, leading())
        return Failure(TimeoutError(f"{call.source.label} took longer than its hard_timeout"))
    return outcome


def _lead(engine: Engine, call: Call, flight: Flight, *, reload: bool) -> Flow:
    """Find the value for everyone who waits."""
    outer = leading()
    LEADING.set(flight)
    try:
        value = yield from _obtain(engine, call, flight, reload=reload)
    except _EVERY_OUTCOME as error:
        LEADING.set(outer)
        return _fail(engine, call, flight=flight, failure=Failure(error))
    LEADING.set(outer)
    if value.__class__ is Failure:
        return _fail(engine, call, flight=flight, failure=value)
    flight.wake_all(value)
    return value


def _fail(engine: Engine, call: Call, *, flight: Flight, failure: Failure) -> Any:
    """Give an error to everyone who waits; a cancellation concerns the leader alone, and one waiter takes over."""
    waiters: list[Waiter] = []
    outcome: Any = failure
    with engine.local.lock:
        if isinstance(failure.error, Exception):
            outcome = _instead_locked(engine, call, flight, failure=failure)
            waiters = flight.take_waiters()
            _landed_locked(engine, call, flight)
        elif not flight.hand_over_locked():
            _landed_locked(engine, call, flight)
    if flight.landed:
        abandon(engine, call, flight)
    for waiter in waiters:
        waiter.wake(outcome)
    return outcome


def _instead_locked(engine: Engine, call: Call, flight: Flight, *, failure: Failure) -> Any:
    """Return a stale value in place of an error, if there is one; otherwise keep the error if the policy says so."""
    value = stale_value_locked(engine, call, flight, failed=True)
    if value is not MISSING:
        return value
    if flight.attached:
        store_error_locked(engine, call, failure)
    return failure


def _obtain(engine: Engine, call: Call, flight: Flight, *, reload: bool) -> Flow:
    """Return the value from the remote level or the loader, the flight landed, or the loader's ``Failure``."""
    while True:
        claim = yield from claimed(engine, call, flight, reload=reload)
        if claim.joins is None:
            break
        outcome = yield from _follow(engine, call, flight, other=claim.joins)
        if outcome is not MISSING:
            return outcome
    if claim.found is not MISSING:
        return _take_remote(engine, call, flight=flight, claim=claim, reload=reload)
    value = yield from (_load_past if claim.past else _load)(engine, call, flight)
    if value.__class__ is Failure:
        if isinstance(value.error, Exception):
            yield from given_up(engine, call, flight)
            return _stale_or(engine, call, flight, claim=claim, failure=value)
        return value
    value, ttl = filled(flight, value, lifetime(call.source.policy, value))
    yield from keep_remote(engine, call, flight, claim=claim, value=value, ttl=ttl)
    _store(engine, call, flight, claim=claim, value=value, ttl=local_ttl(call.source.policy, ttl))
    return value


def _stale_or(engine: Engine, call: Call, flight: Flight, *, claim: Claim, failure: Failure) -> Any:
    """Return the stale value of the remote level in place of an error, if this process has none of its own."""
    with engine.local.lock:
        if claim.stale is MISSING or not flight.attached or call.store.find(call.slot) is not None:
            return failure
        _landed_locked(engine, call, flight)
        for counters in (engine.local.counters, call.source.counters):
            counters.stale_hits += 1
    return claim.stale


def _follow(engine: Engine, call: Call, flight: Flight, *, other: Flight) -> Flow:
    """Return the outcome of the load that holds the lease; ``MISSING`` if it has ended already."""
    tasks = flight.loop is not None
    with engine.local.lock:
        if other.landed:
            return MISSING
        waiter = _join_locked(engine, call, other, tasks=tasks)
    outcome = yield from _wait(engine, call, flight=other, waiter=waiter)
    if outcome is TAKE_OVER:
        other.lead_by(leading(), tasks=tasks)
        outcome = yield from _lead(engine, call, other, reload=False)
    if outcome.__class__ is not Failure:
        with engine.local.lock:
            _landed_locked(engine, call, flight)
    return outcome


def _load_past(engine: Engine, call: Call, flight: Flight) -> Flow:
    """As ``_load``, when the remote level does not protect what is behind the loader; it is owed a removal then."""
    function = call.store.owner
    yield from engine.gate.enter(function, tasks=flight.loop is not None)
    try:
        value = yield from _load(engine, call, flight)
    finally:
        engine.gate.leave(function)
    if value.__class__ is not Failure:
        passed(engine, call, flight)
    return value


def _take_remote(engine: Engine, call: Call, *, flight: Flight, claim: Claim, reload: bool) -> Any:
    """Keep what the remote level had for as long as it is fresh; a stale value is refreshed in the background."""
    value, rest = claim.found
    stale = rest <= 0
    _store(engine, call, flight, claim=claim, value=value, ttl=local_ttl(call.source.policy, rest))
    engine.count_remote(call, value)
    if stale and not reload:
        with engine.local.lock:
            for counters in (engine.local.counters, call.source.counters):
                counters.stale_hits += 1
            if call.slot not in call.store.flights:
                _start_locked(engine, call, tasks=flight.loop is not None, reload=True)
    return value


def take_back(call: Call, local: LocalLevel, flight: Flight) -> None:
    """End a flight that was attached although there is something in its slot."""
    with local.lock:
        if not flight.hand_over_locked():
            _land_locked(call, flight)


def fail_loading(engine: Engine, call: Call, flight: Flight, *, error: BaseException) -> Any:
    """End a flight whose loader raised ``error``, and return what its leader gets."""
    with engine.local.lock:
        flight.reason = engine.local.reason_locked(call.store, call.slot)
        _count_load(engine, call, flight, failed=1)
    return _fail(engine, call, flight=flight, failure=Failure(error))


def finish(engine: Engine, call: Call, flight: Flight, *, value: Any) -> Any:
    """End a flight whose loader returned ``value``, without a remote level, and return what its leader gets."""
    with engine.local.lock:
        flight.reason = engine.local.reason_locked(call.store, call.slot)
        _count_load(engine, call, flight, failed=0)
    try:
        refuse(value)
        value, ttl = filled(flight, value, lifetime(call.source.policy, value))  # may run the policy's ``when``
    except _EVERY_OUTCOME as error:
        return _fail(engine, call, flight=flight, failure=Failure(error))
    _store(engine, call, flight, claim=Claim(), value=value, ttl=local_ttl(call.source.policy, ttl))
    flight.wake_all(value)
    return value


def _load(engine: Engine, call: Call, flight: Flight) -> Flow:
    """Call the loader, count it, and return its value or a ``Failure``."""
    clock = engine.local.clock
    started = clock()
    try:
        value = yield call.source.step(call.values)
    except _EVERY_OUTCOME as error:
        flight.seconds = clock() - started
        _count_load(engine, call, flight, failed=1)
        return Failure(without_frame(error))
    flight.seconds = clock() - started
    _count_load(engine, call, flight, failed=0)
    refuse(value)
    return value


def _count_load(engine: Engine, call: Call, flight: Flight, *, failed: int) -> None:
    for counters in (engine.local.counters, call.source.counters):
        counters.misses += 1
        counters.errors += failed
        counters.count_load(flight.seconds)
        _count_reason(counters, flight)


def _count_reason(counters: Counters, flight: Flight) -> None:
    """Count a miss whose reason is known; those of absent entries are the rest."""
    if flight.reason and flight.reason is not ABSENT:
        counters.missed[flight.reason] = counters.missed.get(flight.reason, 0) + 1


def _store(engine: Engine, call: Call, flight: Flight, *, claim: Claim, value: Any, ttl: float) -> None:
    """Keep the value in the local level, unless the flight was detached, and end the flight."""
    local = engine.local
    with local.lock:
        if kept_locked(engine, call, claim) and flight.attached and ttl > 0:
            seconds, told = flight.seconds, flight.filling is not None
            insert_locked(
                local,
                call,
                value=value,
                ttl=ttl,
                load_seconds=seconds,
                tags=flight.tags,
                told=told,
                weight=flight.weight,
            )
            keep_etag(call, flight)
            if flight.reason is EVICTED:
                local.departures.note(call.store.mark(call.slot), EVICTED)
        elif flight.reason:
            local.departures.forget(call.store.mark(call.slot))
        _landed_locked(engine, call, flight)
