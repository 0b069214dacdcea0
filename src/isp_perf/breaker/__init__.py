"""Circuit breakers, and what stands beside them: timeout, retry, bulkhead, fallback, hedge, fused by ``pipeline``."""

from isp_perf.breaker._adapters import retry_hook, wait_for_circuit
from isp_perf.breaker._breaker import CircuitBreaker, Isolation
from isp_perf.breaker._bulkhead import Bulkhead, bulkhead
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
from isp_perf.breaker._fallback import Fallback, fallback
from isp_perf.breaker._fleet import Fleet
from isp_perf.breaker._fleet_wire import FleetStore
from isp_perf.breaker._forms import BreakerBlock, Permit
from isp_perf.breaker._hedge import Hedge, hedge
from isp_perf.breaker._keyed import KeyedBreakers
from isp_perf.breaker._middleware import CircuitOpenMiddleware
from isp_perf.breaker._pipeline import Pipeline, pipeline
from isp_perf.breaker._records import CircuitEvent, Counts
from isp_perf.breaker._registry import CircuitRegistry, circuits
from isp_perf.breaker._retry import Retry, RetryBudget, retry
from isp_perf.breaker._retry_after import retry_after
from isp_perf.breaker._timeout import Timeout, timeout
from isp_perf.errors import BulkheadFullError, CircuitIsolatedError, CircuitOpenError, ProbeLimitError, RejectedError

__all__ = [
    "AI_CIRCUIT_CONFIG",
    "DATABASE_CIRCUIT_CONFIG",
    "REDIS_CIRCUIT_CONFIG",
    "WHATSAPP_CIRCUIT_CONFIG",
    "Backoff",
    "BreakerBlock",
    "Bulkhead",
    "BulkheadFullError",
    "CircuitBreaker",
    "CircuitConfig",
    "CircuitEvent",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "CircuitOpenMiddleware",
    "CircuitRegistry",
    "CountWindow",
    "Counts",
    "Fallback",
    "Fleet",
    "FleetStore",
    "Hedge",
    "Isolation",
    "KeyedBreakers",
    "Permit",
    "Pipeline",
    "ProbeLimitError",
    "RejectedError",
    "Retry",
    "RetryBudget",
    "SlowCall",
    "TimeWindow",
    "Timeout",
    "bulkhead",
    "circuit_breaker",
    "circuits",
    "fallback",
    "hedge",
    "pipeline",
    "retry",
    "retry_after",
    "retry_hook",
    "timeout",
    "wait_for_circuit",
]
