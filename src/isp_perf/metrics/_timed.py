"""``timed``: measures how long a function or a block takes, exceptions included."""

from collections.abc import Callable
from textwrap import indent
from time import perf_counter_ns
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from isp_perf._core.histogram import LARGEST
from isp_perf._runtime.calls import CALLS, NAMES, kind_of
from isp_perf._runtime.specialize import specialize
from isp_perf.metrics._instruments import Histogram

__all__ = ["Timer", "timed"]

P = ParamSpec("P")
R = TypeVar("R")

# The arithmetic of ``Histogram.observe_units`` in place, since a call costs as much as all of it; values outside the
# usual range, and histograms with bounds of their own, take the call.
_RECORD = """\
finally:
    $spent = $clock() - $start
    if $least < $spent < $most:
        $shift = $spent.bit_length() - 4
        $cells[($shift << 3) + ($spent >> $shift)] += 1
        $histogram.total += $spent
    else:
        $record($spent)
"""


class Timer:
    """Measure a block or a function into a histogram of seconds.

    As a context manager each ``timed(...)`` times one block; the same object may be entered again, also inside itself,
    but not by two tasks or threads at once: write ``with timed(histogram):`` in place, then each has its own. As a
    decorator it keeps the signature and works on ``def``, ``async def``, generators and async generators; a generator
    is timed from its first item until it is exhausted or closed.

    Args:
        histogram: where the duration goes, for example ``HISTOGRAM.labels(route="x")``.
    """

    __slots__ = ("_histogram", "_outer", "_start")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._start = 0
        self._outer: list[int] | None = None

    def __enter__(self) -> Self:
        """Start the clock."""
        if self._start:
            self._outer = [*(self._outer or ()), self._start]
        self._start = perf_counter_ns()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop the clock and record the duration, whether or not the block raised."""
        self._histogram.observe_units(perf_counter_ns() - self._start)
        self._start = self._outer.pop() if self._outer else 0

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return ``function``, timed at each call."""
        histogram = self._histogram
        names: dict[str, Any] = {
            "function": function,
            "clock": perf_counter_ns,
            "record": histogram.observe_units,
            "histogram": histogram,
            "cells": histogram.cells,
            "least": 15 if histogram.log_linear else LARGEST,
            "most": LARGEST,
        }
        kind = kind_of(function)
        call = indent(CALLS[kind], "    ")
        result = "" if kind == "async generator" else "return $result\n"
        body = f"$start = $clock()\ntry:\n{call}\n{_RECORD}{result}"
        return cast("Callable[P, R]", specialize(function, body, names | NAMES))


timed = Timer
