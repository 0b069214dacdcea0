"""``RedisPool`` on a real server: its own methods, the drop-in clients, and what it survives."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import redis.exceptions
from redis.exceptions import ResponseError, WatchError

from isp_perf.errors import ConfigurationError, MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.typing import BlockingRemoteLevel, RemoteLevel


@pytest.fixture
async def pool(redis_url, patient):
    """A pool on the clean server."""
    async with RedisPool(patient(url=redis_url)) as pool:
        yield pool


@pytest.fixture
def closed_port():
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.fixture
def silent_port():
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


async def test_the_pool_is_a_remote_level(pool):
    """The cache's protocols are satisfied, blocking twin included."""
    assert isinstance(pool, RemoteLevel)
    assert isinstance(pool.blocking, BlockingRemoteLevel)


async def test_one_key_comes_and_goes(pool):
    """set, get and delete; an absent key is None; nx keeps what is there; str and bytes keys are one."""
    assert await pool.get("a") is None
    assert await pool.set("a", b"1") is True
    assert await pool.set(b"a", b"2", nx=True) is False
    assert await pool.get(b"a") == b"1"
    assert await pool.delete("a", "b") == 1


async def test_a_ttl_is_kept_by_the_server(pool):
    """The key expires after its ttl, to the millisecond."""
    await pool.set("a", b"1", ttl=999.999)
    assert 900_000 < await pool.client().pttl("a") <= 999_999


async def test_many_keys_come_and_go(pool):
    """Bulk methods carry thousands of keys, whatever their order."""
    items = {f"k:{i}": b"%d" % i for i in range(1_500)}
    assert (await pool.set_many(items, ttl=600, jitter=0.5)).errors == {}
    assert await pool.get_many([*items, "absent"]) == items
    assert await pool.mget(["k:2", "absent", "k:1"]) == [b"2", None, b"1"]
    assert (await pool.mset({"m": b"1"}, ttl=9)).stored == 1
    assert await pool.delete_many([*items, "absent"]) == 1_500


