"""The variant cache: compressed bodies kept by content, so that an equal body is compressed once.

A variant is found by the body itself. Python keeps the hash of a bytes object in the object, and equality is one
``memcmp``: there is no digest to compute and no collision to fear, and a body that a cache hands out as the same object
costs nothing to look up. A body is admitted when it is seen a second time; the first time leaves eight bytes behind.
"""

import os
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from isp_perf._core.cost import BEST_LEVELS, Choice
from isp_perf.compression._config import VariantCache
from isp_perf.compression._offload import step_back
from isp_perf.compression._stats import CompressionStats

__all__ = ["Variants"]

_GHOSTS: Final = 8192
_NICENESS: Final = 10
_MAX_WAITING: Final = 64
Encode = Callable[[Choice, bytes], tuple[bytes, float]]


class _Entry:
    """One variant, and how often it was wanted."""

    __slots__ = ("asked", "better", "choice", "coded", "hits")

    def __init__(self, choice: Choice, coded: bytes) -> None:
        self.choice = choice
        self.coded = coded
        self.hits = 0
        self.asked = False
        self.better: tuple[Choice, bytes] | None = None


class Variants:
    """A byte-bounded LRU of coded bodies. Belongs to one event loop; only the background upgrade runs elsewhere.

    Args:
        config: the limits.
        encode: encodes one body with one choice; called in the upgrade thread.
        stats: where to count.
    """

    def __init__(self, config: VariantCache, encode: Encode, stats: CompressionStats) -> None:
        self._config = config
        self._stats = stats
        self._entries: dict[tuple[str, bytes], _Entry] = {}
        self._ghosts = array("q", bytes(8 * _GHOSTS))
        self._bytes = 0
        self._upgrades = _Upgrades(encode)

    def serves(self, size: int, control: bytes | None, *, wish: bool | None) -> bool:
        """Say whether a body of ``size`` bytes under this Cache-Control may be kept and found.

        The time an answer takes tells whether its body was seen before, so what is private stays out.
        """
        if size > self._config.max_body or wish is False:
            return False
        if control is None or wish or self._config.private:
            return True
        lowered = control.lower()
        return b"private" not in lowered and b"no-store" not in lowered

    def find(self, candidates: Sequence[str], body: bytes) -> tuple[Choice, bytes] | None:
        """Return the variant of ``body`` in the first of these codings that is there."""
        entries = self._entries
        for coding in candidates:
            key = (coding, body)
            entry = entries.pop(key, None)
            if entry is not None:
                entries[key] = entry
                self._stats.cache_hits += 1
                return self._hit(entry, candidates[0], body)
        self._stats.cache_misses += 1
        return None

    def _hit(self, entry: _Entry, best: str, body: bytes) -> tuple[Choice, bytes]:
        entry.hits += 1
        if entry.better is not None:
            return self._swap(entry, entry.better, body)
        after = self._config.upgrade_after
        if after is not None and not entry.asked and entry.hits >= after:
            entry.asked = True
            self._upgrades.ask(entry, Choice(best, BEST_LEVELS[best], inline=False), body)
        return entry.choice, entry.coded

    def _swap(self, entry: _Entry, better: tuple[Choice, bytes], body: bytes) -> tuple[Choice, bytes]:
        """Put the upgraded variant into place, here on the event loop, where nothing can interfere."""
        entry.better = None
        choice, coded = better
        if len(coded) >= len(entry.coded):
            return entry.choice, entry.coded
        upgraded = _Entry(choice, coded)
        upgraded.asked = True
        self._store((choice.coding, body), upgraded)
        self._stats.cache_upgrades += 1
        return better

    def offer(self, choice: Choice, body: bytes, coded: bytes) -> None:
        """Keep a variant if its body was seen before; else remember that it was seen."""
        seen = hash((choice.coding, body))
        slot = seen % _GHOSTS
        if self._ghosts[slot] != seen:
            self._ghosts[slot] = seen
            return
        self._store((choice.coding, body), _Entry(choice, coded))

    def _store(self, key: tuple[str, bytes], entry: _Entry) -> None:
        entries = self._entries
        old = entries.pop(key, None)
        if old is not None:
            self._bytes -= len(key[1]) + len(old.coded)
        entries[key] = entry
        self._bytes += len(key[1]) + len(entry.coded)
        while self._bytes > self._config.max_bytes:
            oldest = next(iter(entries))
            self._bytes -= len(oldest[1]) + len(entries.pop(oldest).coded)
        self._stats.cache_bytes = self._bytes


class _Upgrades:
    """One background thread at most, at low priority, that recompresses what is wanted often. Dropped at exit."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._waiting: deque[tuple[_Entry, Choice, bytes]] = deque(maxlen=_MAX_WAITING)
        self._lock = threading.Lock()
        self._running = 0  # the process the thread runs in: a fork starts its own

    def ask(self, entry: _Entry, choice: Choice, body: bytes) -> None:
        """Queue one upgrade; the oldest are dropped if more than 64 wait."""
        self._waiting.append((entry, choice, body))
        with self._lock:
            idle = self._running != os.getpid()
            self._running = os.getpid()
        if idle:
            threading.Thread(target=self._work, name="isp_perf-upgrade", daemon=True).start()

    def _next(self) -> tuple[_Entry, Choice, bytes] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._running = 0
            return None

    def _work(self) -> None:
        step_back(_NICENESS)
        while (job := self._next()) is not None:
            entry, choice, body = job
            entry.better = (choice, self._encode(choice, body)[0])
