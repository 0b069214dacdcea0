"""The public test kit: clocks, engines, network faults and breakers for tests of services that use isp_perf."""

from isp_perf.testing._breakers import ChaosError, broken, chaos, fresh_circuits, healthy
from isp_perf.testing._clock import ManualClock
from isp_perf.testing._engines import Engine, start_postgres, start_redis
from isp_perf.testing._memory_level import MemoryLevel
from isp_perf.testing._proxy import FaultProxy

__all__ = [
    "ChaosError",
    "Engine",
    "FaultProxy",
    "ManualClock",
    "MemoryLevel",
    "broken",
    "chaos",
    "fresh_circuits",
    "healthy",
    "start_postgres",
    "start_redis",
]
