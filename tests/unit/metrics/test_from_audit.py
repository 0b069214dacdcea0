"""The auditor's report becomes families: hits by result, stale reads by function, their age, and what it cost."""

import logging

from isp_perf._runtime.drive import adrive
from isp_perf.cache import Auditor, CacheManager
from isp_perf.metrics import registry
from isp_perf.testing import ManualClock


def family(name):
    return registry.collect("worker").get(name).by_key()


async def test_stale_reads_are_told_with_their_age_and_their_function(caplog):
    """A value that nobody invalidated shows in every family of the auditor."""
    caplog.set_level(logging.ERROR, "isp_perf.cache")
    clock, truth = ManualClock(), [1]
    cache = CacheManager("audit-test", clock=clock)

    @cache.cached("read:{n}")
    async def read(n: int) -> int:
        return truth[0]

    auditor = Auditor(cache, sample=1.0, pause=0.001)
    auditor._pause = 3600
    async with auditor:
        for _ in range(3):
            await read(1)
        truth[0] = 2
        for _ in range(2):
            clock.advance(8.0)
            await adrive(auditor._audit.turn(tasks=True))
    assert family("isp_cache_audited_reads_total")["audit-test", "stale"] == 2
    assert family("isp_cache_stale_reads_total")["audit-test", "read:{n}"] == 2
    assert family("isp_cache_audit_loads_total")["audit-test",] == 2
    *cells, total = family("isp_cache_stale_seconds")["audit-test",]
    assert sum(cells) == 2
    assert total == 16_000_000_000
