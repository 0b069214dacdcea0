"""What is done with the remote level by key, without a load: look up, and write; flows for both colours."""

from collections.abc import Mapping, Sequence
from secrets import token_bytes
from typing import Any

from isp_perf._core.envelope import Contents, tags_in
from isp_perf._core.leases import LEASE_SECONDS, Finding, classify
from isp_perf._runtime.flights import Flight
from isp_perf.cache._ages import MISSING
from isp_perf.cache._claim import Claim
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._exchange import contents_of, decoded, rest_of, window_of
from isp_perf.cache._filling import sealed, stored_there
from isp_perf.cache._remote import SecondLevel
from isp_perf.typing import Answer, Lease, Put, Read

__all__ = ["looked_up", "put_remote"]


def looked_up(engine: Engine, calls: Mapping[str, Call], *, tasks: bool) -> Flow:
    """Return, by logical key, a claim for each of ``calls`` whose value the remote level has; nothing is leased.

    One round trip, and one more if values carry tags. Each claim has its marks set, for ``kept_locked``.
    """
    second = engine.second
    if second is None or not second.ready:
        return {}
    past = second.journal.is_past
    if past(second.epoch_name):
        return {}
    shared = {k: call for k, call in calls.items() if not call.source.local_only and not past(second.wire(k))}
    if not shared:
        return {}
    return (yield from _Reading(second, shared, tasks=tasks).run())


class _Reading:
    """One look at the remote level.

    Args:
        second: the remote level.
        calls: what to look for, by logical key.
        tasks: for tasks, not for threads.
    """

    def __init__(self, second: SecondLevel, calls: Mapping[str, Call], *, tasks: bool) -> None:
        self._second = second
        self._calls = calls
        self._tasks = tasks
        self._claims: dict[str, Claim] = {}

    def run(self) -> Flow:
        """Return the claims for what was found and can be believed."""
        second = self._second
        with second.local.lock:
            for key, call in self._calls.items():
                second.trust.narrow(call.source.policy.bound)
                mark, watch = (second.marks.set_locked((name,)) for name in (second.wire(key), second.epoch_name))
                self._claims[key] = Claim(mark=mark, watch=watch)
        try:
            order = Read(tuple(map(second.wire, self._calls)), (second.epoch_name,))
            answers = yield from second.attempt([order], tasks=self._tasks)
            if answers is not None:
                yield from self._take(answers[0])
        finally:
            with second.local.lock:
                for key in [key for key, claim in self._claims.items() if claim.found is MISSING]:
                    self._claims.pop(key).lift_locked(second)
        return self._claims

    def _take(self, answer: Answer) -> Flow:
        data = {
            key: (found, left)
            for key, (found, left) in zip(self._calls, answer.found, strict=True)
            if found is not None and classify(found) is Finding.VALUE
        }
        carried = {key: tags_in(found) for key, (found, _) in data.items()}
        versions = yield from self._versions(carried)
        if versions is not None:
            versions[self._second.epoch_name] = answer.beside[0]
            for key, (found, left) in data.items():
                self._open(key, found, left, versions=versions)

    def _versions(self, carried: Mapping[str, Sequence[str]]) -> Flow:
        """Return the versions of all tags that the values name; ``None`` if the level failed."""
        second = self._second
        names = tuple(dict.fromkeys(second.tag_name(tag) for tags in carried.values() for tag in tags))
        if not names:
            return {}
        self._watch_tags(carried)
        answers = yield from second.attempt([Read((), names)], tasks=self._tasks)
        if answers is None:
            return None
        versions = zip(names, answers[0].beside, strict=True)
        return {name: b"" if second.journal.is_past(name) else version for name, version in versions}

    def _watch_tags(self, carried: Mapping[str, Sequence[str]]) -> None:
        """Hear also of the tags that are removed from now on."""
        second = self._second
        with second.local.lock:
            for key, tags in carried.items():
                if (watch := self._claims[key].watch) is not None:
                    second.marks.extend_locked(watch, map(second.tag_name, tags))

    def _open(self, key: str, data: bytes, left: float | None, *, versions: Mapping[str, bytes]) -> None:
        call, claim = self._calls[key], self._claims[key]
        contents = contents_of(self._second, call, data, wire=self._second.wire(key), versions=versions)
        if not isinstance(contents, Contents):
            self._second.tally.count_rejected(contents.value, skew=contents.skew)
            return
        value, rest = decoded(call, contents), rest_of(call, left)
        if value is not MISSING and rest > 0 and self._believed(key, contents.payload):
            claim.tags = frozenset(contents.tags)
            claim.found = (value, rest)

    def _believed(self, key: str, payload: bytes) -> bool:
        with self._second.local.lock:
            return self._second.doubts.believe_locked(self._second.wire(key), payload)


def put_remote(engine: Engine, call: Call, flight: Flight, *, value: Any, ttl: float) -> Flow:
    """Write ``value`` over whatever is under the key, a write intent excepted; return whether it is there."""
    second = engine.second
    if second is None:
        return True
    tasks, wire = flight.loop is not None, second.wire(call.key())
    versions = yield from _versions_for(second, second.names(flight.tags), tasks=tasks)
    data = sealed(engine, call, flight, claim=Claim(versions=versions), value=value, ttl=ttl)
    if data is None or not second.ready or not flight.attached:
        yield from second.drop((wire,), tasks=tasks)
        return False
    order = Put(wire, data, ttl + window_of(call.source.policy))
    stored = yield from stored_there(second, wire, order, tasks=tasks)
    if stored:
        with second.local.lock:
            second.doubts.end_locked(wire)
    return stored


def _versions_for(second: SecondLevel, names: tuple[str, ...], *, tasks: bool) -> Flow:
    """Return the versions of ``names`` from before a write; ``None`` if nobody can tell."""
    if second.epoch and len(names) == 1:
        # A version that is out of date makes the value a miss, never wrong: the namespace's need not be asked for.
        return {second.epoch_name: second.epoch}
    if not second.ready:
        return None
    order = Lease((), names, token_bytes(16), LEASE_SECONDS, token_bytes(8))
    answers = yield from second.attempt([order], tasks=tasks)
    return None if answers is None else dict(zip(names, answers[0].beside, strict=True))
