"""What a process still has to tell the remote level: the last intention for each key, bounded."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

__all__ = ["MOST_KEYS", "Journal"]

MOST_KEYS: Final = 100_000
_MOST_GLOBS: Final = 1_000
_CHUNK: Final = 100


class Journal:
    """Removals that could not be delivered, in the order in which they are to be delivered.

    More than it can hold is replaced by one: the removal of ``everything``, the version key of the namespace. It is
    not persisted: a process that is killed with a journal leaves what it could not deliver to write intents and ttl.

    Args:
        everything: the key whose removal makes all values of the namespace misses.
        limit: keys it holds at most.

    Attributes:
        moment: grows with everything that is added; what was added until now is at or before it.
        overflowed: how often it held more than it can.
    """

    __slots__ = ("_everything", "_globs", "_keys", "_limit", "_past", "moment", "overflowed")

    moment: int
    overflowed: int

    def __init__(self, everything: str, limit: int = MOST_KEYS) -> None:
        self._everything = everything
        self._limit = limit
        self._keys: dict[str, int] = {}
        self._globs: dict[str, int] = {}
        self._past: set[str] = set()
        self.moment = 0
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._keys) + len(self._globs)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def is_past(self, key: str) -> bool:
        """Return whether what the remote level has under ``key`` may be older than what was returned here."""
        return key in self._past

    def add(self, keys: Iterable[str], *, past: bool = False) -> None:
        """Note the removal of ``keys``; the newest stands last.

        Args:
            keys: what to remove.
            past: somebody was served past the remote level, so it is not to be asked for them before.
        """
        self.moment += 1
        for key in keys:
            self._keys.pop(key, None)
            self._keys[key] = self.moment
            if past:
                self._past.add(key)
        if len(self._keys) > self._limit:
            self._overflow()

    def add_glob(self, glob: str) -> None:
        """Note the removal of every key that matches ``glob``."""
        self.moment += 1
        self._globs[glob] = self.moment
        if len(self._globs) > _MOST_GLOBS:
            self._overflow()

    def _overflow(self) -> None:
        self.overflowed += 1
        self._keys, self._globs, self._past = {self._everything: self.moment}, {}, set()

    def chunk(self, chunks: int = 1) -> tuple[str, ...]:
        """Return the next keys to deliver, 100 of them per chunk at most; they stay until ``delivered``."""
        return tuple(islice(self._keys, chunks * _CHUNK))

    def globs(self) -> tuple[str, ...]:
        """Return the patterns to deliver."""
        return tuple(self._globs)

    def delivered(self, keys: Iterable[str], globs: Iterable[str] = (), *, sent: int | None = None) -> None:
        """Take note that ``keys`` and ``globs`` were removed.

        Args:
            keys: keys that were removed.
            globs: patterns whose keys were removed.
            sent: the ``moment`` when that was asked for: what was added again since stays. Default: now.
        """
        until = self.moment if sent is None else sent
        for key in keys:
            if self._keys.get(key, until + 1) <= until:
                del self._keys[key]
                self._past.discard(key)
        for glob in globs:
            if self._globs.get(glob, until + 1) <= until:
                del self._globs[glob]
