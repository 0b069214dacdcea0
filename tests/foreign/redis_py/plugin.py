"""A pytest plugin for redis-py's own asyncio suite: its client class becomes ours, and a report counts link users.

Clients whose options have no counterpart here (decoded replies, another encoding, one connection only) stay redis-py's.
"""

import json
import os
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio import Redis as StockRedis

from isp_perf.redis import RedisSettings
from isp_perf.redis._client import PipelinedRedis
from isp_perf.redis._state import States

OURS = os.environ.get("REDIS_PY_SUITE") == "ours"
REPORT = Path(os.environ["REDIS_PY_REPORT"])
KNOWN = {"host", "port", "db", "protocol"}  # options with a counterpart in our settings
ADDED = ("himport_registry", "maint_notifications", "orig_")  # what redis-py's pool adds by itself

made = []
results = {}


class LinkRedis(PipelinedRedis):
    """Our client with the constructor redis-py's fixtures use."""

    def __new__(cls, *args, connection_pool=None, **kwargs):
        options = {} if connection_pool is None else connection_pool.connection_kwargs
        asked = {name for name in options if not name.startswith(ADDED)}
        if args or kwargs or connection_pool is None or not asked <= KNOWN:
            return StockRedis(*args, connection_pool=connection_pool, **kwargs)
        return super().__new__(cls)

    def __init__(self, *, connection_pool):
        options = connection_pool.connection_kwargs
        where = f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"
        version = int(options.get("protocol") or 3)
        settings = RedisSettings(url=where, protocol=version, timeout=5.0, connect_timeout=5.0)
        super().__init__(States(settings, settings.target))
        made.append(self)

    async def aclose(self, *_args, **_options):
        await self.states.aclose()


def pytest_configure():
    if OURS:
        redis.asyncio.Redis = LinkRedis


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    made.clear()
    result = yield
    used = any(client.states.stats[lane].commands for client in made for lane in ("fast", "bulk"))
    results.setdefault(item.nodeid, {})["link"] = used
    return result


def pytest_runtest_logreport(report):
    outcome = results.setdefault(report.nodeid, {})
    if report.when == "call" or report.outcome != "passed":
        outcome["outcome"] = report.outcome


def pytest_sessionfinish():
    REPORT.write_text(json.dumps(results))
