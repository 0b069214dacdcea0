"""Lanes of their own: a handshake on every new link, pushes in order, and word of every loss."""

import asyncio

import pytest

from isp_perf.errors import NotSentError
from isp_perf.redis import RedisPool
from isp_perf.redis._lane import Hooks

TRACK = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p:", "NOLOOP")


async def test_a_lane_of_its_own_hears_invalidations_and_of_every_lost_link(redis_url, patient, until):
    """Its handshake runs on each new link before anybody uses it; pushes and losses are told in order."""
    heard = []
    async with RedisPool(patient(url=redis_url)) as pool:
        await pool.client().ping()
        state = await pool.client().states.current()
        hooks = Hooks(
            handshake=[TRACK],
            on_push=lambda push: heard.append(push[1]),
            on_ready=lambda: heard.append("ready"),
            on_lost=lambda: heard.append("lost"),
        )
        lane = state.open_lane("tracking", hooks)
        link = await lane.acquire("PING", asyncio.get_running_loop().time() + 30)
        assert heard == ["ready"]
        await pool.set("p:a", b"1")
        await pool.set("q:a", b"1")
        await until(lambda: len(heard) > 1)
        assert heard == ["ready", [b"p:a"]]
        assert (
            await lane.call(b"*1\r\n$4\r\nPING\r\n", "PING", read_only=True, deadline=link.loop.time() + 30) == b"PONG"
        )
        await pool.client().client_kill_filter(_type="normal", skipme=True)
        await until(lambda: "lost" in heard)
        await lane.acquire("PING", asyncio.get_running_loop().time() + 30)
        await pool.set("p:b", b"1")
        await until(lambda: len(heard) == 5)
        assert heard[2:] == ["lost", "ready", [b"p:b"]]
        assert pool.stats().lanes["tracking"].connects == 2
        assert pool.sockets()[0] >= 2
        state.close_lane(lane)
        assert heard[5:] == ["lost"]
    assert len(heard) == 6


async def test_a_refused_handshake_is_a_failed_attempt(redis_url, patient):
    """Nobody gets a link whose handshake was answered by an error, and no socket stays behind."""
    async with RedisPool(patient(url=redis_url)) as pool:
        await pool.client().ping()
        state = await pool.client().states.current()
        lane = state.open_lane("own", Hooks(handshake=[("NO-SUCH-COMMAND",)]))
        with pytest.raises(NotSentError):
            await lane.acquire("PING", asyncio.get_running_loop().time() + 1)
        assert pool.stats().lanes["own"].connects == 0
        assert pool.stats().lanes["own"].failed_connects >= 1
        assert pool.sockets()[0] == 1
        state.close_lane(lane)
