"""A miss with all that belongs to it, beside the peers: `python benchmarks/test_cache_miss.py [rounds]`.

Every key is new and the room is full, so each call derives a key, finds nothing, loads, stores, schedules the expiry
and evicts. Cases run interleaved in one process with the collector off; figures are CPU time of the thread, which other
load disturbs less than the clock on the wall; the loop and the loader itself are subtracted.
"""

import asyncio
import gc
import importlib
import statistics
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

import cachetools

from isp_perf.cache import CacheManager

ROOM = 5000
COUNT = 10_000
Case = Callable[[list[str]], float]
_numbers = count()


def fresh_keys(amount: int) -> list[str]:
    return [f"user{next(_numbers)}" for _ in range(amount)]


def plain(function) -> Case:
    def run(keys):
        started = time.thread_time()
        for key in keys:
            function(key)
        return time.thread_time() - started

    return run


def in_loop(function, loop) -> Case:
    async def run(keys):
        started = time.thread_time()
        for key in keys:
            await function(key)
        return time.thread_time() - started

    return lambda keys: loop.run_until_complete(run(keys))


def race(cases: dict[str, tuple[Case, int]], rounds: int) -> dict[str, float]:
    """Return the net microseconds per miss; the int is how many misses a round takes."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for run, amount in cases.values():
        run(fresh_keys(ROOM + amount))
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, (run, amount) in cases.items():
                spent[name].append(run(fresh_keys(amount)) / amount * 1e6)
            gc.collect()
    finally:
        gc.enable()
    medians = {name: statistics.median(values) for name, values in spent.items()}
    bare = {True: medians.pop("(bare await)"), False: medians.pop("(bare)")}
    return {name: value - bare[name.startswith("async")] for name, value in medians.items()}


def optional(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name}: not installed, skipped")
        return None


def async_peers(load, loop) -> dict[str, tuple[Case, int]]:
    found = {}
    if (module := optional("async_lru")) is not None:
        found["async-lru"] = module.alru_cache(maxsize=ROOM)(load)
        found["async-lru, ttl"] = module.alru_cache(maxsize=ROOM, ttl=300)(load)
    if (module := optional("aiocache")) is not None:
        found["aiocache"] = module.cached(ttl=300)(load)
    if (module := optional("cashews")) is not None:
        other = module.Cache()
        other.setup(f"mem://?size={ROOM}")
        found["cashews"] = other(ttl=300)(load)
    return {f"async {name}": (in_loop(function, loop), COUNT // 4) for name, function in found.items()}


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    loop = asyncio.new_event_loop()
    cache = CacheManager(max_entries=ROOM)

    def load(key: str) -> str:
        return key

    async def aload(key: str) -> str:
        return key

    def peer(kind, **options):
        return plain(cachetools.cached(kind, **options)(load))

    cases = {
        "(bare)": (plain(load), COUNT),
        "(bare await)": (in_loop(aload, loop), COUNT),
        "field": (plain(cache.cached("miss:{key}")(load)), COUNT),
        "hash": (plain(cache.cached("miss-hashed:{hash}")(load)), COUNT),
        "async field": (in_loop(cache.cached("miss-async:{key}")(aload), loop), COUNT),
        "TTLCache": (peer(cachetools.TTLCache(ROOM, 300)), COUNT),
        "TTLCache, lock": (peer(cachetools.TTLCache(ROOM, 300), lock=threading.RLock()), COUNT),
        "LRUCache": (peer(cachetools.LRUCache(ROOM)), COUNT),
    }
    figures = race(cases | async_peers(aload, loop), rounds)
    loop.close()
    rows = [
        ("plain miss, {field}, us", figures["field"], 2.5),
        ("plain miss, {hash}, us", figures["hash"], 2.5),
        ("async miss, {field}, us", figures["async field"], 2.5),
        ("plain miss / cachetools.TTLCache decorator", figures["field"] / figures["TTLCache"], 0.5),
        ("plain miss / the same with a lock", figures["field"] / figures["TTLCache, lock"], 0.5),
        ("plain miss / cachetools.LRUCache decorator", figures["field"] / figures["LRUCache"], float("inf")),
    ]
    peers = [name for name in figures if name.startswith("async ") and name != "async field"]
    rows += [(f"async miss / {name[6:]}", figures["async field"] / figures[name], 0.1) for name in peers]
    print(f"{'':52s}{'figure':>10s}{'limit':>10s}")
    for name, figure, limit in rows:
        print(f"{name:52s}{figure:10.3f}{limit:10.3f}  {'ok' if figure <= limit else 'OVER'}")
    return 0 if all(figure <= limit for _, figure, limit in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
