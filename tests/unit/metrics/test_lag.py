"""Event-loop lag: measured from the first request or the lifespan on, once per loop, and gone with the loop."""

import asyncio
import time

from isp_perf.metrics import MetricRegistry, MetricsMiddleware, registry
from isp_perf.metrics._lag import LoopWatch


def lag(source):
    return source.collect("worker").get("isp_loop_lag_seconds").values[0]


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def nothing(message=None):
    pass


def test_a_blocked_loop_shows_as_lag():
    """What blocks a loop for 0.1 s is in the sum of the lag; two middlewares on one loop measure it once."""
    own = MetricRegistry()

    async def serve():
        for _ in range(2):
            await MetricsMiddleware(application, target=own)({"type": "http", "method": "GET"}, nothing, nothing)
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().call_soon(time.sleep, 0.15)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(serve())
    *cells, total = lag(own)
    assert sum(cells) == 1
    assert total >= 0.05e9


def test_the_lifespan_begins_to_measure_and_another_loop_begins_anew():
    """A middleware that only sees the lifespan measures as well, on each loop that serves it."""
    own = MetricRegistry()
    measured = MetricsMiddleware(nothing_of_lifespan, target=own)

    async def run():
        await measured({"type": "lifespan"}, nothing, nothing)
        await asyncio.sleep(0.3)

    for _ in range(2):
        asyncio.run(run())
    assert sum(lag(own)[:-1]) == 2


async def nothing_of_lifespan(scope, receive, send):
    pass


def test_without_a_loop_nothing_is_measured():
    """Outside an event loop of asyncio there is nothing to watch, and the family stands all the same."""
    own = MetricRegistry()
    LoopWatch().watch(own.histogram("lag_seconds", "Lag."))
    assert "isp_loop_lag_seconds" in registry.collect("worker").columns
