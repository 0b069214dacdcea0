"""What one call exchanges with the remote level: a question, and what the answer lets it do; flows for both colours.

One key of the remote level holds a value, a lease or a write intent. A value that can be believed is the answer; a
lease of ours means: load, and fill; a lease of another load means: wait for that load, here or in another process;
everything else means: load, and store nothing. Whatever invalidates a key removes its lease, so a load that began
before can never be stored, in any process.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha1
from random import SystemRandom
from secrets import token_bytes
from typing import Any, Final

from isp_perf._core.envelope import Contents, Rejection, outdated
from isp_perf._core.freshness import xfetch_after
from isp_perf._core.leases import LEASE_SECONDS, Finding, classify, keeps_reading, kind_of, lease_token
from isp_perf._runtime.flights import Flight, TaskWaiter, ThreadWaiter
from isp_perf.cache._ages import MISSING
from isp_perf.cache._asking import Asker, Reply
from isp_perf.cache._claim import Claim
from isp_perf.cache._codec import UNTYPED_SHAPE
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._marks import Mark
from isp_perf.cache._remote import SICKNESS, Held, SecondLevel
from isp_perf.typing import Drop, Fill, Lease, Put, Release, Replace, Swap

__all__ = [
    "abandon",
    "claimed",
    "contents_of",
    "decoded",
    "given_up",
    "keep_remote",
    "kept_locked",
    "rest_of",
    "sealed",
    "stored_there",
    "window_of",
]

_POLL_SECONDS: Final = 0.25
_MOST_BYTES: Final = 8 << 20
_draw: Final = SystemRandom().random


def claimed(engine: Engine, call: Call, flight: Flight, *, reload: bool) -> Flow:
    """Return what this load may do, having asked the remote level."""
    second, asker = engine.second, engine.asker
    if second is None or asker is None or call.source.local_only:
        return Claim()
    asking = _Asking(engine, second, asker, call=call, flight=flight, reload=reload)
    wire = asking.wire
    held = second.held.get(wire)
    if held is not None and held.flight is flight:  # taken over from a leader that was cancelled
        return held.claim
    second.trust.narrow(call.source.policy.bound)
    while second.ready:
        claim = yield from asking.once()
        if claim is not None:
            return claim
    second.home(tasks=flight.loop is not None)
    second.past(wire)
    return Claim(past=True)


class _Asking:
    """One load's questions about its key."""

    def __init__(
        self, engine: Engine, second: SecondLevel, asker: Asker, *, call: Call, flight: Flight, reload: bool
    ) -> None:
        self.engine = engine
        self.second = second
        self.asker = asker
        self.call = call
        self.flight = flight
        self.reload = reload
        self.tasks = flight.loop is not None
        self.mark = self.watch = Mark(())
        self.key = call.key()
        self.wire = second.wire(self.key)

    def once(self) -> Flow:
        """Ask, and return the claim; ``None`` to ask again, unless the level is out of use by then."""
        second, lock = self.second, self.second.local.lock
        if second.journal.is_past(self.wire):  # what stands there may be older than what was returned here
            yield from second.tell([Drop((self.wire,))], (self.wire,), tasks=self.tasks)
            return None
        names = second.names(self.flight.tags)
        with lock:
            self.mark = second.marks.set_locked((self.wire,))
            self.watch = second.marks.set_locked(names)
        claim: Claim | None = None
        try:
            reply = yield from self.asker.ask(self.wire, names, self._seal, tasks=self.tasks)
            if reply is not None:
                claim = yield from self._judge(reply)
        finally:
            if claim is None or claim.mark is None:
                with lock:
                    second.marks.lift_locked(self.mark)
                    second.marks.lift_locked(self.watch)
        return claim

    def _seal(self) -> None:
        """Let nobody join who comes after the question left; an invalidation still finds the load."""
        with self.second.local.lock:
            flights, slot = self.call.store.flights, self.call.slot
            if flights.get(slot) is self.flight:
                del flights[slot]
            if self.flight.attached:
                self.second.sealed[self.flight] = self.key

    def _judge(self, reply: Reply) -> Flow:
        finding = classify(reply.data)
        if finding is Finding.GRANTED:
            return self._granted(reply.token, reply)
        if finding is Finding.LEASED and reply.data is not None:
            return (yield from self._leased(lease_token(reply.data), reply))
        if finding is Finding.VALUE and reply.data is not None:
            return (yield from self._value(reply.data, reply))
        return Claim()

    def _granted(self, token: bytes, reply: Reply) -> Claim | None:
        with self.second.local.lock:
            if reply.made:  # the news of versions that we made ourselves is on its way: mark again behind it
                self.second.orphan_locked((self.wire,), token)
                return None
            claim = Claim(token=token, versions=reply.versions, mark=self.mark, watch=self.watch)
            self.second.hold_locked(self.wire, Held(token, self.flight, claim))
        return claim

    def _leased(self, token: bytes, reply: Reply) -> Flow:
        second = self.second
        with second.local.lock:
            held = second.held.get(self.wire)
            if held is not None and held.token == token:
                return Claim(joins=held.flight)
            if second.adopt_locked(self.wire, token):
                return self._granted(token, reply)
            if self.call.source.policy.single_flight == "process":
                return Claim()
        return (yield from self._wait())

    def _wait(self) -> Flow:
        """Wait until the key changes, and have it asked for again."""
        second = self.second
        with second.local.lock:
            if not self.mark.standing:  # it changed since we asked
                return None
            second.tally.waits += 1
            waiter = self.mark.waiter = TaskWaiter() if self.tasks else ThreadWaiter()
        yield partial(waiter.wait_for, _POLL_SECONDS)
        return None

    def _value(self, data: bytes, reply: Reply) -> Flow:
        opened = contents_of(self.second, self.call, data, wire=self.wire, versions=reply.versions)
        if isinstance(opened, Rejection):
            return (yield from self._rejected(opened, data, reply))
        value = decoded(self.call, opened)
        if value is MISSING:
            return (yield from self._rejected(Rejection.FOREIGN, data, reply))
        rest = rest_of(self.call, reply.left)
        claim = Claim(found=(value, rest), mark=self.mark, watch=self.watch)
        if not self.reload and rest > -self.call.source.policy.stale_seconds[0]:
            return claim
        if rest <= 0 or refresh_due(self.call.source.policy, opened, rest):
            return (yield from self._refresh(data, reply, claim))
        return claim

    def _rejected(self, why: Rejection, data: bytes, reply: Reply) -> Flow:
        """Put a lease in the place of bytes that nobody can believe, if they still stand there."""
        self.second.tally.count_rejected(why.value, skew=why.skew)
        if why.skew:
            return Claim()
        order = Replace(self.wire, _sha1(data), token := token_bytes(16), LEASE_SECONDS)
        answers = yield from self.second.attempt([order], tasks=self.tasks)
        if answers is None:
            with self.second.local.lock:
                self.second.orphan_locked((self.wire,), token)
        return self._granted(token, reply) if answers is not None and answers[0] else None

    def _refresh(self, data: bytes, reply: Reply, claim: Claim) -> Flow:
        """Return the right to replace a value before its end: for one load of the fleet, and as long as it stands."""
        wire, token = self.second.refresh_name(self.key), token_bytes(16)
        answers = yield from self.second.attempt([Lease((wire,), (), token, LEASE_SECONDS, b"")], tasks=self.tasks)
        value, rest = claim.found
        revalidate, on_error = self.call.source.policy.stale_seconds
        if answers is None or answers[0].found[0][0] is not None:
            return claim if rest > -revalidate else (yield from self._wait())
        refresh = Claim(token=token, versions=reply.versions, mark=self.mark, watch=self.watch)
        refresh.wire, refresh.seen = wire, _sha1(data)
        refresh.stale = value if rest > -on_error else MISSING
        with self.second.local.lock:
            self.second.hold_locked(wire, Held(token, self.flight, refresh))
        return refresh