async def test_a_key_of_a_wrong_type_spoils_only_its_own_call(pool):
    """In the middle of concurrent calls, the one with the wrong type fails and nobody's reply shifts."""
    client = pool.client()
    await client.lpush("list", "x")
    assert (await pool.set_many({f"k{i}": b"%d" % i for i in range(10)})).errors == {}
    calls = [client.get(f"k{i}") for i in range(5)] + [client.get("list")] + [client.get(f"k{i}") for i in range(5, 10)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(replies.pop(5), ResponseError)
    assert replies == [b"%d" % i for i in range(10)]


async def test_an_argument_that_cannot_be_sent_shifts_nothing(pool):
    """It raises before anything is queued."""
    client = pool.client()
    good = [client.set("a", 1), client.set("b", None), client.get("a")]
    first, second, third = await asyncio.gather(*good, return_exceptions=True)
    assert (first, third) == (True, b"1")
    assert isinstance(second, redis.exceptions.DataError)


async def test_delete_pattern_counts_then_removes(pool):
    """A dry run only counts; the glob decides; a pattern for everything needs force."""
    assert (await pool.set_many({**{f"p:{i}": b"" for i in range(1_200)}, "other": b""})).errors == {}
    assert await pool.delete_pattern("p:*", dry_run=True) == 1_200
    assert await pool.delete_pattern("p:*") == 1_200
    with pytest.raises(ConfigurationError):
        await pool.delete_pattern("*")
    assert await pool.delete_pattern("*", force=True) == 1


async def test_commands_of_one_tick_share_a_write(pool):
    """A thousand concurrent calls need far fewer writes than commands, and each gets its own reply."""
    client = pool.client()
    assert (await pool.set_many({f"k{i}": b"%d" % i for i in range(1_000)})).errors == {}
    before = pool.stats().lanes["fast"].batches
    replies = await asyncio.gather(*[client.get(f"k{i}") for i in range(1_000)])
    assert replies == [b"%d" % i for i in range(1_000)]
    assert pool.stats().lanes["fast"].batches - before < 20
    assert pool.stats().lanes["fast"].connects == 1


async def test_a_blocking_command_delays_nobody(pool, until):
    """BLPOP has its own connection; a short command beside it is answered at once."""
    client = pool.client()
    blocked = asyncio.create_task(client.blpop(["queue"], timeout=100))
    await until(lambda: pool.stats().lanes["dedicated"].commands)
    await client.set("a", 1)
    assert not blocked.done()
    await client.rpush("queue", "x")
    assert await blocked == (b"queue", b"x")


async def test_a_blocking_command_may_block_longer_than_the_timeout(redis_url, until):
    """The time it may block on the server is added to its deadline; a machine that stalls has another chance."""
    async with RedisPool(RedisSettings(url=redis_url, timeout=0.3)) as pool:

        async def ends_without_an_error():
            return await pool.client().blpop(["nothing"], timeout=0.5) is None

        await until(ends_without_an_error)


@pytest.mark.parametrize("command", [("SELECT", 1), ("CLIENT REPLY", "OFF"), ("CLIENT", "REPLY", "OFF"), ("MULTI",)])
async def test_commands_that_would_break_a_shared_link_are_refused(pool, command):
    """A clear error at once, and the link goes on."""
    with pytest.raises(ConfigurationError):
        await pool.client().execute_command(*command)
    assert await pool.client().ping()


async def test_redis_pys_pipelines_keep_their_meaning(pool):
    """Transactions, errors in their place, WATCH, scripts and empty pipelines behave as in redis-py."""
    client = pool.client()
    assert await client.pipeline().set("a", 1).incr("a").execute() == [True, 2]
    async with client.pipeline(transaction=False) as pipe:
        mixed = await pipe.set("a", "x").incr("a").get("a").execute(raise_on_error=False)
    assert (mixed[0], mixed[2]) == (True, b"x")
    assert isinstance(mixed[1], ResponseError)
    with pytest.raises(ResponseError, match="Command # 2"):
        await client.pipeline().set("a", "x").incr("a").execute()
    assert await client.pipeline().execute() == []
    script = client.register_script("return ARGV[1]")
    pipe = client.pipeline()
    await script(args=["y"], client=pipe)
    assert await pipe.execute() == [b"y"]


async def test_a_watched_key_that_changes_aborts_the_transaction(pool):
    """WATCH has its own connection, so a write over the shared link is seen as another client's."""
    client = pool.client()
    await client.set("a", 1)
    async with client.pipeline() as pipe:
        await pipe.watch("a")
        await client.set("a", 2)
        pipe.multi()
        pipe.set("a", 3)
        with pytest.raises(WatchError):
            await pipe.execute()
    assert await client.get("a") == b"2"


async def test_the_pools_pipeline_sends_the_rest_when_left(pool):
    """Execute returns the results so far; leaving the block sends what was queued after it, a failure sends nothing."""
    async with pool.pipeline(limit=2) as pipe:
        for i in range(5):
            pipe.set(f"k{i}", i)
        assert await pipe.execute() == [True] * 5
        pipe.set("rest", 1)
    assert await pool.get("rest") == b"1"
    with contextlib.suppress(ZeroDivisionError):
        async with pool.pipeline() as pipe:
            pipe.set("never", 1 / 0)
    assert await pool.get("never") is None


async def test_the_pools_pipeline_collects_or_raises(pool):
    """Collect puts an error in its place; raise raises it after the rest was answered; a transaction is one block."""
    async with pool.pipeline(on_error="collect") as pipe:
        pipe.set("a", "x").incr("a").get("a")
        first, second, third = await pipe.execute()
    assert (first, third) == (True, b"x")
    assert isinstance(second, ResponseError)
    failing = pool.pipeline()
    failing.incr("a").set("after", 1)
    with pytest.raises(ResponseError):
        await failing.execute()
    assert await pool.get("after") == b"1"
    async with pool.pipeline(transaction=True) as pipe:
        pipe.set("a", 1).incr("a")
        assert await pipe.execute() == [True, 2]
    with pytest.raises(ConfigurationError):
        pool.pipeline(limit=0)


async def test_pubsub_of_redis_py_works(pool):
    """pubsub() listens on a connection of its own."""
    client = pool.client()
    async with client.pubsub() as listener:
        await listener.subscribe("news")
        assert (await listener.get_message(timeout=30))["type"] == "subscribe"
        await client.publish("news", "x")
        assert (await listener.get_message(timeout=30))["data"] == b"x"


async def test_threads_use_the_blocking_twin(pool):
    """Many threads read and write through one blocking client."""

    def work(i):
        pool.blocking.set(f"t{i}", b"%d" % i, ttl=60)
        return pool.blocking.get(f"t{i}")

    replies = await asyncio.gather(*[asyncio.to_thread(work, i) for i in range(20)])
    assert replies == [b"%d" % i for i in range(20)]
    level = pool.blocking
    assert await asyncio.to_thread(level.get_many, ["t1", "absent"]) == {"t1": b"1"}
    assert (await asyncio.to_thread(level.set_many, {"t1": b"", "u": b""})).stored == 2
    assert await asyncio.to_thread(level.delete_pattern, "t*") == 20
    assert await asyncio.to_thread(level.delete, "u", "v") == 1
    assert await asyncio.to_thread(pool.sync().info, "server")


async def test_health_and_stats_speak_of_a_healthy_pool(pool):
    """The seed's shape, and no further PING while there is traffic."""
    shape = (await pool.health()).as_dict()
    assert shape["status"] == "healthy"
    assert shape["ping_time_ms"] > 0
    created, available = shape["pool_info"]["created_connections"], shape["pool_info"]["available_connections"]
    assert 0 < available <= created
    before = pool.stats().commands
    await pool.health()
    assert pool.stats().commands == before


async def test_a_pool_without_a_server_is_disabled_and_honest():
    """Reads are absent, writes not stored, health says so, and what needs a server is a clear error."""
    async with RedisPool.from_env({"REDIS_URL": ""}) as pool:
        assert await pool.get("a") is None
        assert await pool.set("a", b"1") is False
        assert (await pool.get_many(["a"]), await pool.mget(["a"])) == ({}, [None])
        assert list((await pool.set_many({"a": b"1"})).errors) == ["a"]
        assert (await pool.delete("a"), await pool.delete_pattern("a*")) == (0, 0)
        assert pool.blocking.get("a") is None
        assert pool.blocking.set("a", b"1") is False
        assert (pool.blocking.get_many(["a"]), pool.blocking.delete("a")) == ({}, 0)
        assert (await pool.health()).as_dict()["pool_info"] == {"created_connections": 0, "available_connections": 0}
        assert (await pool.health()).status == "disabled"
        with pytest.raises(ConfigurationError):
            pool.client()


async def test_an_absent_server_fails_within_50_ms(closed_port):
    """The very first call says at once that nobody is there (the best of five pools: the machine may be busy)."""
    seconds = []
    for _ in range(5):
        async with RedisPool(f"redis://127.0.0.1:{closed_port}") as pool:
            pool.client()
            started = time.perf_counter()
            with pytest.raises(NotSentError):
                await pool.get("a")
            seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05


async def test_an_absent_server_fails_every_kind_of_call(closed_port):
    """Single, bulk, blocking and dedicated calls all say that nothing was sent, and health says why."""
    async with RedisPool(f"redis://127.0.0.1:{closed_port}") as pool:
        with pytest.raises(NotSentError) as caught:
            await pool.get("a")
        assert isinstance(caught.value, redis.exceptions.ConnectionError)
        assert caught.value.__cause__ is not None
        with pytest.raises(NotSentError) as caught:
            await pool.set("a", b"1")
        assert caught.value.retry_after >= 0
        assert len((await pool.set_many({"a": b"1", "b": b"2"})).errors) == 2
        shape = (await pool.health()).as_dict()
        assert (shape["status"], shape["ping_time_ms"]) == ("unhealthy", None)
        with pytest.raises(NotSentError):
            pool.blocking.get("a")
        with pytest.raises(NotSentError):
            await pool.client().blpop(["a"], timeout=1)


async def test_on_down_miss_never_raises_while_the_server_is_away(closed_port):
    """Reads answer as absent, writes as not stored."""
    async with RedisPool(RedisSettings(url=f"redis://127.0.0.1:{closed_port}", on_down="miss")) as pool:
        assert await pool.get("a") is None
        assert await pool.set("a", b"1") is False
        assert (await pool.get_many(["a"]), await pool.delete("a")) == ({}, 0)
        assert pool.blocking.get("a") is None
        assert pool.blocking.set("a", b"1") is False
        assert (pool.blocking.get_many(["a"]), pool.blocking.delete("a")) == ({}, 0)


async def test_a_server_that_never_answers_ends_within_the_deadline(silent_port, patient, in_time):
    """Connecting counts against the call's own timeout."""
    async with RedisPool(patient(url=f"redis://127.0.0.1:{silent_port}", timeout=0.2)) as pool:
        calls = (pool.get("a"), pool.client().set("a", 1), pool.client().blpop(["a"], timeout=0))
        outcomes = await in_time(0.2, *calls)
        assert all(isinstance(outcome, NotSentError) for outcome in outcomes)


async def answer_like_a_server(reader, writer, *, ended):
    """Speak just enough RESP3 for a handshake and a PING."""
    async for line in reader:
        word = line.strip()
        if word == b"HELLO":
            writer.write(b"%1\r\n+proto\r\n:3\r\n")
        elif word in {b"SETINFO", b"PING"}:
            writer.write(b"+PONG\r\n")
    writer.close()
    await writer.wait_closed()
    ended.set()


async def test_the_pool_comes_back_when_the_server_does(patient, until):
    """A background probe finds the server; nobody has to ask."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with RedisPool(patient(url=f"redis://127.0.0.1:{port}")) as pool:
        with pytest.raises(NotSentError):
            await pool.client().ping()
        ended = asyncio.Event()
        server = await asyncio.start_server(partial(answer_like_a_server, ended=ended), "127.0.0.1", port)
        await until(lambda: pool.stats().lanes["fast"].connects == 1)
        assert await pool.client().ping()
        assert (await pool.health()).status == "healthy"
    await ended.wait()
    server.close()


async def kill_links(pool):
    """Have the server close every connection but the one that asks."""
    admin = pool.sync()
    await asyncio.to_thread(admin.client_kill_filter, _type="normal", skipme=True)


async def test_a_lost_link_is_replaced_without_an_error(pool):
    """A read after the server closed the connection simply works."""
    await pool.set("a", b"1")
    await kill_links(pool)
    assert await pool.get("a") == b"1"
    assert await pool.client().incr("n") == 1


async def test_no_increment_runs_twice_when_connections_die(pool, until):
    """Under killed connections an INCR is executed once or reported: the counter never exceeds what was admitted."""
    client = pool.client()
    acknowledged = uncertain = 0

    async def worker():
        nonlocal acknowledged, uncertain
        for _ in range(40):
            try:
                await client.incr("n")
                acknowledged += 1
            except MaybeExecutedError:
                uncertain += 1
            except NotSentError:
                await asyncio.sleep(0.005)

    async def killer():
        for _ in range(10):
            await kill_links(pool)
            await asyncio.sleep(0.005)

    await asyncio.gather(killer(), *[worker() for _ in range(10)])
    await until(lambda: asyncio.to_thread(pool.sync().ping))
    counted = int(pool.sync().get("n"))
    assert acknowledged > 0
    assert acknowledged <= counted <= acknowledged + uncertain


async def test_cancelling_costs_no_connection_and_no_wrong_value(pool):
    """Two thousand calls of which half are cancelled: every answer belongs to its key, and the link stays."""
    client = pool.client()
    assert (await pool.set_many({f"k{i}": b"%d" % i for i in range(100)})).errors == {}

    async def read(i):
        return i, await client.get(f"k{i % 100}")

    for _ in range(4):
        tasks = [asyncio.create_task(read(i)) for i in range(500)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(done, BaseException):
                assert done[1] == b"%d" % (done[0] % 100)
    assert pool.stats().lanes["fast"].connects == 1


async def test_a_wrong_password_is_an_authentication_error(pool, redis_url, patient):
    """It is not disguised as an absent server, and never shows the password."""
    await pool.client().execute_command("ACL SETUSER", "guest", "on", ">right", "+@all", "~*")
    wrong = redis_url.replace("redis://", "redis://guest:hunter2@")
    async with RedisPool(patient(url=wrong)) as other:
        for call in (other.get("a"), other.client().blpop(["a"], timeout=1)):
            with pytest.raises(redis.exceptions.AuthenticationError) as caught:
                await call
            assert isinstance(caught.value, NotSentError)
            assert "hunter2" not in f"{caught.value} {caught.value!r}"
        with pytest.raises(redis.exceptions.AuthenticationError):
            other.blocking.get("a")
    await pool.client().execute_command("ACL DELUSER", "guest")


def test_one_pool_serves_several_event_loops(redis_url, patient):
    """A second asyncio.run finds the pool working, without a warning."""
    pool = RedisPool(patient(url=redis_url))

    async def use(value):
        await pool.client().set("a", value)
        return await pool.get("a")

    assert asyncio.run(use(1)) == b"1"
    assert asyncio.run(use(2)) == b"2"
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(use(3)) == b"3"
    loop.run_until_complete(pool.aclose())
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_connects_anew_and_the_parent_goes_on(redis_url):
    """The child never touches the parent's connection."""
    program = f"""
import asyncio, os
from isp_perf.redis import RedisPool, RedisSettings
pool = RedisPool(RedisSettings(url={redis_url!r}, timeout=30.0, connect_timeout=15.0))
async def use(value):
    await pool.client().set("k" + value, value)
    return await pool.get("k" + value)
async def main():
    assert await use("1") == b"1"
    parent = await pool.client().client_id()
    child = os.fork()
    if not child:
        try:
            asyncio._set_running_loop(None)
            assert asyncio.run(use("2")) == b"2"
            assert pool.blocking.get("k2") == b"2"
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert await use("3") == b"3"
    assert pool.stats().lanes["fast"].connects == 1
    await pool.aclose()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreter_ends_quietly_with_calls_in_flight(redis_url):
    """No traceback, no hang."""
    program = f"""
import asyncio
from isp_perf.redis import RedisPool, RedisSettings
pool = RedisPool(RedisSettings(url={redis_url!r}, timeout=30.0, connect_timeout=15.0))
async def main():
    await pool.set("a", b"1")
    asyncio.create_task(pool.client().blpop(["nothing"], timeout=0))
    for _ in range(100):
        asyncio.create_task(pool.get("a"))
    await asyncio.sleep(0)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_is_imported_without_redis_py():
    """A program that configures no Redis never loads the driver."""
    program = "import sys, isp_perf.redis; isp_perf.redis.RedisPool(); print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


async def test_the_errors_name_no_key_and_no_value(closed_port):
    """Messages tell command, node and phase only."""
    async with RedisPool(f"redis://127.0.0.1:{closed_port}") as pool:
        for call in (pool.set("secret-key", b"secret-value"), pool.get("secret-key")):
            with pytest.raises(NotSentError) as caught:
                await call
            assert "secret" not in f"{caught.value} {caught.value!r}"


async def test_threads_and_loops_share_one_pool(pool):
    """A loop in another thread has its own link."""
    await pool.set("a", b"1")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(pool.get("a"))))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert seen == [b"1"]
    assert pool.stats().lanes["fast"].connects == 2


