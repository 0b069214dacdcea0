"""Micro benchmarks of the hot paths: what one call costs in this process, on this machine."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter_ns
from typing import Any

from isp_perf.breaker import CircuitBreaker
from isp_perf.cache import CacheManager
from isp_perf.compression import compress_for
from isp_perf.metrics import MetricRegistry

__all__ = ["PATHS", "ROUNDS", "Cost", "measure"]

ROUNDS = 60
"""Rounds of each path."""
PATHS = 7
"""Paths that are measured."""
_ROUND_NS = 2_000_000  # one round takes about this long
_MOST_CALLS = 20_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call costs.

    Args:
        name: what is called.
        p50_seconds: median over rounds of the mean of a round.
        p99_seconds: 99th percentile of the same.
    """

    name: str
    p50_seconds: float
    p99_seconds: float

    @property
    def per_second(self) -> float:
        """Calls per second at the median."""
        return 1 / self.p50_seconds if self.p50_seconds else 0.0


def measure(done: Callable[[], None]) -> list[Cost]:
    """Measure each hot path in turn; ``done`` is called after each round."""
    manager = CacheManager("bench")

    @manager.cached("bench:{number}")
    def square(number: int) -> int:
        return number * number

    @manager.cached("bench-async:{number}")
    async def asquare(number: int) -> int:
        return number * number

    square(1)
    asyncio.run(asquare(1))
    breaker = CircuitBreaker("bench")
    registry = MetricRegistry()
    counter, histogram = registry.counter("bench", "Calls."), registry.histogram("bench_seconds", "Time.")
    body = json.dumps([{"id": n, "nome": f"Cliente {n}", "plano": "fibra"} for n in range(200)]).encode()
    calls: dict[str, Callable[[], object]] = {
        "cache hit": lambda: square(1),
        "cache hit, async": lambda: _run(asquare),
        "closed circuit breaker": lambda: breaker.call(int),
        "counter": counter.inc,
        "histogram": lambda: histogram.observe(0.001),
        f"brotli, {len(body):,} bytes of JSON": lambda: compress_for(b"br", body, b"application/json"),
        f"gzip, {len(body):,} bytes of JSON": lambda: compress_for(b"gzip", body, b"application/json"),
    }
    return [_cost(name, call, done) for name, call in calls.items()]


def _run(function: Callable[[int], Coroutine[Any, Any, int]]) -> None:
    """Drive a coroutine that does not suspend, as a hit does not."""
    with suppress(StopIteration):
        function(1).send(None)


def _cost(name: str, call: Callable[[], object], done: Callable[[], None]) -> Cost:
    calls = _calls(call)
    means: list[float] = []
    for _ in range(ROUNDS):
        began = perf_counter_ns()
        for _ in range(calls):
            call()
        means.append((perf_counter_ns() - began) / calls / 1e9)
        done()
    cuts = quantiles(means, n=100)
    return Cost(name, cuts[49], cuts[98])


def _calls(call: Callable[[], object]) -> int:
    """Return how many calls make one round."""
    call()
    began = perf_counter_ns()
    call()
    return max(1, min(_MOST_CALLS, _ROUND_NS // max(1, perf_counter_ns() - began)))
