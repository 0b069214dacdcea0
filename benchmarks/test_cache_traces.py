"""Misses of our eviction policy over recorded traces: `python benchmarks/test_cache_traces.py [folder]`.

The traces are not part of this repository (their origins and licences differ; see the README beside them). For each
one, the first 300,000 requests, with room for 1, 5 and 20 % of the unique keys, at least 16. LRU and the optimum
(Belady's, which knows the future) stand beside ours. The Zipf stream needs no files.
"""

import array
import gzip
import heapq
import lzma
import random
import statistics
import sys
from bisect import bisect_left
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path

from isp_perf._core.eviction import Entry, EvictionQueue

FOLDERS = (Path(__file__).resolve().parents[2] / "shared" / "traces", Path("traces"))
INTEGERS = {"web07": "i", "web12": "i", "orm-busy": "i", "orm-night": "i", "corda_vaultservice": "q"}
REQUESTS = 300_000


class Home:
    """The one store of a simulation."""

    salt = -(1 << 64)


def load(path: Path) -> list[int]:
    """Return the first requests of a trace."""
    name = path.name.partition(".")[0]
    with (lzma.open if path.suffix == ".xz" else gzip.open)(path) as file:
        raw = file.read()
    if name in INTEGERS:
        keys = array.array(INTEGERS[name])
        keys.frombytes(raw[: len(raw) // keys.itemsize * keys.itemsize])
        if sys.byteorder == "little":
            keys.byteswap()
        return keys[:REQUESTS].tolist()
    if name == "adapt_size":
        return [int(line.split()[1]) for line in raw.splitlines()][:REQUESTS]
    return [int(word) for word in raw.split() if word.strip(b"-").isdigit()][:REQUESTS]


def ours(trace: list[int], room: int) -> int:
    """Return the hits of the queue that the cache uses."""
    queue, entries, home, hits = EvictionQueue(room), {}, Home(), 0
    for key in trace:
        entry = entries.get(key)
        if entry is not None:
            entry.hits += 1
            hits += 1
            continue
        entry = Entry.make(None, key, 0.0)
        entry.home = home
        leaving = queue.exchange(entry)
        if leaving is not None:
            del entries[leaving.slot]
            leaving.home = None
        entries[key] = entry
    return hits


def lru(trace: list[int], room: int) -> int:
    kept, hits = OrderedDict(), 0
    for key in trace:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
            continue
        if len(kept) >= room:
            kept.popitem(last=False)
        kept[key] = None
    return hits


def optimum(trace: list[int], room: int) -> int:
    """Evict what is asked for latest."""
    following, last = [0] * len(trace), {}
    for index in range(len(trace) - 1, -1, -1):
        following[index] = last.get(trace[index], len(trace))
        last[trace[index]] = index
    kept, queue, hits = {}, [], 0
    for index, key in enumerate(trace):
        if key in kept:
            hits += 1
        elif len(kept) >= room:
            while True:
                moment, other = heapq.heappop(queue)
                if kept.get(other) == -moment:
                    del kept[other]
                    break
        kept[key] = following[index]
        heapq.heappush(queue, (-following[index], key))
    return hits


def zipf(keys: int, requests: int) -> list[int]:
    """Return a stream in which the n-th key is asked for in proportion to 1/n."""
    rnd = random.Random(7)
    totals = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    return [bisect_left(totals, rnd.random() * totals[-1]) for _ in range(requests)]


def main() -> int:
    given = [Path(folder) for folder in sys.argv[1:2]]
    folder = next((folder for folder in (*given, *FOLDERS) if folder.is_dir()), None)
    ratios: list[float] = []
    if folder is None:
        print("no traces found: pass their folder; skipped")
    else:
        print(f"{'trace':24s}{'room':>8s}{'hits':>9s}{'LRU':>9s}{'misses/LRU':>12s}")
        for path in sorted(folder.glob("*.trace.*")):
            trace = load(path)
            for share in (0.01, 0.05, 0.2):
                room = max(16, int(len(set(trace)) * share))
                mine, theirs = ours(trace, room), lru(trace, room)
                ratios.append((len(trace) - mine) / (len(trace) - theirs))
                name = path.name.partition(".")[0]
                print(f"{name:24s}{room:8d}{mine / len(trace):9.2%}{theirs / len(trace):9.2%}{ratios[-1]:12.3f}")
    stream = zipf(100_000, 600_000)
    hits = ours(stream, 35_000) / len(stream)
    best = optimum(stream, 35_000) / len(stream)
    print(
        f"Zipf(1.0), 100,000 keys, room for 35 %: {hits:.2%} hits, LRU {lru(stream, 35_000) / len(stream):.2%}, "
        f"{hits / best:.1%} of the optimum"
    )
    rows = [("Zipf hit ratio", -hits, -0.85)]
    if ratios:
        rows += [("misses / LRU's, mean", statistics.mean(ratios), 0.955), ("  the same, worst", max(ratios), 1.20)]
    for name, figure, limit in rows:
        print(f"{name:52s}{abs(figure):10.3f}{abs(limit):10.3f}  {'ok' if figure <= limit else 'OVER'}")
    return 0 if all(figure <= limit for _, figure, limit in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
