"""Memory and time of many entries: `python benchmarks/test_cache_memory.py`.

Bytes per entry, expiry of one and of 100,000 at once, a million inserts beyond the room, import and decoration. Figures
are absolute, so they hold for this machine and its load; ratios to a peer stand beside them where there is one.
"""

import gc
import os
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from unittest.mock import patch

import cachetools

from isp_perf._runtime.flights import Flight
from isp_perf.cache import CacheManager
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._store import Store

Row = tuple[str, float, float, str]
MANY = 100_000


def bytes_per_entry(fill: Callable[[], object], count: int) -> float:
    """Return what ``fill`` allocates beside keys and values that exist already, per entry."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = fill()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del held
    return used / count


def memory_rows() -> list[Row]:
    keys = [f"user{number}" for number in range(MANY)]
    more = [f"user{number}" for number in range(MANY, 4 * MANY)]
    value = {"id": 1}

    def ours(extra=()) -> object:
        cache = CacheManager(max_entries=MANY)

        @cache.cached("m:{key}", ttl=600)
        def load(key: str) -> dict:
            return value

        for key in keys:
            load(key)
        for key in extra:
            load(key)
        return cache, load

    def peer() -> object:
        cache = cachetools.TTLCache(MANY, 600)
        for key in keys:
            cache[key] = value
        return cache

    mine, turned, theirs = (
        bytes_per_entry(ours, MANY),
        bytes_per_entry(lambda: ours(more), MANY),
        bytes_per_entry(peer, MANY),
    )
    return [
        ("bytes per entry above key and value", mine, 165, f"cachetools.TTLCache {theirs:.0f}"),
        ("  the same / cachetools.TTLCache", mine / theirs, 0.76, ""),
        (
            "  after 300,000 evictions (two ghosts per entry)",
            turned,
            float("inf"),
            "the keys of later entries are older",
        ),
    ]


class Busy:
    """A thread that computes; remembers the longest time for which it did not run."""

    def __init__(self) -> None:
        self.going = True
        self.longest = 0.0
        self.since = 0.0

    def run(self) -> None:
        last = perf_counter()
        while self.going:
            now = perf_counter()
            if self.since and last > self.since:
                self.longest = max(self.longest, now - last)
            last = now


@contextmanager
def at_once(local: LocalLevel) -> Iterator[None]:
    """Let everything that is stored inside be stored at the same moment."""
    now = monotonic()
    with patch("isp_perf.cache._local.monotonic", lambda: now) as frozen:
        local.clock = frozen
        yield
    local.clock = monotonic


def landed(local: LocalLevel, store: Store, number: int) -> None:
    """Do what a miss does when its load has ended."""
    flight = Flight.make(number)
    flight.began = monotonic()
    store.flights[number] = flight
    with local.lock:
        local.keep_locked(store, flight, number)


def mass_expiry(*, staying: int) -> tuple[float, float]:
    """Return how late the last of 100,000 entries left, and the longest stall of the computing main thread, in ms.

    ``staying``: entries of the same function that are not due.
    """
    cache = CacheManager(max_entries=4 * MANY)
    ttl = 3.0

    @cache.cached("m:{number}", ttl=ttl)
    def load(number: int) -> int:
        return number

    load(-1)
    site = next(iter(cache._sites))
    local, hot = cache._engine.local, site.store.hot
    with local.lock:
        for number in range(MANY, MANY + staying):
            local.insert_locked(site.store, number, number, ttl=600, native=True)
        due = monotonic() + ttl
        with at_once(local):
            for number in range(MANY):
                local.insert_locked(site.store, number, number, ttl=ttl, native=True)
    busy = Busy()
    busy.since = perf_counter() + (due - monotonic()) - 0.05
    gone = [0.0]

    def watch() -> None:
        while len(hot) > staying:
            time.sleep(0.001)
        gone[0] = monotonic()
        time.sleep(0.3)
        busy.going = False

    threading.Thread(target=watch, daemon=True).start()
    busy.run()
    return (gone[0] - due) * 1e3, busy.longest * 1e3


def baseline_stall() -> float:
    """Return the longest stall in ms of a computing thread beside one that sleeps: the machine's own part."""
    busy = Busy()
    busy.since = perf_counter()
    threading.Timer(0.5, lambda: setattr(busy, "going", False)).start()
    busy.run()
    return busy.longest * 1e3


