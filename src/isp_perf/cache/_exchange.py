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
from isp_perf._core.leases import LEASE_SECONDS, Finding, classify, lease_token
from isp_perf._runtime.flights import Flight, TaskWaiter, ThreadWaiter
from isp_perf.cache._ages import MISSING
from isp_perf.cache._asking import Asker, Reply
from isp_perf.cache._claim import Claim
from isp_perf.cache._codec import UNTYPED_SHAPE
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._marks import Mark
from isp_perf.cache._remote import Held, SecondLevel
from isp_perf.typing import Drop, Lease, Replace

__all__ = ["claimed", "contents_of", "decoded", "rest_of", "window_of"]

_POLL_SECONDS: Final = 0.25
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
        names = second.names(self.flight.tags)
        untold = tuple(filter(second.journal.is_past, (self.wire, *names)))
        if untold:  # what stands there may be older than what was returned here
            yield from second.tell([Drop(untold)], untold, tasks=self.tasks)
            return None
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
            self.second.doubts.end_locked(self.wire)
        return claim

    def _leased(self, token: bytes, reply: Reply) -> Flow:
        second = self.second
        with second.local.lock:
            held = second.held.get(self.wire)
            if held is not None and held.token == token:
                return Claim() if self.wire in second.doubts else Claim(joins=held.flight)
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
        if self.second.doubts and not self._believed(opened.payload):
            return (yield from self._replace(data, reply))
        rest = rest_of(self.call, reply.left)
        claim = Claim(found=(value, rest), mark=self.mark, watch=self.watch)
        return (yield from self._refresh(data, reply, claim)) if self._is_due(opened, rest) else claim

    def _is_due(self, contents: Contents, rest: float) -> bool:
        """Return whether a value that is fresh for ``rest`` seconds is to be replaced before its end."""
        policy = self.call.source.policy
        if not self.reload and rest > -policy.stale_seconds[0]:
            return False
        return rest <= 0 or refresh_due(policy, contents, rest)

    def _rejected(self, why: Rejection, data: bytes, reply: Reply) -> Flow:
        """Replace bytes that nobody can believe, unless another deployment may need them."""
        self.second.tally.count_rejected(why.value, skew=why.skew)
        return Claim() if why.skew else (yield from self._replace(data, reply))

    def _believed(self, payload: bytes) -> bool:
        with self.second.local.lock:
            return self.second.doubts.believe_locked(self.wire, payload)

    def _replace(self, data: bytes, reply: Reply) -> Flow:
        """Put a lease in the place of ``data``, if that still stands there."""
        order = Replace(self.wire, _sha1(data), token := token_bytes(16), LEASE_SECONDS)
        answers = None
        try:
            answers = yield from self.second.attempt([order], tasks=self.tasks)
        finally:
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
