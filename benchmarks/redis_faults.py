"""What clients do under faults, side by side: `python benchmarks/redis_faults.py`. Prints the table of docs/redis.md.

Each client is asked for the same deadline of 0.2 s by its own settings. One run per cell: read a cell as "this class of
failure appears", not as a rate. A client that does not end within 5 s is cut off. Tests hold our column.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from urllib.parse import urlsplit

import redis.asyncio

from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import FaultProxy, start_redis

DEADLINE = 0.2
PATIENCE = 5.0


class Ours:
    name = "isp_perf"

    async def open(self, host, port):
        self.pool = RedisPool(RedisSettings(url=f"redis://{host}:{port}", timeout=DEADLINE, connect_timeout=DEADLINE))
        self.get, self.incr = self.pool.client().get, self.pool.client().incr
        self.blpop = lambda: self.pool.client().blpop(["none"], timeout=1)

    async def close(self):
        await self.pool.aclose()


class RedisPy:
    name = "redis-py"

    async def open(self, host, port):
        self.client = redis.asyncio.Redis(host=host, port=port, socket_timeout=DEADLINE, max_connections=30)
        self.get, self.incr = self.client.get, self.client.incr
        self.blpop = lambda: self.client.blpop(["none"], timeout=1)

    async def close(self):
        with contextlib.suppress(Exception):
            await self.client.aclose()


class Glide:
    name = "valkey-glide"

    async def open(self, host, port):
        from glide import GlideClient, GlideClientConfiguration, NodeAddress

        settings = GlideClientConfiguration([NodeAddress(host, port)], request_timeout=int(DEADLINE * 1000))
        self.client = await GlideClient.create(settings)
        self.get, self.incr = self.client.get, self.client.incr
        self.blpop = lambda: self.client.blpop(["none"], 1)

    async def close(self):
        await self.client.close()


async def ended(call):
    """Return how a call ended and after how many seconds."""
    started = time.perf_counter()
    (outcome,) = await asyncio.gather(asyncio.wait_for(call, PATIENCE), return_exceptions=True)
    return outcome, time.perf_counter() - started


async def dropped_connections(client, proxy, server):
    """INCR while connections are cut: the counter against what was acknowledged or reported."""
    before = int(await server.get("n") or 0)
    acknowledged = reported = 0
    done = False

    async def worker():
        nonlocal acknowledged, reported
        for _ in range(60):
            outcome, _ = await ended(client.incr("n"))
            if isinstance(outcome, int):
                acknowledged += 1
            else:
                reported += 1

    async def cutter():
        while not done:
            await asyncio.sleep(0.01)
            proxy.drop()

    cutting = asyncio.create_task(cutter())
    await asyncio.gather(*[worker() for _ in range(10)])
    done = True
    await cutting
    await asyncio.sleep(0.3)
    doubled = int(await server.get("n") or 0) - before - acknowledged - reported
    return f"{max(0, doubled)} silent doubles, {reported} reported of 600"


async def cancelled_calls(client, proxy, _server):
    """Half of 2,000 reads are cancelled: reconnects."""
    before = proxy.accepted
    for _ in range(20):
        tasks = [asyncio.ensure_future(client.get("a")) for _ in range(100)]
        await asyncio.sleep(0.001)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await ended(client.get("a"))
    return f"{proxy.accepted - before} reconnects"


async def swallowed(client, proxy, _server):
    """The network swallows everything."""
    proxy.blackhole()
    outcome, seconds = await ended(client.get("a"))
    return f"{seconds:.2f} s, {type(outcome).__name__}"


async def frozen(client, _proxy, server):
    """The server is stopped by SIGSTOP."""
    process_id = (await server.info("server"))["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    try:
        outcome, seconds = await ended(client.get("a"))
    finally:
        os.kill(process_id, signal.SIGCONT)
    return f"{seconds:.2f} s, {type(outcome).__name__}"


async def blocking_neighbour(client, _proxy, _server):
    """A GET beside a BLPOP of one second."""
    waiting = asyncio.ensure_future(client.blpop())
    await asyncio.sleep(0.05)
    outcome, seconds = await ended(client.get("a"))
    await asyncio.gather(waiting, return_exceptions=True)
    return f"{seconds * 1000:.0f} ms" + ("" if outcome == b"1" else f", {type(outcome).__name__}")


async def burst(client, _proxy, _server):
    """2,000 reads at once."""
    outcomes = await asyncio.gather(*[ended(client.get("a")) for _ in range(2_000)])
    failed = sum(isinstance(outcome, Exception) for outcome, _ in outcomes)
    return f"{failed} of 2,000 raise"


FAULTS = {
    "connections dropped under INCR": dropped_connections,
    "half of the callers cancelled": cancelled_calls,
    "network swallows everything, deadline 0.2 s": swallowed,
    "server stopped, deadline 0.2 s": frozen,
    "GET beside a BLPOP of 1 s": blocking_neighbour,
    "burst of 2,000 reads": burst,
}


async def cell(kind, fault, url):
    """Return what one client does under one fault."""
    where = urlsplit(url)
    server = redis.asyncio.Redis.from_url(url)
    await server.set("a", "1")
    client = kind()
    with FaultProxy(where.hostname, where.port) as proxy:
        await client.open(proxy.host, proxy.port)
        await client.get("a")
        answer = await fault(client, proxy, server)
        proxy.heal()
        await asyncio.gather(asyncio.wait_for(client.close(), PATIENCE), return_exceptions=True)
    await server.aclose()
    return answer


async def absent(kind):
    """Return how long the first use takes where nothing listens, and how long the event loop stood still."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        stall, last = 0.0, time.perf_counter()

        async def beat():
            nonlocal stall, last
            while True:
                await asyncio.sleep(0.005)
                now = time.perf_counter()
                stall, last = max(stall, now - last - 0.005), now

        beating = asyncio.create_task(beat())

        async def use():
            client = kind()
            await client.open("127.0.0.1", port)
            await client.get("a")

        _, seconds = await ended(use())
        beating.cancel()
        return f"{seconds * 1000:.0f} ms, loop stalled {stall * 1000:.0f} ms"


def second_loop(kind, url):
    """Return what a client of one event loop does in the next."""
    where, client = urlsplit(url), kind()

    async def first():
        await client.open(where.hostname, where.port)
        await client.get("a")

    async def second():
        outcome, _ = await ended(client.get("a"))
        return "works" if outcome == b"1" else type(outcome).__name__

    asyncio.run(first())
    return asyncio.run(second())


def main():
    engine = start_redis()
    if engine.url is None:
        sys.exit(f"no server: {engine.reason}")
    kinds = [Ours, RedisPy]
    try:
        import glide
    except ImportError:
        print("valkey-glide is not installed: its column is left out")
    else:
        glide.Logger.set_logger_config(glide.LogLevel.OFF)
        kinds.append(Glide)
    print(f"{engine.name} {engine.version}, redis-py {redis.__version__}")
    print("| fault | " + " | ".join(kind.name for kind in kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for name, fault in FAULTS.items():
        cells = [asyncio.run(cell(kind, fault, engine.url)) for kind in kinds]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print("| no server at start | " + " | ".join(asyncio.run(absent(kind)) for kind in kinds) + " |", flush=True)
    print("| second event loop | " + " | ".join(second_loop(kind, engine.url) for kind in kinds) + " |", flush=True)
    engine.stop()
    sys.stdout.flush()
    os._exit(0)  # a peer may leave threads behind that never end


if __name__ == "__main__":
    main()
