"""Servers that answer, but with LOADING or MISCONF: readers are served, and the cache is back when the server is."""

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import hiredis
import pytest

from isp_perf.cache import CacheManager
from isp_perf.redis import RedisPool
from isp_perf.testing import start_redis


async def until(condition, seconds=5.0):
    """Wait until ``condition`` holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


class Front:
    """Stands before a real server; while it loads, every command is answered as a server answers that loads."""

    def __init__(self, url):
        self.where = urlsplit(url)
        self.loading = False
        self.writers = set()

    @asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}{self.where.path}"
        finally:
            server.close()
            self.restart(loading=False)

    def restart(self, *, loading):
        """End all connections, as a server's restart does."""
        self.loading = loading
        for writer in list(self.writers):
            writer.close()

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        try:
            if self.loading:
                await self._refuse(reader, writer)
            else:
                away, towards = await asyncio.open_connection(self.where.hostname, self.where.port)
                self.writers.add(towards)
                await asyncio.gather(self._pass(reader, towards), self._pass(away, writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def _refuse(self, reader, writer):
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while commands.gets() is not False:
                writer.write(b"-LOADING the server is loading the dataset in memory\r\n")

    async def _pass(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_a_server_that_loads_its_data_is_left_alone(redis_url):
    """After a restart a server says LOADING for a while: readers go past it, and it is used when it is ready."""
    front, truth = Front(redis_url), {}
    async with front.open() as url, RedisPool(url) as pool:
        cache = CacheManager(redis=pool)

        @cache.cached("n:{x}", ttl=60)
        async def read(x: int) -> int:
            return truth.get(x, x)

        await read(0)
        front.restart(loading=True)
        await asyncio.sleep(0.01)
        assert [await read(x) for x in range(50)] == list(range(50))
        await until(lambda: cache.health().last_error_kind == "loading")
        truth[7] = 70
        receipt = await read.invalidate(7)
        assert receipt.queued
        assert await read(7) == 70
        front.restart(loading=False)
        await receipt.wait(5)
        await until(lambda: cache.health().l2 == "up")
        assert await read(7) == 70
        await cache.aclose()


async def test_a_server_that_cannot_save_is_read_and_not_written():
    """MISCONF (its snapshots fail) refuses what is to be stored; what is there is read, and reads go on."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    try:
        async with RedisPool(engine.url) as admin, RedisPool(engine.url) as pool, RedisPool(engine.url) as other:
            cache, loads = CacheManager(redis=pool), []

            @cache.cached("n:{x}", ttl=60)
            async def read(x: int) -> int:
                loads.append(x)
                return x

            await read(0)
            client = admin.client()
            dump = Path((await client.config_get("dir"))["dir"]) / (await client.config_get("dbfilename"))["dbfilename"]
            dump.unlink(missing_ok=True)
            (dump / "in the way").mkdir(parents=True)
            await client.config_set("save", "3600 1000000")
            await client.config_set("stop-writes-on-bgsave-error", "yes")
            await client.execute_command("BGSAVE")
            for _ in range(400):
                if (await client.info("persistence"))["rdb_last_bgsave_status"] == "err":
                    break
                await asyncio.sleep(0.005)
            with pytest.raises(Exception, match="MISCONF"):
                await client.set("x", "y")
            assert [await read(x) for x in range(1, 30)] == list(range(1, 30))
            fresh = CacheManager(redis=other)

            @fresh.cached("n:{x}", ttl=60)
            async def again(x: int) -> int:
                return -x

            assert await again(0) == 0
            shutil.rmtree(dump)
            await client.config_set("stop-writes-on-bgsave-error", "no")
            await until(lambda: cache.health().l2 == "up")
            receipt = await read.invalidate(1)
            await receipt.wait(5)
            loads.clear()
            assert [await read(1), await read(1)] == [1, 1]
            assert loads == [1]
            await cache.aclose()
            await fresh.aclose()
    finally:
        engine.stop()