def refresh_due(policy: CachePolicy, contents: Contents, left: float) -> bool:
    """Return whether a value that is fresh for ``left`` seconds has reached the moment of its early refresh."""
    early = policy.early_refresh
    if early == "off":
        return False
    if isinstance(early, str):
        return contents.fresh - left >= xfetch_after(contents.fresh, contents.load, 1.0 - _draw())
    return contents.fresh - left >= early * contents.fresh


def _sha1(data: bytes) -> str:
    return sha1(data, usedforsecurity=False).hexdigest()


def contents_of(
    second: SecondLevel, call: Call, data: bytes, *, wire: str, versions: Mapping[str, bytes]
) -> Contents | Rejection:
    """Return what the envelope ``data`` under the key ``wire`` holds, or why it is not believed."""
    shape = getattr(call.source.codec, "shape", UNTYPED_SHAPE)
    opened = second.sealer.open(wire, data, shape=shape)
    if isinstance(opened, Rejection):
        return opened
    tags = {tag: versions.get(second.tag_name(tag), b"") for tag in opened.tags}
    return Rejection.OUTDATED if outdated(opened, versions.get(second.epoch_name, b""), tags) else opened


def decoded(call: Call, contents: Contents) -> Any:
    """Return the value, or ``MISSING``: a codec may raise anything."""
    with suppress(Exception):
        return call.source.codec.decode(contents.payload)
    return MISSING


def rest_of(call: Call, left: float | None) -> float:
    """Return how long a value found in the remote level is fresh; below 0 it is kept for want of a better one."""
    policy = call.source.policy
    return policy.fresh if left is None else min(left - window_of(policy), policy.fresh)


def window_of(policy: CachePolicy) -> float:
    """Return for how long after its ttl a value stays in the remote level."""
    return max(policy.stale_seconds) if policy.staged else 0.0


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
    if second is None or claim.token is None:
        return
    tasks, wire = flight.loop is not None, second.wire(call.key())
    data = sealed(engine, call, flight, claim=claim, value=value, ttl=ttl)
    with second.local.lock:
        second.return_locked(claim.wire or wire, flight)
        claim.mark_again_locked(second, wire)
    stored = False
    if data is None or not flight.attached:
        yield from second.attempt([Release(claim.wire or wire, claim.token)], tasks=tasks)
    else:
        life = ttl + window_of(call.source.policy)
        stored = yield from _filled(second, wire, claim, data=data, ttl=life, tasks=tasks)
        second.tally.fill_refused += not stored
    if not stored:
        with second.local.lock:
            claim.lift_locked(second)


def _filled(second: SecondLevel, wire: str, claim: Claim, *, data: bytes, ttl: float, tasks: bool) -> Flow:
    """Fill the lease of ``claim``; return whether it still stood."""
    token = b"" if claim.token is None else claim.token
    if not claim.wire:
        return (yield from stored_there(second, wire, Fill(wire, token, data, ttl), tasks=tasks))
    stored = yield from stored_there(second, wire, Swap(wire, claim.seen, data, ttl), tasks=tasks)
    yield from second.attempt([Release(claim.wire, token)], tasks=tasks)
    return stored


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
