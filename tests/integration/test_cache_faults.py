"""The fault matrix of the cache: whatever happens to Redis, readers get right values, soon, and no error."""

import asyncio
import os
import signal
import time
from urllib.parse import urlsplit

import pytest

from isp_perf.cache import CacheManager
from isp_perf.cache._gate import MOST_LOADS
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import FaultProxy, start_redis


async def until(condition, seconds=5.0):
    """Wait until ``condition`` holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


class Service:
    """A manager behind a proxy, a function, and the truth it reads."""

    def __init__(self, cache, proxy=None):
        self.cache, self.proxy, self.truth, self.loads = cache, proxy, {}, 0
        self.read = cache.cached("n:{x}", ttl=60)(self._read)

    async def _read(self, x: int) -> int:
        self.loads += 1
        return self.truth.get(x, x)

    async def served(self, numbers):
        """Read each of ``numbers`` and return how long each took."""
        spent = []
        for x in numbers:
            started = time.perf_counter()
            assert await self.read(x) == self.truth.get(x, x)
            spent.append(time.perf_counter() - started)
        return spent

    def up(self):
        return self.cache.health().l2 == "up"


@pytest.fixture
async def service(redis_url):
    """A service whose connections can be harmed."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        settings = RedisSettings(url=f"redis://{proxy.host}:{proxy.port}{where.path}")
        async with RedisPool(settings) as pool:
            service = Service(CacheManager(redis=pool), proxy)
            await service.read(0)
            yield service
            await service.cache.aclose()


