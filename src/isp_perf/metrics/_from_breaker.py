"""The families of the circuit breakers, read from every registry that is alive."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from isp_perf.metrics._snapshot import Readings, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.breaker import CircuitRegistry

__all__ = ["BREAKER", "STATES"]

STATES: Final = ("closed", "half_open", "metrics_only", "disabled", "open", "isolated")
"""From the most to the least healthy, so that of several workers the worst is told."""

_OPENED: Final = frozenset({"open", "isolated"})
_KINDS: Final = {
    "success_count": "success",
    "failures": "failure",
    "neutral": "neutral",
    "cancelled": "cancelled",
    "late": "late",
}
_CALLS = Spec("isp_circuit_breaker_calls_total", "counter", "Calls by their outcome.", ("breaker", "kind"))
_REJECTED = Spec("isp_circuit_breaker_not_permitted_total", "counter", "Calls that were rejected.", ("breaker",))
_SLOW = Spec("isp_circuit_breaker_slow_calls_total", "counter", "Calls over the slow-call duration.", ("breaker",))
_STATE = Spec(
    "isp_circuit_breaker_state", "gauge", "1 for the state the breaker is in.", ("breaker", "state"), merge="max"
)
_FAILURES = Spec(
    "isp_circuit_breaker_failures", "gauge", "Failures that count towards opening now.", ("breaker",), merge="max"
)
_RETRY_AFTER = Spec(
    "isp_circuit_breaker_retry_after_seconds", "gauge", "Time until the next probe.", ("breaker",), merge="max"
)
_OPENED_AT = Spec(
    "isp_circuit_breaker_opened_at_seconds",
    "gauge",
    "Unix time at which a breaker that is not closed opened last.",
    ("breaker",),
    merge="max",
)
_TRANSITIONS = Spec("isp_circuit_breaker_transitions_total", "counter", "Changes of state.", ("breaker", "from", "to"))
_RATIO = Spec(
    "isp_circuit_breaker_failure_ratio",
    "gauge",
    "Share of the calls that count now which failed (0-1).",
    ("breaker",),
    merge="max",
)
_OPEN_SECONDS = Spec(
    "isp_circuit_breaker_open_seconds",
    "gauge",
    "How long a breaker that is not closed has been so.",
    ("breaker",),
    "max",
)


def _read(registry: "CircuitRegistry", readings: Readings) -> None:
    for name, report in registry.report()["circuit_breakers"].items():
        _breaker(name, report, readings)


def _breaker(name: str, report: Mapping[str, Any], readings: Readings) -> None:
    for key, kind in _KINDS.items():
        readings.add(_CALLS, report[key], name, kind)
    readings.add(_REJECTED, report["rejected"], name)
    readings.add(_SLOW, report["slow"], name)
    readings.add(_FAILURES, report["failure_count"], name)
    for state in STATES:
        readings.add(_STATE, int(report["state"] == state), name, state)
    for change, number in report.get("transition_counts", {}).items():
        before, _, after = change.partition("->")
        readings.add(_TRANSITIONS, number, name, before, after)
    _present(name, report, readings)


def _present(name: str, report: Mapping[str, Any], readings: Readings) -> None:
    """Add what a breaker says of its present state; a family made by ``key=`` says less."""
    wait = report.get("retry_after")
    if wait is not None:
        readings.add(_RETRY_AFTER, wait, name)
    if calls := report.get("calls_counted"):
        readings.add(_RATIO, report["failure_count"] / calls, name)
    opened = [event["at"] for event in report.get("transitions", ()) if event["after"] in _OPENED]
    if opened and report["state"] != "closed":
        readings.add(_OPENED_AT, opened[-1], name)
        readings.add(_OPEN_SECONDS, max(0.0, time.time() - opened[-1]), name)


BREAKER = Feature(
    "isp_perf.breaker._registry",
    "live_registries",
    read=_read,
    specs=(
        _CALLS,
        _REJECTED,
        _SLOW,
        _STATE,
        _FAILURES,
        _RETRY_AFTER,
        _OPENED_AT,
        _TRANSITIONS,
        _RATIO,
        _OPEN_SECONDS,
    ),
)
