"""The same figures under names that published Grafana boards ask for: Micrometer's and resilience4j's.

Alias families are computed from the totals of a scrape and stand beside the originals. What the others measure and
isp_perf does not is left out, not made up; a figure they call ``..._count`` of a timer is told as a gauge, since text
formats keep that ending for histograms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from isp_perf.errors import ConfigurationError
from isp_perf.metrics._snapshot import Column, Key, Readings, Snapshot, Spec

__all__ = ["Naming", "aliased", "checked"]

Naming: TypeAlias = Literal["micrometer", "resilience4j"]
"""Whose names the figures are also shown under: Micrometer's for caches and requests, resilience4j's for breakers."""

_PERCENT: Final = 100
_MISSING: Final = ""  # a label value that leaves the series out


@dataclass(frozen=True, slots=True)
class _Alias:
    """How one family is called elsewhere.

    Args:
        origin: our family.
        spec: theirs.
        key: turns our label values into theirs; ``None`` leaves the series out.
        factor: turns our unit into theirs.
    """

    origin: str
    spec: Spec
    key: Callable[[Key], Key | None]
    factor: float = 1


def _with(places: Sequence[int], last: str | Mapping[str, str] | None = None) -> Callable[[Key], Key | None]:
    """Return what takes the label values at ``places``, then a fixed value or one looked up by our last label."""

    def key(own: Key) -> Key | None:
        taken = tuple(own[place] for place in places)
        if last is None:
            return taken
        more = last if isinstance(last, str) else last.get(own[-1], _MISSING)
        return (*taken, more) if more else None

    return key


def _by_result(own: Key) -> Key:
    """A stale hit and a negative one are answers from the cache, so they are hits."""
    return own[0], "miss" if own[2] == "miss" else "hit"


def _counter(name: str, text: str, *labels: str) -> Spec:
    return Spec(name, "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Spec:
    return Spec(name, "gauge", text, labels)


_R4J: Final = "resilience4j_circuitbreaker_"
_STATES: Final = {
    "closed": "closed",
    "open": "open",
    "half_open": "half_open",
    "isolated": "forced_open",
    "disabled": "disabled",
    "metrics_only": "metrics_only",
}
_LOADS: Final = {"ok": "success", "error": "failure"}
_CALLS: Final = {"success": "successful", "failure": "failed", "neutral": "ignored"}
_ALIASES: Final[Mapping[Naming, tuple[_Alias, ...]]] = {
    "micrometer": (
        _Alias("isp_cache_gets_total", _counter("cache_gets_total", "Reads.", "cache", "result"), _by_result),
        _Alias(
            "isp_cache_loads_total",
            _counter("cache_load_total", "Loads by their result.", "cache", "result"),
            _with([0], _LOADS),
        ),
        _Alias(
            "isp_cache_loads_total",
            _counter("cache_puts_total", "Values that loads have put in.", "cache"),
            lambda own: own[:1] if own[1] == "ok" else None,
        ),
        _Alias(
            "isp_cache_load_seconds_total",
            _gauge("cache_load_duration_seconds", "Time spent in loads since the start.", "cache"),
            _with([0]),
        ),
        _Alias(
            "isp_cache_evictions_total", _counter("cache_evictions_total", "Entries that left.", "cache"), _with([0])
        ),
        _Alias("isp_cache_entries", _gauge("cache_size", "Entries.", "cache"), _with([0])),
        _Alias(
            "isp_http_request_duration_seconds",
            Spec("http_server_requests_seconds", "histogram", "Time of a request.", ("method", "uri")),
            _with([0, 1]),
        ),
    ),
    "resilience4j": (
        _Alias(
            "isp_circuit_breaker_state",
            _gauge(f"{_R4J}state", "1 for the state.", "name", "state"),
            _with([0], _STATES),
        ),
        _Alias(
            "isp_circuit_breaker_calls_total",
            _gauge(f"{_R4J}calls_seconds_count", "Calls by their outcome.", "name", "kind"),
            _with([0], _CALLS),
        ),
        _Alias(
            "isp_circuit_breaker_not_permitted_total",
            _counter(f"{_R4J}not_permitted_calls_total", "Calls that were rejected.", "name", "kind"),
            _with([0], "not_permitted"),
        ),
        _Alias(
            "isp_circuit_breaker_failures",
            _gauge(f"{_R4J}buffered_calls", "Failures that count now.", "name", "kind"),
            _with([0], "failed"),
        ),
        _Alias(
            "isp_circuit_breaker_failure_ratio",
            _gauge(f"{_R4J}failure_rate", "Failed calls in percent.", "name"),
            _with([0]),
            _PERCENT,
        ),
    ),
}


def checked(naming: Naming | Iterable[Naming]) -> tuple[Naming, ...]:
    """Return the aliases asked for.

    Raises:
        ConfigurationError: one of them is not known.
    """
    asked: tuple[Any, ...] = (naming,) if isinstance(naming, str) else tuple(naming)
    for name in asked:
        if name not in _ALIASES:
            raise ConfigurationError("naming", name, f"one of {', '.join(_ALIASES)}", "leave it out for our own names")
    return asked


def aliased(snapshot: Snapshot, naming: Sequence[Naming]) -> Snapshot:
    """Return a snapshot with the alias families beside its own; a name that is taken already stays what it is."""
    if not naming:
        return snapshot
    readings = Readings()
    for alias in [alias for name in naming for alias in _ALIASES[name]]:
        readings.declare([alias.spec])
        _read(alias, snapshot, readings)
    columns = dict(sorted((readings.columns() | snapshot.columns).items()))
    return Snapshot(columns, snapshot.time_ns, snapshot.exemplars)


def _read(alias: _Alias, snapshot: Snapshot, readings: Readings) -> None:
    column: Column = snapshot.get(alias.origin)
    for own, value in zip(column.keys, column.values, strict=True):
        key = alias.key(own)
        if key is None:
            continue
        if alias.spec.kind == "histogram":
            readings.add_histogram(alias.spec, value[:-1], value[-1], *key)
        else:
            readings.add(alias.spec, value if alias.factor == 1 else value * alias.factor, *key)
