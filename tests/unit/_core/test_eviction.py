"""S3-FIFO with lazily folded hits."""

import array
import gzip
import random
import sys
from collections import OrderedDict, deque
from pathlib import Path

import pytest

from isp_perf._core.eviction import Entry, EvictionQueue


class Home:
    """A store with the queue in front of it."""

    salt = -(1 << 64)

    def __init__(self, capacity):
        self.entries = {}
        self.evicted = []
        self.queue = EvictionQueue(capacity)

    def drop(self, entry):
        del self.entries[entry.slot]
        entry.home = None
        self.evicted.append(entry.slot)

    def touch(self, key):
        entry = self.entries.get(key)
        if entry is not None:
            entry.hits += 1
            return
        entry = Entry.make(key, key, 0.0)
        entry.home = self
        leaving = self.queue.exchange(entry)
        if leaving is not None:
            self.drop(leaving)
        self.entries[key] = entry

    def remove(self, key):
        entry = self.entries.pop(key)
        entry.home = None
        self.queue.discard(entry)
        self.queue.sweep(8)


def textbook(trace, capacity):
    """S3-FIFO as published: the counter is capped at each hit. Returns the evicted keys in order."""
    small_size, ghost_size = max(1, capacity // 5), 2 * capacity
    main_size = max(1, capacity - small_size)
    count, small, main, ghost, evicted = {}, deque(), deque(), OrderedDict(), []

    def evict_main():
        while count[main[0]]:
            count[main[0]] -= 1
            main.rotate(-1)
        key = main.popleft()
        del count[key]
        evicted.append(key)

    def evict_small():
        key = small.popleft()
        if count[key] > 1:
            count[key] = 0
            main.append(key)
            if len(main) > main_size:
                evict_main()
            return
        del count[key]
        evicted.append(key)
        ghost[key] = None
        if len(ghost) > ghost_size:
            ghost.popitem(last=False)

    for key in trace:
        if key in count:
            count[key] = min(3, count[key] + 1)
            continue
        while len(small) + len(main) >= capacity:
            evict_small() if len(small) >= small_size or not main else evict_main()
        count[key] = 0
        if key in ghost:
            del ghost[key]
            main.append(key)
        else:
            small.append(key)
    return evicted


@pytest.mark.parametrize("capacity", [1, 2, 16, 100, 1000])
def test_lazy_folding_evicts_what_the_textbook_form_does(capacity):
    """Counting now and folding later gives the same evictions in the same order."""
    rnd = random.Random(capacity)
    trace = [int(rnd.paretovariate(0.6)) % 5000 for _ in range(40_000)]
    home = Home(capacity)
    for key in trace:
        home.touch(key)
    assert home.evicted == textbook(trace, capacity)
    assert len(home.queue) == len(home.entries) <= capacity


@pytest.mark.parametrize("capacity", [16, 100, 700, 3000])
def test_a_recorded_trace_evicts_what_the_textbook_form_does(capacity):
    """The same on requests of a real web shop (tests/data/cache)."""
    packed = Path(__file__).parents[2] / "data" / "cache" / "web12-20000.trace.gz"
    trace = array.array("i", gzip.decompress(packed.read_bytes()))
    if sys.byteorder == "little":
        trace.byteswap()
    home = Home(capacity)
    for key in trace:
        home.touch(key)
    assert len(trace) == 20_000
    assert home.evicted == textbook(trace, capacity)


@pytest.mark.parametrize("seed", range(6))
def test_short_streams_evict_what_the_textbook_form_does(seed):
    """The same on short streams over few keys, where ghosts come back all the time."""
    rnd = random.Random(seed)
    for capacity in range(1, 12):
        trace = [rnd.randrange(1, 3 * capacity + 2) for _ in range(2000)]
        home = Home(capacity)
        for key in trace:
            home.touch(key)
        assert home.evicted == textbook(trace, capacity)


def test_removed_entries_do_not_count_and_are_given_back():
    """Dead slots take no room and are compacted."""
    home = Home(100)
    for key in range(50_000):
        home.touch(key)
        if key % 2:
            home.remove(key)
    assert len(home.queue) == len(home.entries) == 99
    assert len(home.queue._small) + len(home.queue._main) <= 2 * (2 * 100 + 64)
    assert {entry.slot for entry in home.queue.living()} == set(home.entries)


def test_slots_of_one_hash_are_forgotten_together():
    """-1 and -2 have the same hash: the ghost knows them by one mark, and forgets it once, without an error."""
    home = Home(10)
    for key in (-1, -2, *range(200)):
        home.touch(key)
    assert home.evicted[:2] == [-1, -2]
    assert not home.queue.remembers(hash(-1) + home.salt)


def test_ghosts_are_bounded():
    """The ghost remembers twice the capacity and no more, also when keys come back."""
    home = Home(10)
    rnd = random.Random(5)
    for _ in range(20_000):
        home.touch(rnd.randrange(60))
    assert len(home.queue._ghost) <= 20
    assert len(home.queue._order) <= 2 * 20 + 64 + 1
    assert home.queue.ghost_hits > 0
