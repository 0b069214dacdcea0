"""The public test kit: clocks and engines for tests of services that use isp_perf."""

from isp_perf.testing._clock import ManualClock
from isp_perf.testing._engines import Engine, start_postgres, start_redis

__all__ = ["Engine", "ManualClock", "start_postgres", "start_redis"]
