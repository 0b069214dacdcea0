"""Circuit breakers, and what stands beside them: timeout, retry, bulkhead, fallback, hedge, fused by ``pipeline``."""

from isp_perf.breaker._breaker import CircuitBreaker, Isolation
from isp_perf.breaker._config import (
    AI_CIRCUIT_CONFIG,
    DATABASE_CIRCUIT_CONFIG,
    REDIS_CIRCUIT_CONFIG,
    WHATSAPP_CIRCUIT_CONFIG,
    Backoff,
    CircuitConfig,
    CountWindow,
    SlowCall,
    TimeWindow,
)
from isp_perf.breaker._decorator import circuit_breaker
from isp_perf.breaker._forms import BreakerBlock, Permit
from isp_perf.breaker._keyed import KeyedBreakers
from isp_perf.breaker._machine import CircuitEvent, Counts
from isp_perf.breaker._middleware import CircuitOpenMiddleware
from isp_perf.breaker._registry import CircuitRegistry, circuits
from isp_perf.errors import CircuitIsolatedError, CircuitOpenError, ProbeLimitError, RejectedError

__all__ = [
    "AI_CIRCUIT_CONFIG",
    "DATABASE_CIRCUIT_CONFIG",
    "REDIS_CIRCUIT_CONFIG",
    "WHATSAPP_CIRCUIT_CONFIG",
    "Backoff",
    "BreakerBlock",
    "CircuitBreaker",
    "CircuitConfig",
    "CircuitEvent",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "CircuitOpenMiddleware",
    "CircuitRegistry",
    "CountWindow",
    "Counts",
    "Isolation",
    "KeyedBreakers",
    "Permit",
    "ProbeLimitError",
    "RejectedError",
    "SlowCall",
    "TimeWindow",
    "circuit_breaker",
    "circuits",
]
