"""What a pool survives: a stopped server, full pools, outages under load, rotated passwords, a full house."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from functools import partial
from urllib.parse import urlsplit

import pytest
from redis.exceptions import AuthenticationError

from isp_perf.errors import NotSentError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import start_redis

DEADLINE = 0.2
hasty = partial(RedisSettings, timeout=DEADLINE, connect_timeout=0.1)


async def outcome_of(call):
    """Return how a call ended."""
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    return outcome


def calls_of(pool):
    """One call of every kind, from a task."""
    client = pool.client()
    return [
        pool.get("a"),
        pool.get_many(["a", "b"]),
        client.incr("n"),
        client.hgetall("h"),
        client.pipeline().incr("n").execute(),
        client.pipeline(transaction=False).get("a").execute(),
        client.blmove("none", "other", timeout=0.01),
    ]


def calls_in_threads(pool):
    """The same from threads."""
    return [
        asyncio.to_thread(pool.blocking.get, "a"),
        asyncio.to_thread(pool.sync().pipeline().incr("n").execute),
    ]


@contextlib.contextmanager
def stopped(process_id):
    """Freeze a server."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stopped_server_ends_every_call_in_time(redis_url, patient, until, in_time, loop):
    """SIGSTOP: connections stay open and nothing answers; new ones are accepted by the kernel and answer nothing."""
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop", reason="no uvloop").run

    async def scenario():
        async with RedisPool(patient(url=redis_url)) as admin:
            process_id = (await admin.client().info("server"))["process_id"]
        async with RedisPool(hasty(url=redis_url)) as pool:
            await until(lambda: pool.set("a", b"1"))
            await asyncio.gather(*calls_of(pool), *calls_in_threads(pool), return_exceptions=True)
            with stopped(process_id):
                for _ in range(2):  # on links that are up, then on new ones
                    outcomes = await asyncio.gather(
                        in_time(DEADLINE, *calls_of(pool)), in_time(DEADLINE, *calls_in_threads(pool), slack=0.5)
                    )
                    assert all(isinstance(outcome, RemoteError) for outcome in [*outcomes[0], *outcomes[1]])
                (health,) = await in_time(DEADLINE, pool.health())
                assert health.status == "unhealthy"
            assert await until(lambda: pool.get("a")) == b"1"

    run(scenario())


async def test_a_full_pool_of_dedicated_connections_ends_in_time(redis_url, until, in_time):
    """Whoever finds every connection lent learns in time that nothing was sent; the fast lane does not notice."""
    async with RedisPool(hasty(url=redis_url, max_connections=2, connect_timeout=15.0)) as pool:
        await until(lambda: pool.set("a", b"1"))
        client = pool.client()
        holding = [asyncio.create_task(client.blpop(["none"], timeout=100)) for _ in range(2)]
        await until(lambda: pool.stats().lanes["dedicated"].commands == 2)
        (outcome,) = await in_time(DEADLINE, client.blpop(["none"], timeout=1))
        assert isinstance(outcome, NotSentError)
        assert await until(lambda: pool.get("a")) == b"1"
        assert not any(task.done() for task in holding)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)


async def test_a_thousand_waiting_tasks_make_one_attempt_at_a_time():
    """While a port accepts and never answers, at most one connection of the lane is open at any moment."""
    opened = most = total = 0
    idle = asyncio.Event()

    async def accept(reader, writer):
        nonlocal opened, most, total
        for _ in range(10):  # the end of an earlier connection, which came first, is dealt with first
            await asyncio.sleep(0)
        idle.clear()
        opened += 1
        total += 1
        most = max(most, opened)
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        opened -= 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        if not opened:
            idle.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, RedisPool(hasty(url=url, timeout=0.5, connect_timeout=0.05)) as pool:

        async def keep_asking():
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                assert isinstance(await outcome_of(pool.get("a")), NotSentError)
                await asyncio.sleep(0.05)

        await asyncio.gather(*[keep_asking() for _ in range(1_000)])
        assert most == 1
        assert 1 <= total < 60
    async with asyncio.timeout(20):
        await idle.wait()


async def test_a_rotated_password_is_said_and_healed(start_server, patient, until):
    """Links that are up go on; new ones are refused by name until the server takes the password again."""
    url = start_server("--requirepass", "old")
    where = urlsplit(url)
    login = f"redis://:{{}}@{where.hostname}:{where.port}".format
    old, new = patient(url=login("old")), patient(url=login("new"))
    async with RedisPool(old) as pool, RedisPool(old) as admin:
        await pool.set("a", b"1")
        await admin.client().config_set("requirepass", "new")
        assert await pool.get("a") == b"1"
        await admin.client().client_kill_filter(_type="normal", skipme=True)
        outcome = await outcome_of(pool.get("a"))
        assert isinstance(outcome, NotSentError)
        assert isinstance(outcome, AuthenticationError)
        outcome = await outcome_of(asyncio.to_thread(pool.blocking.get, "a"))
        assert isinstance(outcome, AuthenticationError)
        assert "old" not in str(outcome)
        async with RedisPool(new) as other:
            assert await other.get("a") == b"1"
        await admin.client().config_set("requirepass", "old")
        await until(lambda: pool.get("a"))
        await until(lambda: asyncio.to_thread(pool.blocking.get, "a"))


async def test_a_server_that_takes_no_more_clients_is_survived(start_server, patient, until, in_time):
    """maxclients: the calls say that nothing was sent; as soon as there is room the pool is back by itself."""
    url = start_server()
    async with RedisPool(patient(url=url)) as admin, RedisPool(hasty(url=url)) as pool:
        await admin.client().config_set("maxclients", 1)
        (outcome,) = await in_time(DEADLINE, pool.get("a"))
        assert isinstance(outcome, NotSentError)
        assert isinstance(await outcome_of(asyncio.to_thread(pool.blocking.get, "a")), NotSentError)
        await admin.client().config_set("maxclients", 100)
        await until(lambda: pool.set("a", b"1"))
        assert await until(lambda: pool.get("a")) == b"1"
        await until(lambda: asyncio.to_thread(pool.blocking.get, "a"))


async def test_killed_clients_of_every_lane_are_replaced(redis_url, patient):
    """CLIENT KILL of everything: reads go on without an error, on every lane and in threads."""
    async with RedisPool(patient(url=redis_url)) as pool, RedisPool(patient(url=redis_url)) as admin:
        await pool.set("a", b"1")
        for _ in range(3):
            assert await pool.get("a") == b"1"
            assert await pool.client().hgetall("none") == {}
            assert await asyncio.to_thread(pool.blocking.get, "a") == b"1"
            await admin.client().client_kill_filter(_type="normal", skipme=True)


@pytest.fixture
def start_server(tmp_path):
    """Start a server of the test's own with options, return its URL, and end it."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    where = urlsplit(engine.url)

    def start(*options):
        with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
            for name, value in zip(options[::2], options[1::2], strict=True):
                connection.sendall(f"CONFIG SET {name.removeprefix('--')} {value}\r\n".encode())
                assert connection.recv(64).startswith(b"+OK")
        return f"redis://{where.hostname}:{where.port}"

    yield start
    engine.stop()
