"""A cold key and a thousand callers in four real processes: one load for the whole fleet."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import ExitStack

LOAD = 0.2
PROCESSES = 4
CALLER = textwrap.dedent("""
    import asyncio, json, sys, time
    from isp_perf.cache import CacheManager

    async def main(url, load):
        cache, loads = CacheManager(redis=url), []

        @cache.cached("x:{key}")
        async def read(key: str) -> str:
            loads.append(key)
            await asyncio.sleep(load)
            return key

        async def timed():
            started = time.perf_counter()
            assert await read("cold") == "cold"
            return time.perf_counter() - started

        while await read("warm") and cache.health().l2 != "up":
            await asyncio.sleep(0.01)
        loads.clear()
        outages = cache.tally().outages
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        slowest = max(await asyncio.gather(*(timed() for _ in range(250))))
        tally = cache.tally()
        seen = {"loads": len(loads), "slowest": slowest, "outages": tally.outages - outages}
        print(json.dumps({**seen, "errors": dict(tally.remote_errors), "waits": tally.lease_waits}))
        await cache.aclose()

    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
""")


def test_four_processes_with_250_callers_each_load_once(redis_url):
    """A thousand callers of one cold key share one load, and a healthy Redis is not given up, however busy all are."""
    command = [sys.executable, "-c", CALLER, redis_url, str(LOAD)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": os.environ}
    with ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(PROCESSES)]
        assert [child.stdout.readline().strip() for child in children] == ["ready"] * PROCESSES
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        seen = [json.loads(child.communicate(timeout=30)[0]) for child in children]
    assert [one["outages"] for one in seen] == [0] * PROCESSES, seen
    assert sum(one["loads"] for one in seen) == 1, seen
    slowest = max(one["slowest"] for one in seen)
    sys.stderr.write(f"slowest caller: load + {(slowest - LOAD) * 1000:.1f} ms; the bar is 20 on an idle machine\n")
