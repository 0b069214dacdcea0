"""What is given to the remote level after a load: the value, or the lease back, or a doubt; flows for both colours.

A fill counts only while its lease stands. What was loaded and not taken is returned all the same, to callers who asked
before whatever took the lease; from then on nothing older may be returned here, see ``_doubts``.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from isp_perf._core.envelope import Contents
from isp_perf._core.leases import Finding, classify, keeps_reading, kind_of
from isp_perf._runtime.flights import Flight
from isp_perf.cache._claim import Claim
from isp_perf.cache._codec import UNTYPED_SHAPE
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._exchange import window_of
from isp_perf.cache._remote import SICKNESS, Held, SecondLevel
from isp_perf.typing import Fill, Put, Read, Release, Swap

__all__ = ["abandon", "given_up", "keep_remote", "kept_locked", "passed", "sealed", "stored_there"]

_MOST_BYTES: Final = 8 << 20


def kept_locked(engine: Engine, call: Call, claim: Claim) -> bool:
    """Return whether the local level may keep the value, in the critical section that inserts it."""
    second = engine.second
    if second is None or call.source.local_only:
        return True
    if claim.mark is None or claim.watch is None:
        return False
    standing = claim.mark.standing and claim.watch.standing
    claim.lift_locked(second)
    return standing and second.trust.given and call.source.policy.bound > 0


def keep_remote(engine: Engine, call: Call, flight: Flight, *, claim: Claim, value: Any, ttl: float) -> Flow:
    """Fill the lease with ``value``; if the key was invalidated since it was granted, nothing is stored anywhere."""
    second = engine.second
    if second is None or call.source.local_only or claim.past:
        return
    stood = False
    if claim.token is not None:
        data = sealed(engine, call, flight, claim=claim, value=value, ttl=ttl)
        if data is None or not flight.attached:
            stood = yield from _returned(second, call, flight, claim=claim)
        else:
            stood = yield from _filled(second, call, flight, claim=claim, data=data, ttl=ttl)
    if not stood:
        yield from _unconfirmed(second, call, flight, value=value)


@contextmanager
def _adoptable(second: SecondLevel, name: str, claim: Claim) -> Generator[None, None, None]:
    """If this is cancelled nobody knows whether the lease still stands: the next one who finds it may have it."""
    try:
        yield
    except BaseException:
        with second.local.lock:
            second.orphan_locked((name,), claim.token or b"")
            claim.lift_locked(second)
        raise


def _returned(second: SecondLevel, call: Call, flight: Flight, *, claim: Claim) -> Flow:
    """Give the lease of ``claim`` back unfilled; return whether the value's own key was leased until then."""
    name, token = claim.wire or second.wire(call.key()), claim.token or b""
    with second.local.lock:
        second.return_locked(name, flight)
        claim.lift_locked(second)
    with _adoptable(second, name, claim):
        answers = yield from second.attempt([Release(name, token)], tasks=flight.loop is not None)
    return answers is not None and answers[0] and not claim.wire


def _filled(second: SecondLevel, call: Call, flight: Flight, *, claim: Claim, data: bytes, ttl: float) -> Flow:
    """Fill the lease of ``claim``; return whether it still stood."""
    tasks, wire = flight.loop is not None, second.wire(call.key())
    with second.local.lock:
        second.return_locked(claim.wire or wire, flight)
        claim.mark_again_locked(second, wire)
    life = ttl + window_of(call.source.policy)
    with _adoptable(second, claim.wire or wire, claim):
        stored = yield from _sent(second, wire, claim, data=data, ttl=life, tasks=tasks)
    if not stored:
        second.tally.fill_refused += 1
        with second.local.lock:
            claim.lift_locked(second)
    return stored


def _sent(second: SecondLevel, wire: str, claim: Claim, *, data: bytes, ttl: float, tasks: bool) -> Flow:
    """Send the fill of ``claim``; return whether its lease still stood."""
    token = b"" if claim.token is None else claim.token
    if not claim.wire:
        return (yield from stored_there(second, wire, Fill(wire, token, data, ttl), tasks=tasks))
    stored = yield from stored_there(second, wire, Swap(wire, claim.seen, data, ttl), tasks=tasks)
    yield from second.attempt([Release(claim.wire, token)], tasks=tasks)
    return stored


