"""The application's own figures come from the cache, warmed and refreshed, and never fail a request."""

import asyncio

import pytest

from isp_perf.cache import CacheManager
from isp_perf.ops import _dashboard
from isp_perf.ops._dashboard import Dashboard


@pytest.fixture
def store():
    return CacheManager("dashboard-test")


def loading(calls, figures=None):
    async def load():
        calls.append(1)
        if figures is None:
            raise OSError("x")
        return figures

    return load


async def test_without_a_loader_it_says_so(store):
    """The seed's keys are there and zero, and configured is false."""
    figures = await Dashboard(None, store).figures()
    assert figures == {
        "total_conversations": 0,
        "active_conversations": 0,
        "messages_today": 0,
        "cache_hit": True,
        "configured": False,
    }


async def test_once_started_no_request_computes(store):
    """The start warms the cache; a thousand requests later the loader has run once."""
    calls = []
    dashboard = Dashboard(loading(calls, {"total_conversations": 1500, "extra": 1}), store)
    await dashboard.start()
    await dashboard.start()
    for _ in range(1000):
        figures = await dashboard.figures()
    assert (figures["total_conversations"], figures["extra"], figures["cache_hit"]) == (1500, 1, True)
    assert len(calls) == 1
    await dashboard.aclose()


async def test_it_is_refreshed_ahead(store, monkeypatch):
    """The loader runs again and again in the background until it is closed."""
    monkeypatch.setattr(_dashboard, "_REFRESH", 0.005)
    calls, thrice = [], asyncio.Event()

    async def load():
        calls.append(1)
        if len(calls) == 3:
            thrice.set()
        return {}

    dashboard = Dashboard(load, store)
    await dashboard.start()
    await asyncio.wait_for(thrice.wait(), 10)
    await dashboard.aclose()
    count = len(calls)
    await asyncio.sleep(0.02)
    assert len(calls) == count


async def test_without_a_start_the_first_request_computes(store):
    """Where no lifespan runs, the first request loads and says that it was no hit; the second one is a hit."""
    calls = []
    dashboard = Dashboard(loading(calls, {"messages_today": 7}), store)
    assert [(await dashboard.figures())["cache_hit"] for _ in range(2)] == [False, True]
    assert len(calls) == 1


async def test_a_loader_that_fails_leaves_zeros(store, caplog):
    """A failing loader is logged without its message and answered with zeros."""
    figures = await Dashboard(loading([], None), store).figures()
    assert (figures["total_conversations"], figures["cache_hit"], figures["configured"]) == (0, False, True)
    assert "OSError" in caplog.text
