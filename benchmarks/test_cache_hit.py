"""The warm hit, side by side with hand-written memos and the peers: `python benchmarks/test_cache_hit.py [rounds]`.

All cases of a table run interleaved in one process with the collector off; the cost of the bare loop is subtracted;
medians of the thread's CPU time are compared as ratios, since absolute figures of a shared machine mean little.
"""

import asyncio
import functools
import gc
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from time import monotonic

from isp_perf.cache import CacheManager

COUNT = 1000
KEYS = [f"user{number}" for number in range(COUNT)]
Case = Callable[[int], None]


def race(cases: dict[str, tuple[Case, int]], rounds: int) -> dict[str, float]:
    """Return the net nanoseconds per call of each case; the int is how many passes over the keys one round takes."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for run, passes in cases.values():
        run(passes)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, (run, passes) in cases.items():
                started = time.thread_time()
                run(passes)
                spent[name].append((time.thread_time() - started) / (passes * COUNT) * 1e9)
    finally:
        gc.enable()
    medians = {name: statistics.median(values) for name, values in spent.items()}
    empty = medians.pop("(loop)")
    return {name: value - empty for name, value in medians.items()}


def calls(function, shape="positional") -> Case:
    def positional(passes):
        for _ in range(passes):
            for key in KEYS:
                function(key)

    def keyword(passes):
        for _ in range(passes):
            for key in KEYS:
                function(user_id=key)

    def two(passes):
        for _ in range(passes):
            for key in KEYS:
                function(key, 7)

    return {"positional": positional, "keyword": keyword, "two": two}[shape]


def bare_loop(passes):
    for _ in range(passes):
        for _key in KEYS:
            pass


def awaits(function, loop) -> Case:
    async def run(passes):
        for _ in range(passes):
            for key in KEYS:
                await function(key)

    return lambda passes: loop.run_until_complete(run(passes))


def memo_of(load):
    memo = {}

    def hand(user_id):
        found = memo.get(user_id)
        if found is not None and found[1] > monotonic():
            return found[0]
        value = load(user_id)
        memo[user_id] = (value, monotonic() + 600)
        return value

    return hand


def memo_of_two(load):
    memo = {}

    def hand(user_id, kind):
        found = memo.get((user_id, kind))
        if found is not None and found[1] > monotonic():
            return found[0]
        value = load(user_id)
        memo[user_id, kind] = (value, monotonic() + 600)
        return value

    return hand


def async_memo_of(load):
    memo = {}

    async def hand(user_id):
        found = memo.get(user_id)
        if found is not None and found[1] > monotonic():
            return found[0]
        value = await load(user_id)
        memo[user_id] = (value, monotonic() + 600)
        return value

    return hand


def sync_table(rounds: int) -> list[tuple[str, float, float]]:
    cache = CacheManager(max_entries=100_000)

    def load(user_id: str) -> dict:
        return {"id": user_id}

    @cache.cached("bench:{hash}", ttl=600)
    def hashed(user_id: str) -> dict:
        return load(user_id)

    @cache.cached("bench-field:{user_id}", ttl=600)
    def field(user_id: str) -> dict:
        return load(user_id)

    @cache.cached("bench-two:{user_id}:{kind}", ttl=600)
    def two(user_id: str, kind: int) -> dict:
        return load(user_id)

    @cache.cached("bench-two-hashed:{hash}", ttl=600)
    def two_hashed(user_id: str, kind: int) -> dict:
        return load(user_id)

    class Reader:
        @cache.cached("bench-method:{hash}", ttl=600)
        def method(self, user_id: str) -> dict:
            return load(user_id)

    lru = functools.lru_cache(8192)(load)
    reader = Reader()
    figures = race(
        {
            "(loop)": (bare_loop, 10),
            "hand": (calls(memo_of(load)), 10),
            "lru": (calls(lru), 10),
            "hashed": (calls(hashed), 10),
            "field": (calls(field), 10),
            "lru keyword": (calls(lru, "keyword"), 10),
            "keyword": (calls(field, "keyword"), 10),
            "hashed keyword": (calls(hashed, "keyword"), 10),
            "hand two": (calls(memo_of_two(load), "two"), 10),
            "two": (calls(two, "two"), 10),
            "two hashed": (calls(two_hashed, "two"), 10),
            "method": (calls(reader.method), 10),
        },
        rounds,
    )
    return [
        ("sync hit, {hash} / hand-written memo", figures["hashed"] / figures["hand"], 0.60),
        ("sync hit, {field} / hand-written memo", figures["field"] / figures["hand"], 0.60),
        ("sync hit, {field} / functools.lru_cache", figures["field"] / figures["lru"], 1.3),
        ("sync hit, {hash} / functools.lru_cache", figures["hashed"] / figures["lru"], 1.3),
        ("sync hit by keyword, {field} / lru_cache by keyword", figures["keyword"] / figures["lru keyword"], 0.5),
        ("sync hit by keyword, {hash} / lru_cache by keyword", figures["hashed keyword"] / figures["lru keyword"], 0.5),
        ("two fields / hand-written memo of two", figures["two"] / figures["hand two"], 1.0),
        ("two arguments, {hash} / hand-written memo of two", figures["two hashed"] / figures["hand two"], 1.0),
        ("method, {hash} / hand-written memo of two", figures["method"] / figures["hand two"], 1.0),
    ]


def async_table(rounds: int) -> list[tuple[str, float, float]]:
    loop = asyncio.new_event_loop()
    cache = CacheManager(max_entries=100_000)

    async def load(user_id: str) -> dict:
        return {"id": user_id}

    @cache.cached("bench-async:{hash}", ttl=600)
    async def hashed(user_id: str) -> dict:
        return await load(user_id)

    @cache.cached("bench-async-field:{user_id}", ttl=600)
    async def field(user_id: str) -> dict:
        return await load(user_id)

    cases = {
        "(loop)": (bare_loop, 10),
        "hand": (awaits(async_memo_of(load), loop), 10),
        "hashed": (awaits(hashed, loop), 10),
        "field": (awaits(field, loop), 10),
    }
    cases |= {name: (awaits(function, loop), passes) for name, (function, passes) in peers(load).items()}
    figures = race(cases, rounds)
    loop.close()
    limits = {"async-lru": 1 / 5.5, "aiocache": 1 / 100, "cashews": 1 / 200}
    rows = [
        ("async hit, {field} / hand-written async memo", figures["field"] / figures["hand"], 0.70),
        ("async hit, {hash} / hand-written async memo", figures["hashed"] / figures["hand"], 0.70),
    ]
    for name, limit in limits.items():
        if name in figures:
            rows.append((f"async hit, {{hash}} / {name}", figures["hashed"] / figures[name], limit))
        else:
            print(f"{name}: not installed, skipped")
    return rows


def peers(load) -> dict:
    """Return the peers that are installed, each with an in-memory cache of the same content."""
    found = {}
    if (module := optional("async_lru")) is not None:
        found["async-lru"] = (module.alru_cache(maxsize=8192, ttl=600)(load), 5)
    if (module := optional("aiocache")) is not None:
        found["aiocache"] = (module.cached(ttl=600)(load), 1)
    if (module := optional("cashews")) is not None:
        other = module.Cache()
        other.setup("mem://?size=100000")
        found["cashews"] = (other(ttl=600)(load), 1)
    return found


def optional(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    rows = sync_table(rounds) + async_table(rounds)
    print(f"{'':52s}{'ratio':>10s}{'limit':>10s}  (and how many times faster)")
    for name, ratio, limit in rows:
        verdict = "ok" if ratio <= limit else "OVER"
        print(f"{name:52s}{ratio:10.4f}{limit:10.4f}  {1 / ratio:8.2f}x  {verdict}")
    return 0 if all(ratio <= limit for _, ratio, limit in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
