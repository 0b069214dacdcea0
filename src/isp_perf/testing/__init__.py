"""The public test kit: clocks, engines and network faults for tests of services that use isp_perf."""

from isp_perf.testing._clock import ManualClock
from isp_perf.testing._engines import Engine, start_postgres, start_redis
from isp_perf.testing._proxy import FaultProxy

__all__ = ["Engine", "FaultProxy", "ManualClock", "start_postgres", "start_redis"]
