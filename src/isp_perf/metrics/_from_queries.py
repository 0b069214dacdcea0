"""The families of query detection, read from every engine that is watched."""

from pathlib import PurePath
from typing import TYPE_CHECKING

from isp_perf.metrics._snapshot import Readings, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.queries._watch import Watch

__all__ = ["QUERIES"]

_NANOSECONDS = 1e9
_COUNT = Spec("isp_queries_total", "counter", "Statements the driver executed.")
_SECONDS = Spec("isp_queries_seconds_total", "counter", "Time the driver worked on them.")
_DURATION = Spec("isp_queries_duration_seconds", "histogram", "Time the driver worked on a statement.")
_FINDINGS = Spec(
    "isp_queries_findings_total", "counter", "N+1, repeated reads, write loops and unused preloads found.", ("kind",)
)
_SITES = Spec(
    "isp_queries_site_findings_total", "counter", "The same by the line that sent them.", ("kind", "path", "site")
)
_BATCHES = Spec("isp_queries_batches_total", "counter", "Lazy loads that were answered for several objects at once.")
_PRELOADED = Spec("isp_queries_preloaded_total", "counter", "Objects those loads were answered for.")
_BUDGET = Spec("isp_queries_over_budget_total", "counter", "Scopes that sent more statements than allowed.")

_SLOW = Spec("isp_queries_slow_total", "counter", "Statements that took as long as slow_ms or longer.")
_UNEXPLAINED = Spec("isp_queries_unexplained_total", "counter", "Slow statements whose plan could not be asked for.")


def _read(watch: "Watch", readings: Readings) -> None:
    stats = watch.stats
    readings.add(_COUNT, stats.statements)
    readings.add(_SECONDS, stats.nanoseconds / _NANOSECONDS)
    readings.add_histogram(_DURATION, watch.cells, stats.nanoseconds)
    for kind in ("n_plus_one", "repeated_read", "write_loop", "unused_preload"):
        readings.add(_FINDINGS, getattr(stats, kind), kind)
    for (kind, path, file, line), findings in list(watch.sites.items()):
        readings.add(_SITES, findings, kind, path, f"{'/'.join(PurePath(file).parts[-2:])}:{line}")
    readings.add(_BATCHES, stats.batches)
    readings.add(_PRELOADED, stats.peers)
    readings.add(_BUDGET, stats.over_budget)
    readings.add(_SLOW, stats.slow)
    readings.add(_UNEXPLAINED, stats.unexplained)


QUERIES = Feature(
    "isp_perf.queries._watch",
    "WATCHES",
    read=_read,
    specs=(_COUNT, _SECONDS, _DURATION, _FINDINGS, _SITES, _BATCHES, _PRELOADED, _BUDGET, _SLOW, _UNEXPLAINED),
)