def expiry_rows() -> list[Row]:
    rows: list[Row] = []
    noise = statistics.median(baseline_stall() for _ in range(3))
    for staying in (0, MANY):
        runs = [mass_expiry(staying=staying) for _ in range(3)]
        of = "all of one function's entries" if not staying else "half of one function's entries"
        late, stall = (statistics.median(figures) for figures in zip(*runs, strict=True))
        rows.append((f"100,000 due at once, {of}, busy: last one late, ms", late, 100, ""))
        rows.append(("  the longest stall of the busy thread, ms", stall, 5, f"without any expiry {noise:.1f}"))
    for busy, limit in ((False, 10), (True, 20)):
        late = sorted(lateness(busy=busy))
        text = f"median {late[len(late) // 2]:.1f}"
        rows.append(
            (
                f"one entry, {'busy' if busy else 'idle'}: served after its end, worst of {len(late)}, ms",
                late[-1],
                limit,
                text,
            )
        )
    return rows


def lateness(*, busy: bool) -> list[float]:
    """Return for how many ms after their end entries were still served."""
    cache = CacheManager()

    @cache.cached("l:{number}", ttl=0.3)
    def load(number: int) -> int:
        return number

    hot = next(iter(cache._sites)).store.hot
    late = []
    for number in range(20):
        end = monotonic() + 0.3
        load(number)
        while number in hot:
            if busy:
                sum(range(50))
            else:
                time.sleep(0.0005)
        late.append((monotonic() - end) * 1e3)
    return late


def insert_rows() -> list[Row]:
    rows: list[Row] = []
    for room in (10_000, MANY):
        for collector in (False, True):
            each, pause = inserts(room, collector=collector)
            with_it = "on" if collector else "off"
            if not collector:
                rows.append((f"1,000,000 inserts into room for {room:,}: us of CPU each", each, 2.5, ""))
            rows.append((f"  longest batch of 100 above the mean, collector {with_it}, ms of CPU", pause, 5, ""))
    return rows


def inserts(room: int, *, collector: bool) -> tuple[float, float]:
    """Return microseconds of CPU per insert, and the longest pause in ms."""
    cache = CacheManager(max_entries=room)

    @cache.cached("i:{number}", ttl=600)
    def load(number: int) -> int:
        return number

    for number in range(3 * room):
        load(number)
    store, local = next(iter(cache._sites)).store, cache._engine.local
    batches = []
    gc.collect()
    if not collector:
        gc.disable()
    for start in range(3 * room, 3 * room + 1_000_000, 100):
        began = time.thread_time()
        for number in range(start, start + 100):
            landed(local, store, number)
        batches.append(time.thread_time() - began)
    gc.enable()
    return statistics.mean(batches) * 1e4, (max(batches) - statistics.mean(batches)) * 1e3


def start_rows() -> list[Row]:
    def took(statement: str) -> float:
        code = f"import asyncio,time;t=time.process_time();{statement};print((time.process_time()-t)*1e3)"
        compiled = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as it is installed: compiled by the first of them
        return min(float(subprocess.check_output([sys.executable, "-c", code], env=compiled)) for _ in range(7))

    cache = CacheManager()
    spent = []
    for number in range(200):

        def load(user_id: str, kind: int = 1) -> dict:
            return {}

        began = time.thread_time()
        cache.cached(f"d{number}:{{user_id}}")(load)
        spent.append((time.thread_time() - began) * 1e6)
    return [
        ("import isp_perf.cache over asyncio, ms, best of 7", took("import isp_perf.cache"), 15, ""),
        ("decorating one function, us", statistics.median(spent), 150, ""),
    ]


def main() -> int:
    rows = memory_rows() + start_rows() + insert_rows() + expiry_rows()
    print(f"{'':68s}{'figure':>10s}{'limit':>10s}")
    for name, figure, limit, note in rows:
        verdict = "ok" if figure <= limit else "OVER"
        print(f"{name:68s}{figure:10.2f}{limit:10.2f}  {verdict:5s}{note}")
    return 0 if all(figure <= limit for _, figure, limit, _ in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
