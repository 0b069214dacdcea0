"""How long local hits take: measured now and then, at no cost to the others.

Two readings of a clock cost more than a hit, so hits are not timed, unless somebody asks. Then a wrapper's code is
exchanged for one that reads the clock before the lookup and after it, and the first hit so timed changes it back. What
is measured is the wrapper's own work (key, lookup, count, and the copy where the policy wants one) and one reading of
the clock, not the call itself. A call that misses is not measured; the next one is.
"""

from isp_perf._core.histogram import CELLS, cell_of

__all__ = ["HitTimes"]


class HitTimes:
    """What a manager has measured of its hits.

    Attributes:
        cells: the hits that were timed, by their time in nanoseconds (``_core.histogram``).
        nanoseconds: how long they took together.
    """

    __slots__ = ("_turn", "cells", "nanoseconds")

    cells: list[int]
    nanoseconds: int

    def __init__(self) -> None:
        self.cells = [0] * CELLS
        self.nanoseconds = 0
        self._turn = 0

    def count_locked(self, spent: int) -> None:
        """Count a hit."""
        cell = cell_of(spent)
        self.cells[cell] += 1
        self.nanoseconds += spent

    def turn_locked(self, among: int, number: int) -> list[int]:
        """Return the places of the next ``number`` of so many functions: each has its turn."""
        first = self._turn
        self._turn += min(number, among)
        return [place % among for place in range(first, self._turn)]
