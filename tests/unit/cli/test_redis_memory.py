"""A Redis that refuses writes when full, or has no limit on a full machine, is no place for a cache."""

import asyncio
import json
import sys

import pytest

from isp_perf.cli import main
from isp_perf.cli._redis_memory import judged, memory_advice
from isp_perf.redis import RedisPool, RedisSettings


@pytest.mark.parametrize(
    ("limits", "memory", "said"),
    [
        ({"maxmemory": "0", "maxmemory-policy": "noeviction"}, {"used_memory": 10, "total_system_memory": 100}, None),
        ({"maxmemory": "100", "maxmemory-policy": "allkeys-lru"}, {"used_memory": 99}, None),
        ({"maxmemory": "100", "maxmemory-policy": "noeviction"}, {"used_memory": 50}, "50 B of 100 B"),
        ({"maxmemory": "0"}, {"used_memory": 60, "total_system_memory": 100}, "60.0 %"),
        ({}, {}, None),
    ],
)
def test_limits_are_judged(limits, memory, said):
    """Only a limit without eviction, and no limit on a machine half full, are findings."""
    found = judged(limits, memory)
    assert [said in one.evidence for one in found] == ([] if said is None else [True])


async def test_without_a_server_there_is_no_advice():
    """No Redis, and one that does not answer, are not a finding of this rule."""
    assert await memory_advice(RedisSettings()) == []
    assert await memory_advice(RedisSettings(url="redis://127.0.0.1:1/0")) == []


def test_doctor_asks_the_server_of_the_environment(redis_url, monkeypatch, tmp_path, capsys):
    """With REDIS_URL set, the doctor of any application tells a server that would refuse writes."""
    (tmp_path / "plain_app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 204, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    asyncio.run(_limit(redis_url, 500_000_000))
    try:
        assert main(["doctor", "plain_app:app", "--path", "/", "--json"]) == 1
        [found] = json.loads(capsys.readouterr().out)["findings"]
        assert found["subject"] == "Redis memory"
    finally:
        asyncio.run(_limit(redis_url, 0))


async def _limit(url, value):
    async with RedisPool(url) as pool:
        await pool.client().config_set("maxmemory", value)
        await pool.client().config_set("maxmemory-policy", "noeviction")
