"""Several calls of one function together: one read of the remote level for all, then the loads side by side."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isp_perf._runtime.drive import Failure, adrive, drive
from isp_perf.cache._ages import MISSING, handed_out, is_fresh
from isp_perf.cache._beyond import kept_locked, looked_up
from isp_perf.cache._claim import Claim
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._flow import insert_locked, local_ttl
from isp_perf.cache._scope import fetch, mode_of

if TYPE_CHECKING:
    from isp_perf.cache._batcher import Batcher

__all__ = ["Together", "read_remote"]

_EVERY_ERROR: Final = Exception  # what one call raises is raised when all have ended


class Together:
    """Answers calls of one function.

    Args:
        engine: the levels.
        batcher: the loader of many, if the function has one.
    """

    def __init__(self, engine: Engine, batcher: "Batcher | None") -> None:
        self._engine = engine
        self._batcher = batcher

    def answer(self, calls: Sequence[Call], *, tasks: bool) -> Flow:
        """Return the values of ``calls`` in order, or the ``Failure`` of the first that failed, when all have ended."""
        places: dict[tuple[int, Any], list[int]] = {}
        for place, call in enumerate(calls):
            places.setdefault((id(call.store), call.slot), []).append(place)
        same = list(places.values())
        outcomes = yield from self._answer([calls[each[0]] for each in same], list(map(len, same)), tasks=tasks)
        values: list[Any] = [None] * len(calls)
        for each, outcome in zip(same, outcomes, strict=True):
            if outcome.__class__ is Failure:
                return outcome
            for place in each:
                values[place] = handed_out(calls[place].source.policy, outcome)
        return values

    def _answer(self, calls: list[Call], counts: list[int], *, tasks: bool) -> Flow:
        outcomes: list[Any] = [MISSING] * len(calls)
        absent: list[int] = []
        if mode_of(self._engine) is None:
            absent = self._take_local(calls, counts, outcomes)
            asked = [calls[place] for place in absent]
            found = yield from read_remote(self._engine, asked, tasks=tasks)
            for place, outcome in zip(absent, found, strict=True):
                outcomes[place] = outcome
                if outcome is not MISSING:
                    self._engine.count_remote(calls[place], outcome, counts[place])
        yield from self._load_rest(calls, counts, outcomes, absent={id(calls[place]) for place in absent}, tasks=tasks)
        return outcomes

    def _load_rest(
        self, calls: list[Call], counts: list[int], outcomes: list[Any], *, absent: set[int], tasks: bool
    ) -> Flow:
        """Fill in what is missing from the loader."""
        rest = [place for place, outcome in enumerate(outcomes) if outcome is MISSING]
        if rest:
            load = self._load_tasks if tasks else self._load_here
            loaded = yield partial(load, [calls[place] for place in rest], absent)
            for place, outcome in zip(rest, loaded, strict=True):
                outcomes[place] = outcome
                self._count_joined(calls[place], counts[place] - 1)

    def _take_local(self, calls: list[Call], counts: list[int], outcomes: list[Any]) -> list[int]:
        """Fill in what the local level has; return the places of what it knows nothing of, and nobody is loading."""
        local = self._engine.local
        absent: list[int] = []
        with local.lock:
            for place, call in enumerate(calls):
                entry = local.find_locked(call.store, call.slot)
                if entry is not None and is_fresh(local, entry):
                    entry.hits += counts[place]
                    outcomes[place] = entry.value
                elif entry is None and call.slot not in call.store.flights and not call.source.local_only:
                    absent.append(place)
        return absent if self._engine.second is not None else []

    def _count_joined(self, call: Call, times: int) -> None:
        if times:
            with self._engine.local.lock:
                for counters in (self._engine.local.counters, call.source.counters):
                    counters.misses += times
                    counters.joined += times

    def _fetch(self, call: Call, absent: set[int], *, tasks: bool) -> Flow:
        """Answer one call; the remote level is not asked again for what it does not have."""
        unknown = id(call) in absent and call.store.find(call.slot) is None
        return fetch(self._engine, call, tasks=tasks, reload=unknown)

    async def _load_tasks(self, calls: list[Call], absent: set[int]) -> list[Any]:
        async def one(call: Call) -> Any:
            try:
                return await adrive(self._fetch(call, absent, tasks=True))
            except _EVERY_ERROR as error:
                return Failure(error)

        return [await one(calls[0])] if len(calls) == 1 else await asyncio.gather(*map(one, calls))

    def _load_here(self, calls: list[Call], absent: set[int]) -> list[Any]:
        batcher = self._batcher
        if batcher is not None and len(calls) > 1:
            from isp_perf.cache._lanes import side_by_side

            flows = [self._fetch(call, absent, tasks=False) for call in calls]
            return side_by_side(flows, batcher.is_single, batcher.load_lanes)
        outcomes: list[Any] = []
        for call in calls:
            try:
                outcomes.append(drive(self._fetch(call, absent, tasks=False)))
            except _EVERY_ERROR as error:
                outcomes.append(Failure(error))
        return outcomes


def read_remote(engine: Engine, calls: Sequence[Call], *, tasks: bool) -> Flow:
    """Return what the remote level has of each of ``calls``, or ``MISSING``, after one round trip; keep it locally."""
    by_key = {call.key(): call for call in calls}
    claims = yield from looked_up(engine, by_key, tasks=tasks)
    with engine.local.lock:
        for key, claim in claims.items():
            _keep_locked(engine, by_key[key], claim)
    return [claims[key].found[0] if key in claims else MISSING for key in (call.key() for call in calls)]


def _keep_locked(engine: Engine, call: Call, claim: Claim) -> None:
    """Keep what was read, unless it has changed since, or a load of it has begun."""
    value, rest = claim.found
    ttl = local_ttl(call.source.policy, rest)
    if kept_locked(engine, call, claim) and ttl > 0 and call.slot not in call.store.flights:
        insert_locked(engine.local, call, value=value, ttl=ttl, load_seconds=0.0, tags=claim.tags)
