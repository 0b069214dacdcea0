"""What is done with the remote level by key, without a load: look up, and write; flows for both colours."""

from collections.abc import Mapping
from secrets import token_bytes
from typing import Any

from isp_perf._core.envelope import Contents, tags_in
from isp_perf._core.leases import LEASE_SECONDS, Finding, classify
from isp_perf._runtime.flights import Flight
from isp_perf.cache._ages import MISSING
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._exchange import Claim, Flow, contents_of, decoded, rest_of, sealed, stored_there
from isp_perf.cache._remote import SecondLevel
from isp_perf.typing import Answer, Lease, Put, Read

__all__ = ["looked_up", "put_remote"]


def looked_up(engine: Engine, calls: Mapping[str, Call], *, tasks: bool) -> Flow:
    """Return, by logical key, a claim for each of ``calls`` whose value the remote level has; nothing is leased.

    One round trip, and one more if values carry tags. Each claim has its marks set, for ``kept_locked``.
    """
    second = engine.second
    calls = {key: call for key, call in calls.items() if not call.source.local_only}
    if second is None or not calls or not second.ready:
        return {}
    claims: dict[str, Claim] = {}
    with second.local.lock:
        for key, call in calls.items():
            second.trust.narrow(call.source.policy.bound)
            mark, watch = second.marks.set_locked((second.wire(key),)), second.marks.set_locked((second.epoch_name,))
            claims[key] = Claim(mark=mark, watch=watch)
    try:
        wires = tuple(map(second.wire, calls))
        answers = yield from second.attempt([Read(wires, (second.epoch_name,))], tasks=tasks)
        if answers is not None:
            yield from _fill_in(second, calls, claims, answer=answers[0], tasks=tasks)
    finally:
        with second.local.lock:
            for key in [key for key, claim in claims.items() if claim.found is MISSING]:
                claims.pop(key).lift_locked(second)
    return claims


def _fill_in(
    second: SecondLevel, calls: Mapping[str, Call], claims: Mapping[str, Claim], *, answer: Answer, tasks: bool
) -> Flow:
    """Put into ``claims`` what was found and can be believed."""
    data = {
        key: (found, left)
        for key, (found, left) in zip(calls, answer.found, strict=True)
        if found is not None and classify(found) is Finding.VALUE
    }
    carried = {key: tags_in(found) for key, (found, _) in data.items()}
    names = tuple(dict.fromkeys(second.tag_name(tag) for tags in carried.values() for tag in tags))
    versions = {second.epoch_name: answer.beside[0]}
    if names:
        with second.local.lock:
            for key, tags in carried.items():
                if (watch := claims[key].watch) is not None:
                    second.marks.extend_locked(watch, map(second.tag_name, tags))
        more = yield from second.attempt([Read((), names)], tasks=tasks)
        if more is None:
            return
        versions |= zip(names, more[0].beside, strict=True)
    for key, (found, left) in data.items():
        contents = contents_of(second, calls[key], found, versions=versions)
        if isinstance(contents, Contents):
            value = decoded(calls[key], contents)
            claims[key].tags = frozenset(contents.tags)
            claims[key].found = MISSING if value is MISSING else (value, rest_of(calls[key], left))
        else:
            second.tally.count_rejected(contents.value, skew=contents.skew)


def put_remote(engine: Engine, call: Call, flight: Flight, *, value: Any, ttl: float) -> Flow:
    """Write ``value`` over whatever is under the key, a write intent excepted; return whether it is there."""
    second = engine.second
    if second is None:
        return True
    tasks, wire = flight.loop is not None, second.wire(call.key())
    names = second.names(flight.tags)
    # A version that is out of date makes the value a miss, never wrong: the namespace's need not be asked for.
    versions = {second.epoch_name: second.epoch} if second.epoch and len(names) == 1 else None
    if versions is None and second.ready:
        order = Lease((), names, token_bytes(16), LEASE_SECONDS, token_bytes(8))
        answers = yield from second.attempt([order], tasks=tasks)
        versions = dict(zip(names, answers[0].beside, strict=True)) if answers is not None else None
    data = sealed(engine, call, flight, claim=Claim(versions=versions), value=value, ttl=ttl)
    if data is None or not second.ready or not flight.attached:
        yield from second.drop((wire,), tasks=tasks)
        return False
    return (yield from stored_there(second, wire, Put(wire, data, ttl), tasks=tasks))
