"""The public test kit: clocks and engines for tests of services that use isp_perf."""

from isp_perf.testing._clock import ManualClock

__all__ = ["ManualClock"]