FAULTS = {
    "refused": lambda proxy: proxy.drop(refuse=True),
    "reset": lambda proxy: proxy.reset(refuse=True),
    "blackholed": lambda proxy: proxy.blackhole(),
    "answers lost": lambda proxy: proxy.blackhole(direction="down"),
    "half closed": lambda proxy: (proxy.half_close(), proxy.drop(refuse=True)),
    "slow by 300 ms": lambda proxy: proxy.latency(0.3),
    "flipped bits": lambda proxy: proxy.corrupt(3),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_readers_are_served_past_a_sick_redis(service, fault):
    """First call within 50 ms and a little, later ones at the loader's speed; back after the fault, and right."""
    FAULTS[fault](service.proxy)
    first, *rest = await service.served(range(1, 200))
    assert first < 0.3
    assert sorted(rest)[len(rest) // 2] < 0.005
    assert sum(rest) < 1.0
    service.truth[0] = -1
    receipt = await service.read.invalidate(0)
    assert await service.read(0) == -1
    if fault != "flipped bits":
        assert receipt.queued
    service.proxy.heal()
    await receipt.wait(5)
    await until(service.up)
    service.truth = {x: x + 1000 for x in range(1, 200)}
    await service.read.invalidate(7)
    assert await service.read(7) == 1007


async def test_tiny_slices_change_nothing(service):
    """Bytes that arrive one by one are the same bytes."""
    service.proxy.slice(1)
    await service.served(range(1, 10))
    assert service.cache.health().remote_errors == 0


async def test_back_soon_after_it_heals(service):
    """Redis is used again within 300 ms of its return, whatever time it was away."""
    service.proxy.drop(refuse=True)
    for _ in range(10):
        await service.read(1)
        await asyncio.sleep(0.05)
    assert not service.up()
    service.proxy.heal()
    healed = time.perf_counter()
    await until(service.up)
    assert time.perf_counter() - healed < 0.6


async def test_a_redis_that_was_never_there():
    """Without a server from the start every call is served, and nothing raises."""
    async with RedisPool("redis://127.0.0.1:1/0") as pool:
        service = Service(CacheManager(redis=pool))
        spent = await service.served(range(50))
        assert sum(spent) < 1
        assert service.cache.health().last_error_kind == "refused"
        assert (await service.read.invalidate(1)).queued
        await service.cache.aclose()


async def _waited(receipt):
    await receipt.wait(5)


def test_threads_are_served_past_a_sick_redis(redis_url):
    """Plain functions too: one wait at most, then the loader's speed, and back after it."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        cache = CacheManager(redis=f"redis://{proxy.host}:{proxy.port}{where.path}")
        loads = []

        @cache.cached("n:{x}")
        def read(x: int) -> int:
            loads.append(x)
            return x

        read(0)
        for fault in (proxy.blackhole, lambda: proxy.drop(refuse=True)):
            fault()
            started = time.perf_counter()
            assert [read(x) for x in range(1, 100)] == list(range(1, 100))
            assert time.perf_counter() - started < 1
            receipt = read.invalidate(0)
            assert receipt.queued
            proxy.heal()
            asyncio.run(_waited(receipt))
        asyncio.run(cache.aclose())


async def test_a_frozen_server_process():
    """A server that was stopped by a signal costs one wait; when it goes on, it is used again."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    try:
        async with RedisPool(engine.url) as pool:
            service = Service(CacheManager(redis=pool))
            await service.read(0)
            (info,) = await pool.client().run_raw([("INFO", "server")])
            pid = int(info.split(b"process_id:")[1].split()[0])
            os.kill(pid, signal.SIGSTOP)
            try:
                first, *rest = await service.served(range(1, 100))
                assert first < 0.3
                assert sum(rest) < 0.5
            finally:
                os.kill(pid, signal.SIGCONT)
            await until(service.up)
            await service.cache.aclose()
    finally:
        engine.stop()


REFUSALS = {
    "OOM": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
    "READONLY": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    "MASTERDOWN": (
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
    ),
    "NOPERM": (["ACL SETUSER default -evalsha -eval"], ["ACL SETUSER default +@all"]),
    "NOPERM to store": (["ACL SETUSER default -set"], ["ACL SETUSER default +@all"]),
    "NOAUTH": (["CONFIG SET requirepass secret", "CLIENT KILL TYPE normal"], ["CONFIG SET requirepass {}"]),
    "maxclients": (["CONFIG SET maxclients 1"], ["CONFIG SET maxclients 1000"]),
}


async def tell(pool, commands):
    """Send each of ``commands``; ``{}`` stands for an empty word."""
    for command in commands:
        await pool.client().execute_command(*(word.replace("{}", "") for word in command.split()))


@pytest.mark.both_servers
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_a_server_refuses_reaches_no_reader(redis_url, refusal):
    """Error replies of every kind cost readers nothing but the second level; afterwards it is used again."""
    begin, end = REFUSALS[refusal]
    async with RedisPool(redis_url) as admin, RedisPool(redis_url) as pool:
        await admin.client().ping()
        service = Service(CacheManager(redis=pool))
        if refusal != "maxclients":
            await service.read(0)
        await tell(admin, begin)
        try:
            spent = await service.served(range(1, 60))
            assert sum(spent) < 2
        finally:
            await tell(admin, end)
        await until(service.up)
        service.truth[3] = 33
        receipt = await service.read.invalidate(3)
        await receipt.wait(5)
        assert await service.read(3) == 33
        await service.cache.aclose()


async def test_a_server_that_is_loading_or_busy_is_left_alone(service):
    """A script that keeps the server busy counts as a failure, and readers go past it."""
    where = urlsplit(str(service.cache._engine.second.level.settings.url))
    async with RedisPool(f"redis://{where.hostname}:{where.port}{where.path}") as other:
        loop = "local n = 0 while n < 6e7 do n = n + 1 end return n"
        busy = asyncio.create_task(other.client().eval(loop, 0))
        await asyncio.sleep(0.05)
        first, *rest = await service.served(range(1, 100))
        assert first < 0.3
        assert sum(rest) < 0.5
        await asyncio.gather(busy, return_exceptions=True)
    await until(service.up)


async def test_loads_are_limited_while_redis_is_away(service):
    """The database sees one load per key, and 32 at a time, when the cache in front of it dies."""
    running, most, loads = 0, 0, []

    @service.cache.cached("slow:{x}")
    async def slow(x: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        loads.append(x)
        await asyncio.sleep(0.01)
        running -= 1
        return x

    service.proxy.drop(refuse=True)
    await service.read(1)
    calls = [slow(x) for x in range(100) for _ in range(5)]
    assert await asyncio.gather(*calls) == [x for x in range(100) for _ in range(5)]
    assert most == MOST_LOADS
    assert len(loads) == 100


@pytest.mark.both_servers
async def test_a_flushed_server_is_filled_again(service, redis_url):
    """FLUSHALL is a miss and nothing more; a load that was running is not stored."""
    gate = asyncio.Event()

    @service.cache.cached("gated:{x}")
    async def gated(x: int) -> int:
        await gate.wait()
        return x

    running = asyncio.create_task(gated(1))
    async with RedisPool(redis_url) as admin:
        await service.read(5)
        await admin.client().flushall()
        gate.set()
        assert await running == 1
        assert await service.read(5) == 5
        assert await admin.get("isp:1:gated:1") is None


async def test_a_restarted_server_with_older_data_is_noticed(redis_url):
    """What a server shows that came back without its last writes is not believed."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    where = urlsplit(str(engine.url))
    other = urlsplit(redis_url)
    async with RedisPool(engine.url) as first, RedisPool(redis_url) as second:
        with FaultProxy(where.hostname, where.port) as proxy:
            async with RedisPool(f"redis://{proxy.host}:{proxy.port}/0") as pool:
                service = Service(CacheManager(redis=pool, after_outage="trust"))
                await service.read(5)
                await until(lambda: service.cache._engine.second.identity)
                for key in ("isp:1:n:5", "isp:%epoch"):  # the other server has what this one had a while ago
                    await second.set(key, await first.get(key))
                service.truth[5] = 55
                proxy._server_address = (other.hostname, other.port)
                proxy.reset()
                await until(lambda: not service.up())
                await until(service.up)
                assert await service.read(5) == 55
                await service.cache.aclose()
    engine.stop()


async def test_what_was_invalidated_in_the_outage_is_replayed_first(service):
    """10,000 keys of an outage are removed before anything is believed, and no process reads them again."""
    await asyncio.gather(*(service.read(x) for x in range(2000)))
    service.proxy.drop(refuse=True)
    await until(lambda: not service.up())
    service.truth = {x: -x for x in range(2000)}
    receipts = await asyncio.gather(*(service.read.invalidate(x) for x in range(2000)))
    assert all(receipt.queued for receipt in receipts)
    assert service.cache.health().journal == 2000
    service.proxy.heal()
    await receipts[0].wait(5)
    assert await asyncio.gather(*(service.read(x) for x in range(2000))) == [-x for x in range(2000)]


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", b"\x80\x04\x95pickle", b'{"json": 1}', b"L", b"T", b"ip1" + bytes(200), b"\xc1" * 70_000],
)
async def test_hostile_bytes_are_a_miss(service, redis_url, data):
    """Bytes that this namespace did not write are loaded anew, replaced and counted; nothing raises."""
    async with RedisPool(redis_url) as admin:
        await admin.set("isp:1:n:9", data)
        assert await service.read(9) == 9
        assert sum(service.cache._engine.second.tally.rejected.values()) == 1
        assert (await admin.get("isp:1:n:9"))[:2] == b"\xe5i"
        moved = await admin.get("isp:1:n:9")
        await admin.set("isp:1:n:10", moved)
        assert await service.read(10) == 10


async def test_secrets_keep_out_what_was_not_sealed_with_them(redis_url):
    """With a secret, values of an unknown secret are skew: loaded, and left where they are."""
    async with RedisPool(redis_url) as pool:
        old, new = (Service(CacheManager(redis=pool, secret=secret * 16)) for secret in (b"o", b"n"))
        both = Service(CacheManager(redis=pool, secret=[b"n" * 16, b"o" * 16]))
        await old.read(1)
        sealed = await pool.get("isp:1:n:1")
        assert await new.read(1) == 1
        assert await pool.get("isp:1:n:1") == sealed
        assert new.cache._engine.second.tally.skew == 1
        assert await both.read(1) == 1
        assert both.loads == 0
        assert both.cache.health().authenticated
        for service in (old, new, both):
            await service.cache.aclose()


async def test_a_very_large_value_is_not_an_outage(service):
    """Ten megabytes are not stored remotely, five are, and neither takes the second level down."""

    @service.cache.cached("large:{size}")
    async def large(size: int) -> bytes:
        return os.urandom(size)

    for size in (5 << 20, 10 << 20):
        assert len(await large(size)) == size
    elsewhere = Service(CacheManager(redis=service.cache._engine.second.level))
    assert service.cache.health().l2 == "up"
    assert service.cache._engine.second.tally.too_large == 1
    await elsewhere.cache.aclose()


async def test_a_starved_event_loop_is_no_outage(service):
    """When our own loop was blocked, nothing of Redis is to blame, and the local level distrusts itself meanwhile."""
    await service.read(1)
    await service.read(1)
    pending = asyncio.create_task(service.read(2))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, 0.3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not service.cache.health().l1_trusted
    assert await pending == 2
    assert service.cache.health().remote_errors == 0
    await until(lambda: service.cache.health().l1_trusted)


async def test_a_first_connection_from_a_starved_event_loop_is_no_outage(redis_url):
    """While a program starts, its loop is blocked again and again; a Redis that answers at once is not given up."""
    async with RedisPool(RedisSettings(url=redis_url, connect_timeout=0.25)) as pool:
        service = Service(CacheManager(redis=pool))
        pending = asyncio.create_task(service.read(1))
        while not pending.done():
            asyncio.get_running_loop().call_soon(time.sleep, 0.07)
            await asyncio.sleep(0)
        assert await pending == 1
        assert service.cache.tally().remote_errors == {}
        await service.cache.aclose()


async def test_one_log_line_per_change(service, caplog):
    """An outage is one line when it begins and one when it ends, however many calls are made."""
    caplog.set_level("INFO", "isp_perf.cache")
    service.proxy.drop(refuse=True)
    await service.served(range(1, 100))
    service.proxy.heal()
    await until(service.up)
    assert len([record for record in caplog.records if record.name == "isp_perf.cache"]) == 2
