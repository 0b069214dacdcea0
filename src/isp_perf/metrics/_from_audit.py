"""The families of the auditors, read from every ``Auditor`` that is alive."""

from typing import TYPE_CHECKING

from isp_perf.metrics._snapshot import Readings, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.cache import Auditor

__all__ = ["AUDIT"]

_NANOSECONDS = 1e9
_READS = Spec(
    "isp_cache_audited_reads_total", "counter", "Hits that were sampled, by what an audit found.", ("cache", "result")
)
_STALE = Spec(
    "isp_cache_stale_reads_total",
    "counter",
    "Sampled hits that were served although the function had been returning another value, by its key template.",
    ("cache", "key"),
)
_AGE = Spec("isp_cache_stale_seconds", "histogram", "For how long, at least, such a value had been untrue.", ("cache",))
_LOADS = Spec("isp_cache_audit_loads_total", "counter", "Loader calls made for audits.", ("cache",))


def _read(auditor: "Auditor", readings: Readings) -> None:
    report, name = auditor.report(), auditor.name
    for result, number in report.results.items():
        readings.add(_READS, number, name, result)
    for template, number in report.stale_by.items():
        readings.add(_STALE, number, name, template)
    readings.add_histogram(_AGE, report.age_cells, round(report.age_seconds * _NANOSECONDS), name)
    readings.add(_LOADS, report.loads, name)


AUDIT = Feature("isp_perf.cache.consistency", "auditors", read=_read, specs=(_READS, _STALE, _AGE, _LOADS))
