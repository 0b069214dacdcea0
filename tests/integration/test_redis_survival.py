"""What a pool survives: a stopped server, full pools, outages under load, rotated passwords, a full house."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from redis.exceptions import AuthenticationError

from isp_perf.errors import NotSentError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import start_redis

DEADLINE = 0.2
NOISE = 0.3  # what a busy machine may add to a deadline; on an idle one every call ends within 0.22 s


def settings(url, **changes):
    """Settings with a short deadline."""
    return RedisSettings(url=url, **({"timeout": DEADLINE, "connect_timeout": 0.1} | changes))


async def ended(call):
    """Return how a call ended and how long it took."""
    started = time.perf_counter()
    try:
        outcome = await call
    except Exception as error:
        outcome = error
    return outcome, time.perf_counter() - started


async def until(condition):
    """Wait until an async condition holds."""
    for _ in range(300):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 6 s")


def calls_of(pool):
    """One call of every kind."""
    client = pool.client()
    return [
        pool.get("a"),
        pool.get_many(["a", "b"]),
        client.incr("n"),
        client.hgetall("h"),
        client.pipeline().incr("n").execute(),
        client.pipeline(transaction=False).get("a").execute(),
        client.blmove("none", "other", timeout=0.01),
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
def test_a_stopped_server_ends_every_call_in_time(redis_url, loop):
    """SIGSTOP: connections stay open and nothing answers; new ones are accepted by the kernel and answer nothing."""
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop", reason="no uvloop").run

    async def scenario():
        async with RedisPool(settings(redis_url)) as pool:
            await pool.set("a", b"1")
            await asyncio.gather(*calls_of(pool), return_exceptions=True)
            process_id = (await pool.client().info("server"))["process_id"]
            with stopped(process_id):
                for _ in range(2):  # on links that are up, then on new ones
                    for outcome, seconds in await asyncio.gather(*[ended(call) for call in calls_of(pool)]):
                        assert isinstance(outcome, RemoteError)
                        assert seconds < DEADLINE + NOISE
                health, seconds = await ended(pool.health())
                assert health.status == "unhealthy"
                assert seconds < DEADLINE + NOISE

            async def works():
                return await pool.get("a") == b"1"

            await until(lambda: quietly(works()))

    run(scenario())


async def quietly(call):
    """Return a call's answer, or nothing if it failed."""
    with contextlib.suppress(RemoteError):
        return await call


async def test_a_full_pool_of_dedicated_connections_ends_in_time(redis_url):
    """Whoever finds every connection lent learns in time that nothing was sent; the fast lane does not notice."""
    async with RedisPool(settings(redis_url, max_connections=2, connect_timeout=2.0)) as pool:
        await pool.set("a", b"1")
        holding = [asyncio.create_task(pool.client().blpop(["none"], timeout=2)) for _ in range(2)]
        await asyncio.sleep(0.1)
        (outcome, seconds), (value, _) = await asyncio.gather(
            ended(pool.client().blpop(["none"], timeout=1)), ended(pool.get("a"))
        )
        assert isinstance(outcome, NotSentError)
        assert seconds < DEADLINE + NOISE
        assert value == b"1"
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)


async def test_a_thousand_waiting_tasks_make_one_attempt_at_a_time():
    """While a port accepts and never answers, at most one connection of the lane is open at any moment."""
    opened = most = total = 0
    idle = asyncio.Event()

    async def accept(reader, writer):
        nonlocal opened, most, total
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
    async with server, RedisPool(settings(url, timeout=0.5, connect_timeout=0.05)) as pool:

        async def keep_asking():
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                outcome, _ = await ended(pool.get("a"))
                assert isinstance(outcome, NotSentError)
                await asyncio.sleep(0.05)

        await asyncio.gather(*[keep_asking() for _ in range(1_000)])
        assert most == 1
        assert 1 <= total < 60
    async with asyncio.timeout(5):
        await idle.wait()


async def test_a_rotated_password_is_said_and_healed(start_server):
    """Links that are up go on; new ones are refused by name until the server takes the password again."""
    url = start_server("--requirepass", "old")
    where = urlsplit(url)
    login = f"redis://:{{}}@{where.hostname}:{where.port}".format
    async with RedisPool(settings(login("old"), timeout=2.0)) as pool, RedisPool(settings(login("old"))) as admin:
        await pool.set("a", b"1")
        await admin.client().config_set("requirepass", "new")
        assert await pool.get("a") == b"1"
        await admin.client().client_kill_filter(_type="normal", skipme=True)
        outcome, _ = await ended(pool.get("a"))
        assert isinstance(outcome, NotSentError)
        assert isinstance(outcome, AuthenticationError)
        outcome, _ = await ended(asyncio.to_thread(pool.blocking.get, "a"))
        assert isinstance(outcome, AuthenticationError)
        assert "old" not in str(outcome)
        async with RedisPool(settings(login("new"), timeout=2.0)) as other:
            assert await other.get("a") == b"1"
        await admin.client().config_set("requirepass", "old")
        await until(lambda: quietly(pool.get("a")))
        await until(lambda: quietly(asyncio.to_thread(pool.blocking.get, "a")))


async def test_a_server_that_takes_no_more_clients_is_survived(start_server):
    """maxclients: the calls say that nothing was sent; as soon as there is room the pool is back by itself."""
    url = start_server()
    async with RedisPool(settings(url, timeout=2.0)) as admin, RedisPool(settings(url)) as pool:
        await admin.client().config_set("maxclients", 1)
        outcome, seconds = await ended(pool.get("a"))
        assert isinstance(outcome, NotSentError)
        assert seconds < DEADLINE + NOISE
        outcome, _ = await ended(asyncio.to_thread(pool.blocking.get, "a"))
        assert isinstance(outcome, NotSentError)
        await admin.client().config_set("maxclients", 100)
        await until(lambda: quietly(pool.set("a", b"1")))
        assert await pool.get("a") == b"1"
        await until(lambda: quietly(asyncio.to_thread(pool.blocking.get, "a")))


async def test_killed_clients_of_every_lane_are_replaced(redis_url):
    """CLIENT KILL of everything: reads go on without an error, on every lane and in threads."""
    patient = RedisSettings(url=redis_url, timeout=10.0, connect_timeout=5.0)
    async with RedisPool(patient) as pool, RedisPool(patient) as admin:
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
