"""Log-linear histogram arithmetic: which cell a value falls in, where cells begin, quantiles, merging.

Values are integers (nanoseconds, bytes, counts). Each octave is cut into eight equal parts, so a cell is at most an
eighth of its lower edge wide and its middle is never more than 6.25 % away from any value inside. The cells below 16
hold one value each. Because every value is an integer, the largest value of a cell is the next cell's lower edge
minus one: that is the exact, inclusive upper bound shown as ``le``.

The layout is the "HDR" idea (G. Tene, HdrHistogram) with three sub-bucket bits; the index needs no logarithm.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil

__all__ = ["CELLS", "LARGEST", "cell_of", "cumulative", "lower_edge", "merge", "octave_edges", "quantile", "upper_edge"]

CELLS = 320
LARGEST = (1 << 42) - 1  # 73 minutes in nanoseconds, 4 TiB in bytes: what is larger is counted as this


def cell_of(value: int) -> int:
    """Return the index of the cell that holds ``value``; values outside [0, LARGEST] count as the nearer end.

    Clamping matters: a negative index would silently count from the end of the list.
    """
    if value < 0:
        return 0
    if value > LARGEST:
        return CELLS - 1
    shift = value.bit_length() - 4
    if shift <= 0:
        return value
    return (shift << 3) + (value >> shift)


def lower_edge(cell: int) -> int:
    """Return the smallest value that falls in ``cell`` (0 to CELLS; CELLS gives the first value beyond the last)."""
    shift = (cell >> 3) - 1
    if shift <= 0:
        return cell
    return ((cell & 7) + 8) << shift


def upper_edge(cell: int) -> int:
    """Return the largest value that falls in ``cell``, which is the cell's inclusive ``le``."""
    return lower_edge(cell + 1) - 1


def octave_edges(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Return, for each power of two from ``2**first`` to ``2**last``, how many cells lie below it and its ``le``.

    Octaves are what the classic exposition shows: their edges are cell edges, so no count is ever interpolated.

    Args:
        first: exponent of the first edge (0 to 42).
        last: exponent of the last edge (``first`` to 42).
    """
    return tuple((cell_of((1 << exponent) - 1) + 1, (1 << exponent) - 1) for exponent in range(first, last + 1))


def cumulative(cells: Sequence[int], below: Iterable[int]) -> list[int]:
    """Return how many observations lie in the first ``n`` cells, for each ``n`` (>= 1) of ``below``."""
    running = list(accumulate(cells))
    return [running[count - 1] for count in below]


def quantile(cells: Sequence[int], share: float) -> float | None:
    """Return the value below which ``share`` of the observations lie, or ``None`` without observations.

    Nearest-rank definition; the answer is the middle of the cell that holds that rank, at most 6.25 % off.

    Args:
        cells: counts per cell of this layout.
        share: 0 to 1; 1 gives the largest value that the highest used cell can hold.
    """
    running = list(accumulate(cells))
    if not running or not running[-1]:
        return None
    rank = max(1, ceil(share * running[-1]))
    cell = bisect_left(running, rank)
    if share >= 1:
        return float(upper_edge(cell))
    return (lower_edge(cell) + upper_edge(cell)) / 2


def merge(parts: Sequence[Sequence[int]]) -> list[int]:
    """Return the cell-wise sum of equally long histograms; integer sums make the order of merging irrelevant."""
    return list(map(sum, zip(*parts, strict=True)))
