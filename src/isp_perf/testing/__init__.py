"""The public test kit for services that use isp_perf: clocks, engines, network faults, breakers and histories."""

from isp_perf.testing._breakers import ChaosError, broken, chaos, fresh_circuits, healthy
from isp_perf.testing._chaos import ChaosLevel
from isp_perf.testing._clock import ManualClock
from isp_perf.testing._engines import Engine, start_postgres, start_redis
from isp_perf.testing._history import History, ReadRecord, Session, WriteRecord
from isp_perf.testing._memory_level import MemoryLevel
from isp_perf.testing._proxy import FaultProxy
from isp_perf.testing._simulation import simulate
from isp_perf.testing._verdict import Verdict, Violation, check

__all__ = [
    "ChaosError",
    "ChaosLevel",
    "Engine",
    "FaultProxy",
    "History",
    "ManualClock",
    "MemoryLevel",
    "ReadRecord",
    "Session",
    "Verdict",
    "Violation",
    "WriteRecord",
    "broken",
    "chaos",
    "check",
    "fresh_circuits",
    "healthy",
    "simulate",
    "start_postgres",
    "start_redis",
]
