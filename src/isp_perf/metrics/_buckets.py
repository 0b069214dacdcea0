"""The buckets that cells are shown in: classic ones with true edges, native ones with a bound on error."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil, inf, log2
from typing import Final, NamedTuple

from isp_perf._core.histogram import CELLS, cumulative, lower_edge, octave_edges, upper_edge
from isp_perf.metrics._snapshot import Exemplar, Spec

__all__ = ["NATIVE_SCHEMA", "Bucket", "edges", "native_places", "shown"]

NATIVE_SCHEMA: Final = 5
"""Native buckets of this schema are 2.2 % wide (32 an octave): far narrower than a cell, so no two cells share one."""

# Exponents of the first and last octave edge shown of the log-linear layout.
_SECONDS_OCTAVES: Final = (10, 36)  # 1 us to 69 s
_WHOLE_OCTAVES: Final = (0, 30)  # 0 to 1 GiB


@lru_cache(maxsize=256)
def edges(spec: Spec) -> tuple[tuple[int, float], ...]:
    """Return the buckets a histogram shows: how many cells each takes in, and its inclusive bound in base units."""
    if spec.bounds is not None:
        return tuple((index + 1, bound / spec.scale) for index, bound in enumerate(spec.bounds))
    shown = octave_edges(*(_WHOLE_OCTAVES if spec.whole else _SECONDS_OCTAVES))
    return tuple((below, edge / spec.scale) for below, edge in shown)


class Bucket(NamedTuple):
    """One classic bucket: its inclusive bound in base units, what lies at or below it, its newest exemplar."""

    bound: float
    total: int
    example: Exemplar | None


def shown(spec: Spec, cells: Sequence[int], exemplars: Mapping[int, Exemplar]) -> list[Bucket]:
    """Return the classic buckets of a histogram, the endless one last."""
    ends = [*(below for below, _ in edges(spec)), len(cells)]
    bounds = [*(bound for _, bound in edges(spec)), inf]
    newest: list[Exemplar | None] = [None] * len(ends)
    for cell, exemplar in sorted(exemplars.items(), key=_moment):
        newest[bisect_right(ends, cell)] = exemplar
    return list(map(Bucket, bounds, cumulative(cells, ends), newest))


def _moment(item: tuple[int, Exemplar]) -> float:
    return item[1][2]


@lru_cache(maxsize=2)
def native_places(scale: int) -> tuple[int, ...]:
    """Return, for each log-linear cell but the first (which holds zeros), the native bucket that its count goes to.

    A native histogram's edges are powers of two of a second, the cells' are those of a nanosecond, so a cell may lie
    across an edge. Its count goes whole to the bucket of its middle: nothing is interpolated, and adding up, over
    workers or time, stays exact. A quantile is then off by at most 6.25 % (the cell) and 2.2 % (the bucket).

    Args:
        scale: whole units per base unit: 1e9 where nanoseconds are shown as seconds.
    """
    middles = ((lower_edge(cell) + upper_edge(cell)) / 2 / scale for cell in range(1, CELLS))
    return tuple(ceil(log2(middle) * (1 << NATIVE_SCHEMA)) for middle in middles)
