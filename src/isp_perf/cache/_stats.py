"""Statistics: own integers, read from outside; ``_figures`` has what a reader gets."""

from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

from isp_perf._core.histogram import CELLS, cell_of, lower_edge

__all__ = ["Counters", "count_hits"]

_NANOSECONDS: Final = 1e9
_hits: Final = attrgetter("hits")


class Counters:
    """What a manager or a function has counted; written under the manager's lock.

    Hits of living local entries are in the entries; ``retired`` holds those of entries that have gone. ``missed`` has
    the number of misses by reason (``_core.departures``); those of absent entries are the rest of ``misses``.
    ``load_cells`` has the loads by their time in nanoseconds (``_core.histogram``); a manager has one, a function none.
    """

    __slots__ = (
        "__weakref__",
        "errors",
        "evicted",
        "expired",
        "invalidated",
        "joined",
        "load_cells",
        "load_seconds",
        "loads",
        "missed",
        "misses",
        "remote_hits",
        "replaced",
        "retired",
        "stale_hits",
    )

    errors: int
    evicted: int
    expired: int
    invalidated: int
    joined: int
    load_cells: list[int] | None
    load_seconds: float
    loads: int
    missed: dict[str, int]
    misses: int
    remote_hits: int
    replaced: int
    retired: int
    stale_hits: int

    def __init__(self, *, timed: bool = False) -> None:
        self.load_cells = [0] * CELLS if timed else None
        self.stale_hits = 0
        self.retired = self.remote_hits = self.misses = self.joined = self.loads = self.errors = 0
        self.evicted = self.expired = self.invalidated = self.replaced = 0
        self.load_seconds = 0.0
        self.missed = {}

    def count_load(self, seconds: float) -> None:
        """Count a load that ended, by the seconds it took."""
        self.loads += 1
        self.load_seconds += seconds
        if self.load_cells is not None:
            self.load_cells[cell_of(int(seconds * _NANOSECONDS))] += 1

    def count_loads(self, spent: list[float]) -> None:
        """Count loads that ended, by the seconds each took; one walk over sorted times costs less than one for each."""
        number = len(spent)
        seconds = sum(spent)
        self.loads += number
        self.load_seconds += seconds
        if self.load_cells is None:
            return
        ordered = sorted(spent)
        start = 0
        while start < number:
            cell = cell_of(int(ordered[start] * _NANOSECONDS))
            end = max(bisect_left(ordered, lower_edge(cell + 1) / _NANOSECONDS, start), start + 1)
            alike = end - start
            self.load_cells[cell] += alike
            start = end

    def copy(self) -> "Counters":
        """Return what was counted until now."""
        twin = Counters()
        for name in self.__slots__[1:]:
            setattr(twin, name, getattr(self, name))
        twin.missed = dict(self.missed)
        return twin


def count_hits(entries: Iterable[Any]) -> int:
    """Return the hits of ``entries``; those of one that leaves meanwhile stay with it, so no lock is needed."""
    return sum(map(_hits, entries))
