"""Event-loop lag: how much later than asked for a loop calls back.

Four times a second a loop that was watched calls back; how late it does is what every request on that loop waited at
that moment. The cost is one timer: about two microseconds each time.
"""

import asyncio
import weakref
from time import perf_counter_ns
from typing import Final

from isp_perf.metrics._instruments import Histogram

__all__ = ["LoopWatch"]

_INTERVAL: Final = 0.25  # seconds
_NANOSECONDS: Final = 1_000_000_000


class LoopWatch:
    """Measures the lag of the loops it is told to watch, each from then on until it is closed."""

    def __init__(self) -> None:
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def watch(self, histogram: Histogram) -> None:
        """Measure the loop that runs now into ``histogram``, if it is one of asyncio and is not measured yet."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio, or no loop at all
            return
        if loop in self._loops:
            return
        self._loops.add(loop)
        _Sampler(loop, histogram).start()


class _Sampler:
    """The timer of one loop."""

    __slots__ = ("_due", "_histogram", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, histogram: Histogram) -> None:
        self._loop = loop
        self._histogram = histogram
        self._due = 0

    def start(self) -> None:
        """Ask for the next call."""
        self._due = perf_counter_ns() + int(_INTERVAL * _NANOSECONDS)
        self._loop.call_later(_INTERVAL, self._called)

    def _called(self) -> None:
        self._histogram.observe_units(perf_counter_ns() - self._due)
        self.start()