async def test_coalesced_reads_equal_plain_ones(pool, redis_url, patient):
    """Programs of reads and writes of one tick answer alike with and without coalescing."""
    async with RedisPool(patient(url=redis_url, coalesce=True)) as joined:
        answers = []
        for each in (joined, pool):
            client = each.client()
            await client.flushdb()
            calls = []
            for i in range(300):
                key = f"k{i % 7}"
                calls.append(client.set(key, i) if i % 5 == 0 else client.get(key) if i % 3 else each.get(key))
            answers.append(await asyncio.gather(*calls))
        assert answers[0] == answers[1]
        writes = [each.stats().lanes["fast"].commands for each in (joined, pool)]
        assert writes[0] < writes[1]


async def test_closing_ends_calls_in_flight_and_leaves_nothing_open(redis_url, patient):
    """Whoever waits is told, no new link appears by itself, and a later call opens the pool again."""
    pool = RedisPool(patient(url=redis_url))
    await pool.set("a", b"1")
    calls = [asyncio.ensure_future(pool.get("a")) for _ in range(10)]
    writes = [asyncio.ensure_future(pool.client().incr("n")) for _ in range(10)]
    await asyncio.sleep(0)
    await pool.aclose()
    outcomes = await asyncio.gather(*calls, *writes, return_exceptions=True)
    assert all(isinstance(each, RemoteError) for each in outcomes)
    assert pool.stats().lanes["fast"].connects == 1
    assert await pool.get("a") == b"1"
    await pool.aclose()
