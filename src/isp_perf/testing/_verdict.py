"""Judges a history: what was read against what had been written, committed and acknowledged.

For each key the writes stand in the order of their commits. A read is then nothing but a place in that order and two
moments, and every promise is a comparison of places. Kyle Kingsbury's Jepsen and the session guarantees of Terry et
al. (1994) are where the questions come from.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain
from math import inf
from typing import Any, Final, NamedTuple

from isp_perf._core.ranges import seconds as seconds_of
from isp_perf.testing._history import History, ReadRecord, WriteRecord

__all__ = ["Verdict", "Violation", "check"]

_SHOWN: Final = 10
_KEPT: Final = 1_000
_UNKNOWN: Final = -1


class Violation(NamedTuple):
    """One read that broke a promise.

    Attributes:
        promise: ``stale``, ``backwards``, ``own write``, ``invented``, ``wrong key``, ``raised`` or ``diverged``.
        read: the read.
        seconds: for ``stale`` the time from the acknowledgement of the first newer value to the read; otherwise 0.
    """

    promise: str
    read: ReadRecord
    seconds: float


@dataclass(slots=True)
class Verdict:
    """What ``check`` found.

    Attributes:
        reads: how many reads were judged.
        writes: how many writes there were.
        counts: violations by promise; those not broken are not in it.
        worst_stale: the longest time, in seconds, from an acknowledgement to the start of a read that returned
            something older, within the bound or not.
        stale_reads: reads that returned something older than what was acknowledged, within the bound or not.
        violations: the first 1,000 of them.
    """

    reads: int = 0
    writes: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    worst_stale: float = 0.0
    stale_reads: int = 0
    violations: list[Violation] = field(default_factory=list[Violation])

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.counts

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.reads + other.reads,
            self.writes + other.writes,
            self.counts + other.counts,
            max(self.worst_stale, other.worst_stale),
            self.stale_reads + other.stale_reads,
            (self.violations + other.violations)[:_KEPT],
        )

    def __str__(self) -> str:
        found = ", ".join(f"{count} {promise}" for promise, count in sorted(self.counts.items())) or "no promise broken"
        older = f"{self.stale_reads} older than acknowledged, by {self.worst_stale * 1000:.1f} ms at most"
        lines = [f"{self.reads} reads, {self.writes} writes: {found}; {older}"]
        for promise, read, seconds in self.violations[:_SHOWN]:
            by = f" by {seconds * 1000:.1f} ms" if seconds else ""
            lines.append(f"  {promise}{by}: {read}")
        return "\n".join(lines)


def check(
    history: History,
    *,
    max_stale: float = 0.1,
    read_your_writes: bool = True,
    monotonic_reads: bool = True,
    converged_after: float | None = None,
) -> Verdict:
    """Return what was promised and not held in ``history``.

    - ``stale``: a read that began more than ``max_stale`` after the acknowledgement of a write returned an older value.
    - ``backwards``: a session read a value older than one it had read before.
    - ``own write``: a session whose write had ended read something older.
    - ``invented``: a value that nobody wrote, or that was written only after the read had ended.
    - ``wrong key``: a value that was written to another key only.
    - ``raised``: a read that raised.
    - ``diverged``: a read that began after ``converged_after`` returned another value than the last one written.

    A value whose write has an unknown outcome and no version may be read at any time; it is in no order with others.

    Args:
        history: what happened.
        max_stale: the bound in seconds, >= 0; 0.1 is the cache's default.
        read_your_writes: look for ``own write``; off where sessions move between processes.
        monotonic_reads: look for ``backwards``; off where sessions move between processes.
        converged_after: a moment of the history's clock, after the last write; default ``None``: not looked at.

    Raises:
        ConfigurationError: a bound below 0.
    """
    seconds_of("max_stale", max_stale, zero=True)
    verdict = Verdict(len(history.reads), len(history.writes))
    orders = _orders(history)
    placed: dict[str, list[_Placed]] = defaultdict(list)
    _count(verdict, _place(history, orders, placed))
    for key, reads in placed.items():
        _count(verdict, _stale(verdict, orders[key], reads), beyond=max_stale)
        if monotonic_reads:
            _count(verdict, _backwards(reads))
        if read_your_writes:
            _count(verdict, _own_writes(orders[key], reads))
        if converged_after is not None:
            _count(verdict, _diverged(orders[key], reads, converged_after))
    return verdict


def _count(verdict: Verdict, violations: Iterable[Violation], *, beyond: float = -1.0) -> None:
    for violation in violations:
        if violation.seconds > beyond:
            verdict.counts[violation.promise] += 1
            if len(verdict.violations) < _KEPT:
                verdict.violations.append(violation)


class _Placed(NamedTuple):
    """A read and the place of its value among those of its key."""

    place: int
    read: ReadRecord


class _Order:
    """The values of one key, oldest first.

    Attributes:
        places: value -> place, 0 for the initial one; -1: in no order.
        began: value -> when its write began.
        newer: place -> when a value of a later place was first known to be delivered.
        own: session -> its writes in the order they ended, as (end, highest place so far).
        last: the place of the newest value, ``None`` if a write of unknown outcome may be the newest.
    """

    def __init__(self, initial: list[Any], writes: Iterable[WriteRecord]) -> None:
        known, unknown = _by_outcome(writes)
        self.places: dict[Any, int] = {_frozen(value): 0 for value in initial}
        self.places.update({_frozen(write.value): place for place, write in enumerate(known, 1)})
        self.places.update({_frozen(write.value): _UNKNOWN for write in unknown})
        self.began = {_frozen(write.value): write.start for write in (*known, *unknown)}
        self.newer = _first_newer(known)
        self.last = None if unknown else len(known)
        self.own = _own_ends(known)


def _by_outcome(writes: Iterable[WriteRecord]) -> tuple[list[WriteRecord], list[WriteRecord]]:
    """Return the writes whose place is known, oldest first, and the others."""
    known: list[WriteRecord] = []
    unknown: list[WriteRecord] = []
    for write in writes:
        (unknown if write.version is None and write.commit is None else known).append(write)
    return sorted(known, key=_rank), unknown


def _first_newer(known: list[WriteRecord]) -> list[float]:
    delivered = [inf if write.acknowledged is None else write.acknowledged for write in known]
    return [*accumulate(reversed(delivered), min, initial=inf)][::-1]


def _own_ends(known: list[WriteRecord]) -> dict[str, list[tuple[float, int]]]:
    own: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for end, place, session in sorted((write.end, place, write.session) for place, write in enumerate(known, 1)):
        ended = own[session]
        ended.append((end, max(place, ended[-1][1] if ended else 0)))
    return own


def _rank(write: WriteRecord) -> tuple[float, float]:
    commit = inf if write.commit is None else write.commit
    return (commit if write.version is None else write.version, commit)


def _frozen(value: Any) -> Any:
    """Return something hashable that is equal for equal values."""
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _orders(history: History) -> dict[str, _Order]:
    by_key: dict[str, list[WriteRecord]] = defaultdict(list)
    for write in history.writes:
        by_key[write.key].append(write)
    keys = {*by_key, *history.initial, *(read.key for read in history.reads)}
    first = {key: [history.initial[key]] if key in history.initial else [] for key in keys}
    return {key: _Order(first[key], by_key[key]) for key in keys}


def _place(history: History, orders: dict[str, _Order], placed: dict[str, list[_Placed]]) -> Iterator[Violation]:
    """Find the place of each read in the order of its key; yield those that have none."""
    written = set(chain.from_iterable(order.places for order in orders.values()))
    for read in history.reads:
        if read.error:
            yield Violation("raised", read, 0.0)
            continue
        order, value = orders[read.key], _frozen(read.value)
        place = order.places.get(value)
        if place is None:
            yield Violation("wrong key" if value in written else "invented", read, 0.0)
        elif read.end < order.began.get(value, -inf):
            yield Violation("invented", read, 0.0)
        elif place != _UNKNOWN:
            placed[read.key].append(_Placed(place, read))


def _stale(verdict: Verdict, order: _Order, reads: list[_Placed]) -> Iterator[Violation]:
    for place, read in reads:
        seconds = read.start - order.newer[place]
        if seconds > 0:
            verdict.stale_reads += 1
            verdict.worst_stale = max(verdict.worst_stale, seconds)
            yield Violation("stale", read, seconds)


def _backwards(reads: list[_Placed]) -> Iterator[Violation]:
    sessions: dict[str, list[_Placed]] = defaultdict(list)
    for one in reads:
        sessions[one.read.session].append(one)
    for own in sessions.values():
        yield from _backwards_in_session(own)


def _backwards_in_session(own: list[_Placed]) -> Iterator[Violation]:
    ended = sorted((one.read.end, one.place) for one in own)
    ends = [end for end, _ in ended]
    highest = list(accumulate((place for _, place in ended), max))
    for place, read in own:
        before = bisect_right(ends, read.start)
        if before and place < highest[before - 1]:
            yield Violation("backwards", read, 0.0)


def _own_writes(order: _Order, reads: list[_Placed]) -> Iterator[Violation]:
    for place, read in reads:
        ended = order.own.get(read.session)
        if ended is None:
            continue
        before = bisect_left(ended, (read.start, _UNKNOWN))
        if before and place < ended[before - 1][1]:
            yield Violation("own write", read, 0.0)


def _diverged(order: _Order, reads: list[_Placed], after: float) -> Iterator[Violation]:
    if order.last is None:
        return
    for place, read in reads:
        if read.start >= after and place != order.last:
            yield Violation("diverged", read, 0.0)
