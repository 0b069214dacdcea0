"""How long loads took is counted per log-linear cell, whichever way the load went."""

import pytest

from isp_perf._core.histogram import cell_of
from isp_perf.cache import CacheManager
from isp_perf.cache._stats import Counters


def test_many_times_fall_in_the_cells_that_one_by_one_they_would():
    """The walk over sorted times counts each in its own cell, ends of the layout included, and the sum is theirs."""
    spent = [number * 1.7e-7 for number in range(2000)] + [-1.0, 0.0, 1e6, 1e6]
    counters = Counters(timed=True)
    counters.count_loads(spent)
    wanted = [0] * len(counters.load_cells)
    for seconds in spent:
        wanted[cell_of(int(seconds * 1e9))] += 1
    differing = sum(abs(one - other) for one, other in zip(counters.load_cells, wanted, strict=True))
    assert differing <= 4  # a time that is the edge of two cells to the last bit may fall on either side
    assert sum(counters.load_cells) == counters.loads == len(spent)
    assert counters.load_seconds == pytest.approx(sum(spent))


async def test_every_way_of_loading_is_timed():
    """The short way, the long way by key, a failing loader and a bypassed call each add one time."""
    manager = CacheManager("load-times")

    @manager.cached("n:{number}")
    async def load(number: int) -> int:
        return 1 // number

    for number in range(1, 1001):
        await load(number)
    await manager.get_or_set("key", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        await load(0)
    with manager.bypass():
        await load(1)
    tally = manager.tally()
    assert sum(tally.load_cells) == manager.stats().loads == 1003
    assert tally.load_seconds == manager.stats().load_seconds
    assert tally.outages == tally.undelivered == 0
