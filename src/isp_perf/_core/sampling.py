"""Which of many things to look at when only some can be: evenly spaced over their weights, without a draw.

Systematic sampling: W. G. Madow and L. H. Madow, "On the theory of systematic sampling", Ann. Math. Statist. 15 (1944).
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

__all__ = ["evenly"]


def evenly(weights: Sequence[int], number: int, phase: float) -> Mapping[int, int]:
    """Return which indices of ``weights`` are chosen, and how often each; heavy ones in proportion to their weight.

    Args:
        weights: >= 0 each; where all are 0 nothing is chosen.
        number: how many choices, >= 0.
        phase: 0 <= x < 1; another one chooses others.
    """
    edges = list(accumulate(weights))
    if not edges or not edges[-1]:
        return {}
    step = edges[-1] / number if number else 0.0
    return Counter(bisect_right(edges, min(int((place + phase) * step), edges[-1] - 1)) for place in range(number))
