"""The families of the process itself: memory, garbage collection, version, and what isp_perf costs."""

import gc
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter_ns

from isp_perf.metrics._registry import MetricRegistry
from isp_perf.metrics._snapshot import Readings, Spec

__all__ = ["Runtime"]

_NANOSECONDS = 1e9
_VERSION: str = sys.modules["isp_perf"].__version__  # loaded before any of its rooms, which must not import it
_RSS = Spec("isp_process_resident_memory_bytes", "gauge", "Memory of all workers that is in RAM.")
_PAUSES = Spec(
    "isp_gc_pause_seconds_total", "counter", "Time the garbage collector stopped the process.", ("generation",)
)
_COLLECTIONS = Spec("isp_gc_collections_total", "counter", "Runs of the garbage collector.", ("generation",))
_BUILD = Spec("isp_build_info", "gauge", "Always 1; the labels say what runs.", ("version", "python"), merge="max")
_OVERHEAD = Spec("isp_self_overhead_seconds_total", "counter", "Time spent on reading, publishing and writing metrics.")


class Runtime:
    """What a process can say of itself; the garbage collector is timed from the first reading on.

    Args:
        registry: whose own cost is told.
    """

    specs = (_RSS, _PAUSES, _COLLECTIONS, _BUILD, _OVERHEAD)

    def __init__(self, registry: MetricRegistry) -> None:
        self._registry = registry
        self._pauses = [0, 0, 0]
        self._collections = [0, 0, 0]
        self._began = 0
        self._listening = False

    def __call__(self, readings: Readings) -> None:
        """Add the readings."""
        if not self._listening:
            self._listening = True
            gc.callbacks.append(self._collected)
        readings.declare(self.specs)
        resident = _resident_bytes()
        if resident is not None:
            readings.add(_RSS, resident)
        for generation, (pause, runs) in enumerate(zip(self._pauses, self._collections, strict=True)):
            readings.add(_PAUSES, pause / _NANOSECONDS, str(generation))
            readings.add(_COLLECTIONS, runs, str(generation))
        readings.add(_BUILD, 1, _VERSION, platform.python_version())
        readings.add(_OVERHEAD, self._registry.overhead_ns / _NANOSECONDS)

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Time one run of the collector; called by the interpreter, so it only counts."""
        if phase == "start":
            self._began = perf_counter_ns()
            return
        generation = info["generation"]
        pause = perf_counter_ns() - self._began
        self._pauses[generation] += pause
        self._collections[generation] += 1


def _resident_bytes() -> int | None:
    """Return the resident memory of this process; ``None`` where there is no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
