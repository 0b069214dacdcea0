"""What an auditor does between two sleeps: sample hits, call their loaders, and judge what was served.

One turn makes one loader call at most, so that the pauses between turns bound what is asked of a database. Values that
differ from the loader's are looked at twice: what was written a moment ago is not stale yet, its removal may be on the
way. Nothing here runs on a hit: hits are counted by their entries, and a sample is drawn from those counts.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple

from isp_perf._core.eviction import Entry
from isp_perf._core.histogram import CELLS, cell_of
from isp_perf._core.sampling import evenly
from isp_perf._runtime.flights import LEADING, Flight
from isp_perf.cache._ages import MISSING, CachedError
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._insight import BY_KEY
from isp_perf.cache._keyed import Keys
from isp_perf.cache._site import Site
from isp_perf.cache._stats import count_hits
from isp_perf.errors import CodecError

__all__ = ["FAILED", "OPAQUE", "OVERTAKEN", "STALE", "TRUE", "UNSTEADY", "Audit", "Comparison", "Sighting"]

TRUE: Final = "true"
STALE: Final = "stale"
OVERTAKEN: Final = "overtaken"
UNSTEADY: Final = "unsteady"
FAILED: Final = "failed"
OPAQUE: Final = "opaque"

Comparison = Callable[[Any, Any], bool]

_ROUND_SECONDS: Final = 5.0
_GOLDEN: Final = 0.6180339887498949  # its multiples spread best over 0-1
_MOST_REMEMBERED: Final = 1000
_MOST_SIGHTINGS: Final = 20
_NANOSECONDS: Final = 1e9
_NOT_WRONG: Final = {TRUE, OVERTAKEN, UNSTEADY}
_EVERY_ERROR: Final = Exception  # loaders and comparisons are users' code: what they raise is a result
_hits: Final = attrgetter("hits")
_log: Final = logging.getLogger("isp_perf.cache")


class _Pick(NamedTuple):
    """A hit that was sampled.

    Attributes:
        call: what was asked.
        value: what was served.
        times: how many samples it stands for.
    """

    call: Call
    value: Any
    times: int


class _Doubt(NamedTuple):
    """A served value that the loader does not return: stale, unless the news of it was on the way."""

    pick: _Pick
    truth: Any
    seen_at: float
    due: float


class Sighting(NamedTuple):
    """A stale read that was found.

    Attributes:
        template: the function's key template.
        seconds: how old the untruth was, at least.
        key: the logical key.
    """

    template: str
    seconds: float
    key: str


class Audit:
    """The state of one auditor.

    Args:
        engine: the manager's levels.
        keys: its operations by key.
        share: how many of the hits are sampled, 0-1.
        pause: seconds from one turn to the next; a round of 5 s has no more samples than it has turns.
        recheck_after: seconds, besides the function's ``max_stale``, after which a removal is no longer on its way.
        patience: seconds a loader may take; not for threads, which nobody can interrupt.
        same: compares what was served with what the loader returned; ``None``: by ``==``, or as they are encoded.

    Attributes:
        ages: number of stale reads by cell of ``_core.histogram``, of their age in nanoseconds.
        age_seconds: the sum of these ages.
        loads: loader calls made.
        results: sampled hits by result.
        sightings: the stale reads found last.
        stale: sampled hits found stale, by key template.
    """

    age_seconds: float
    ages: list[int]
    loads: int

    def __init__(
        self,
        engine: Engine,
        keys: Keys,
        *,
        share: float,
        pause: float,
        recheck_after: float,
        patience: float,
        same: Comparison | None,
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._share = share
        self._most = max(1, int(_ROUND_SECONDS / pause))
        self._recheck_after = recheck_after
        self._patience = patience
        self._same = same
        self._picks: deque[_Pick] = deque(maxlen=self._most)
        self._doubts: deque[_Doubt] = deque()
        self._wrong: dict[str, tuple[Any, float]] = {}
        self._next_round = self._owed = self._owed_there = self._phase = 0.0
        self._hits_before = 0
        self.results: Counter[str] = Counter()
        self.stale: Counter[str] = Counter()
        self.sightings: deque[Sighting] = deque(maxlen=_MOST_SIGHTINGS)
        self.ages = [0] * CELLS
        self.age_seconds = 0.0
        self.loads = 0

    def begin(self) -> None:
        """Sample what is served from now on."""
        self._hits_before = self._hits_of(self._entries())
        self._next_round = self._engine.local.clock() + _ROUND_SECONDS
        self._engine.sampler = self.served_there

    def end(self) -> None:
        """Sample no longer; what was not yet looked at is forgotten."""
        self._engine.sampler = None
        self._picks.clear()
        self._doubts.clear()
        self._wrong.clear()

    def served_there(self, call: Call, value: Any, times: int) -> None:
        """Take note that the remote level answered; where a hit is so dear, it can be looked at at once."""
        self._owed_there += times * self._share
        if self._owed_there >= 1:
            self._picks.append(_Pick(call, value, int(self._owed_there)))
            self._owed_there %= 1

    def turn(self, *, tasks: bool) -> Flow:
        """Call one loader at most: for what differed a while ago, otherwise for the next sampled hit."""
        now = self._engine.local.clock()
        second = self._engine.second
        if second is not None and not second.ready:
            return  # the database stands alone: it gets no more to do
        if self._doubts and self._doubts[0].due <= now:
            doubt = self._doubts.popleft()
            yield from self._judged(doubt.pick, self._look_again(doubt, tasks=tasks))
            return
        if not self._picks and now >= self._next_round:
            self._next_round = now + _ROUND_SECONDS
            self._sample()
        if self._picks:
            pick = self._picks.popleft()
            yield from self._judged(pick, self._look(pick, tasks=tasks))

    # -- sampling

    def _entries(self) -> list[Entry]:
        with self._engine.local.lock:
            return self._engine.local.living_locked()

    def _hits_of(self, entries: list[Entry]) -> int:
        return self._engine.local.counters.retired + count_hits(entries)

    def _sample(self) -> None:
        """Choose entries for the hits since the last round, each in proportion to what it was hit in its life."""
        entries = self._entries()
        hits = self._hits_of(entries)
        self._owed += max(0, hits - self._hits_before) * self._share
        self._hits_before = hits
        number = min(int(self._owed), self._most)
        self._owed %= 1
        self._phase = (self._phase + _GOLDEN) % 1
        for index, times in evenly(list(map(_hits, entries)), number, self._phase).items():
            entry = entries[index]
            call = _call_of(entry)
            if call is None:
                self.results[OPAQUE] += times
            else:
                self._picks.append(_Pick(call, entry.value, times))

    # -- judging

    def _judged(self, pick: _Pick, look: Flow) -> Flow:
        """Count the result of a look at ``pick``, if there is one yet; an error is one too."""
        try:
            result = yield from look
        except _EVERY_ERROR:
            result = FAILED
        if result is not None:
            self.results[result] += pick.times
        if result in _NOT_WRONG:
            self._wrong.pop(pick.call.key(), None)

    def _look(self, pick: _Pick, *, tasks: bool) -> Flow:
        """Compare what was served with what the loader returns; ``None``: it has to be looked at again."""
        if not tasks and _needs_loop(pick.call):
            return OPAQUE
        truth = yield from self._load(pick.call, tasks=tasks)
        if self._alike(pick, pick.value, truth):
            return TRUE
        now = self._engine.local.clock()
        due = now + self._recheck_after + pick.call.source.policy.bound
        self._doubts.append(_Doubt(pick, truth, now, due))
        return None

    def _look_again(self, doubt: _Doubt, *, tasks: bool) -> Flow:
        """Tell a stale value from one that was overtaken by a write, and from a truth that never stands still."""
        pick = doubt.pick
        served = yield from self._keys.peek(pick.call, MISSING, tasks=tasks)
        if served is MISSING or not self._alike(pick, served, pick.value):
            return OVERTAKEN
        seen_at = self._engine.local.clock()
        truth = yield from self._load(pick.call, tasks=tasks)
        if not self._alike(pick, doubt.truth, truth):
            return UNSTEADY
        self._found(doubt, seen_at)
        return STALE

    def _alike(self, pick: _Pick, one: Any, other: Any) -> bool:
        return _equal(pick.call, one, other) if self._same is None else self._same(one, other)

    def _found(self, doubt: _Doubt, seen_at: float) -> None:
        """Count a stale read; its age runs from when this very value was first seen to be untrue."""
        pick, key = doubt.pick, doubt.pick.call.key()
        template = str(getattr(pick.call.source, "template", BY_KEY))
        value, since = self._wrong.pop(key, (pick.value, doubt.seen_at))
        if not self._alike(pick, value, pick.value):
            since = doubt.seen_at
        self._wrong[key] = (pick.value, since)
        if len(self._wrong) > _MOST_REMEMBERED:
            del self._wrong[next(iter(self._wrong))]
        seconds = seen_at - since
        if not self.stale[template]:
            _log.warning("cached values of %s are not what it returns, for %.1f s or more", template, seconds)
        self.stale[template] += pick.times
        self.ages[cell_of(int(seconds * _NANOSECONDS))] += pick.times
        self.age_seconds += seconds * pick.times
        self.sightings.append(Sighting(template, seconds, key))

    # -- loading

    def _load(self, call: Call, *, tasks: bool) -> Flow:
        """Return what the loader returns; nothing is stored, counted as a miss or shared."""
        flight = Flight.make()
        flight.attached = False
        flight.lead_by(None, tasks=tasks)
        context = call.source.context.copy()
        context.run(LEADING.set, flight)
        self.loads += 1
        step = call.source.step(call.values)
        if tasks:
            return (yield partial(_in_loop, step, context, needs_loop=_needs_loop(call), patience=self._patience))
        return (yield partial(context.run, step))


def _call_of(entry: Entry) -> Call | None:
    """Return the call whose result ``entry`` holds; ``None`` if its key does not tell all arguments."""
    home = entry.home
    site: object = None if home is None else home.owner
    if not isinstance(site, Site) or entry.value.__class__ is CachedError:
        return None
    arguments = site.plan.arguments(entry.slot)
    try:
        return None if arguments is None else site.call(site.bound((), arguments))
    except TypeError:  # an argument that is not in the key has no default
        return None


def _needs_loop(call: Call) -> bool:
    source: Any = call.source
    return bool(source.asynchronous if isinstance(source, Site) else source.tasks)


def _equal(call: Call, one: Any, other: Any) -> bool:
    """Compare by ``==``; objects that do not know it may still be stored as the same."""
    if one is other or one == other:
        return True
    codec = call.source.codec
    try:
        return codec.encode(one) == codec.encode(other)
    except CodecError:
        return False


async def _in_loop(step: Callable[[], Any], context: Context, *, needs_loop: bool, patience: float) -> Any:
    """Run a loader in ``context``, a plain one in a thread; leave it behind when it takes too long."""
    loop = asyncio.get_running_loop()
    work: asyncio.Future[Any]
    work = loop.create_task(step(), context=context) if needs_loop else loop.run_in_executor(None, context.run, step)
    try:
        await asyncio.wait({work}, timeout=patience)
        if not work.done() or work.cancelled():
            raise TimeoutError
        return work.result()
    finally:
        work.cancel()