def _unconfirmed(second: SecondLevel, call: Call, flight: Flight, *, value: Any) -> Flow:
    """Let nobody get an older value after this one, which the remote level has not taken.

    If nothing stands there now but a write intent, whoever leases it from now on loads later than this load did.
    """
    wire = second.wire(call.key())
    answers = yield from second.attempt([Read((wire,), ())], tasks=flight.loop is not None)
    if answers is None:
        _passed(second, call, flight)
    elif classify(answers[0].found[0][0]) not in {Finding.GRANTED, Finding.INTENT}:
        payload: bytes | None = None
        with suppress(Exception):  # what no codec takes compares with nothing
            payload = call.source.codec.encode(value)
        second.doubt(wire, payload)


def passed(engine: Engine, call: Call, flight: Flight) -> None:
    """Take note that a value goes to callers past the remote level: nobody may get an older one after it."""
    if engine.second is not None:
        _passed(engine.second, call, flight)


def _passed(second: SecondLevel, call: Call, flight: Flight) -> None:
    flights, slot = call.store.flights, call.slot
    with second.local.lock:
        other = flights.get(slot)
        if other is not None and other is not flight:  # may have read the truth before this load did
            other.attached = False
            del flights[slot]
    second.owe(second.wire(call.key()))


def stored_there(second: SecondLevel, wire: str, order: Fill | Put | Swap, *, tasks: bool) -> Flow:
    """Store a value; return whether that is certain. A store that may yet arrive is removed before it is believed."""
    try:
        (stored,) = yield from second.order([order], tasks=tasks)
    except SICKNESS as error:
        kind = kind_of(error)
        if keeps_reading(kind):
            second.tally.count_error(kind)
        else:
            second.failed(error)
            second.past(wire)
        return False
    return bool(stored)


def sealed(engine: Engine, call: Call, flight: Flight, *, claim: Claim, value: Any, ttl: float) -> bytes | None:
    """Return the envelope of ``value``; ``None`` if it is not for the remote level."""
    second = engine.second
    if second is None or ttl <= 0:
        return None
    names = {tag: second.tag_name(tag) for tag in sorted(flight.tags)}
    epoch = claim.versions.get(second.epoch_name, b"")
    if not epoch or not claim.versions.keys() >= set(names.values()):
        return None  # a tag that was added while loading: nobody knows its version before the load
    payload = call.source.codec.encode(value)
    flight.weight = len(payload)
    if len(payload) > _MOST_BYTES:
        second.tally.too_large += 1
        return None
    tags = {tag: claim.versions[name] for tag, name in names.items()}
    shape = getattr(call.source.codec, "shape", UNTYPED_SHAPE)
    contents = Contents(payload, epoch, tags, engine.wall(), ttl, flight.seconds)
    return second.sealer.seal(second.wire(call.key()), contents, shape=shape)


def given_up(engine: Engine, call: Call, flight: Flight) -> Flow:
    """Give the lease of a load that failed back, so that the next one starts at once."""
    second = engine.second
    if second is not None:
        with second.local.lock:
            held = _ended_locked(second, call, flight)
        if held is not None:
            yield from second.attempt([Release(held[0], held[1].token)], tasks=flight.loop is not None)


def abandon(engine: Engine, call: Call, flight: Flight) -> None:
    """As ``given_up``, in the background: nobody can wait for it."""
    second = engine.second
    if second is None:
        return
    with second.local.lock:
        held = _ended_locked(second, call, flight)
    if held is not None:
        tasks = flight.loop is not None
        flow = second.attempt([Release(held[0], held[1].token)], tasks=tasks)
        engine.background.start(flow, call.source.context, tasks=tasks)


def _ended_locked(second: SecondLevel, call: Call, flight: Flight) -> tuple[str, Held] | None:
    """Take note that ``flight`` has ended; return the lease that it still held, with its key."""
    if call.source.local_only:
        return None
    key = call.key()
    for wire in (second.wire(key), second.refresh_name(key)):
        held = second.return_locked(wire, flight)
        if held is not None:
            held.claim.lift_locked(second)
            return wire, held
    return None
