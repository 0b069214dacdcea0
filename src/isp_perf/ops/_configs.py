"""What the circuit breakers of this process are configured to do, for ``/circuit-breakers``."""

import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from isp_perf.breaker import CircuitRegistry

__all__ = ["breaker_configs"]

_SHOWN: Final = (
    "failure_threshold",
    "window",
    "slow_call",
    "break_duration",
    "probes",
    "probe_timeout",
    "overflow",
    "ramp",
    "timeout",
)
_MODULE: Final = "isp_perf.breaker._registry"


def breaker_configs() -> dict[str, dict[str, Any]]:
    """Return the configuration of every breaker by its name; durations in seconds. Callables are left out."""
    live: Iterable[CircuitRegistry] = getattr(sys.modules.get(_MODULE), "live_registries", ())
    breakers = [breaker for registry in list(live) for breaker in (*registry, *registry.keyed())]
    return {breaker.name: {name: _plain(getattr(breaker.config, name)) for name in _SHOWN} for breaker in breakers}


def _plain(value: Any) -> Any:
    """Return a value of a configuration as JSON."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.init}
    return value
