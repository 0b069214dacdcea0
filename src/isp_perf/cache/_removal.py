"""What invalidates: by key, by pattern, by tag; flows for both colours."""

from collections.abc import Callable, Iterable
from weakref import WeakSet

from isp_perf._core.globs import glob_pattern
from isp_perf._runtime.flights import Flight
from isp_perf.cache._engine import Engine
from isp_perf.cache._exchange import Flow
from isp_perf.cache._local import Store
from isp_perf.cache._scope import forget_keys, forget_tags
from isp_perf.cache._site import Site
from isp_perf.cache._tags import version_key

__all__ = ["Removal"]


class Removal:
    """The invalidations of one manager.

    Args:
        engine: the levels.
        sites: the decorated functions.
        store: what the user stored by key.

    Attributes:
        epoch: changes with each removal: who reads without a flight compares it before and after.
        writes: writes in progress, by the key they write.
    """

    epoch: int
    writes: dict[Flight, str]

    def __init__(self, engine: Engine, sites: "WeakSet[Site]", store: Store) -> None:
        self._engine = engine
        self._sites = sites
        self._store = store
        self.writes = {}
        self.epoch = 0

    def invalidate(self, keys: Iterable[str], *, tasks: bool) -> Flow:
        """Remove ``keys`` everywhere and return whether the remote level knows."""
        gone = dict.fromkeys(keys)
        local = self._engine.local
        with local.lock:
            self.detach_locked(gone.__contains__)
            for key in gone:
                entry = local.index_locked().get(key)
                if entry is not None:
                    local.invalidate_locked(entry)
        if self._engine.second is None or not gone:
            return True
        return (yield from self._engine.second.delete(self._engine.ops(tasks=tasks), gone))

    def invalidate_pattern(self, glob: str, *, tasks: bool) -> Flow:
        """Remove every key that matches the Redis glob and return whether the remote level knows."""
        matches = glob_pattern(glob).fullmatch
        local = self._engine.local
        with local.lock:
            self.detach_locked(lambda key: matches(key) is not None)
            for entry in local.living_locked():
                if matches(local.key_of(entry)):
                    local.invalidate_locked(entry)
        if self._engine.second is None:
            return True
        return (yield from self._engine.second.delete_pattern(self._engine.ops(tasks=tasks), glob))

    def supersede(self, key: str) -> None:
        """Let no load of ``key`` that is in progress be stored."""
        with self._engine.local.lock:
            self.detach_locked({key}.__contains__)

    def supersede_all_locked(self) -> None:
        """Let nothing that is in progress be stored."""
        self.detach_locked(lambda _: True)

    def invalidate_tags(self, tags: Iterable[str], *, tasks: bool) -> Flow:
        """Remove everything that has one of ``tags`` and return whether the remote level knows."""
        gone = frozenset(tags)
        local = self._engine.local
        with local.lock:
            self._detach_tagged_locked(gone)
            for tag in gone:
                for entry in list(local.tagged.get(tag, ())):
                    local.invalidate_locked(entry)
        if self._engine.second is None or not gone:
            return True
        # Without its version key a tag has another version from the next use on: what carries the old one is a miss.
        ops = self._engine.ops(tasks=tasks)
        return (yield from self._engine.second.delete(ops, [version_key(tag) for tag in gone]))

    def _detach_tagged_locked(self, gone: frozenset[str]) -> None:
        self.epoch += 1
        forget_tags(self._engine, gone)
        for store in (self._store, *(store for site in self._sites for store in site.stores())):
            for slot, flight in list(store.flights.items()):
                if flight.tags & gone:
                    flight.attached = False
                    del store.flights[slot]
        for written in self.writes:
            written.attached = written.attached and not written.tags & gone

    def detach_locked(self, gone: Callable[[str], bool]) -> None:
        """Detach every load and write in progress whose key is ``gone``: it may finish, and is not kept."""
        self.epoch += 1
        forget_keys(self._engine, gone)
        for store in (self._store, *(store for site in self._sites for store in site.stores())):
            for slot, flight in list(store.flights.items()):
                if gone(store.owner.key_of(slot, store.token)):
                    flight.attached = False
                    del store.flights[slot]
        for written, key in list(self.writes.items()):
            if gone(key):
                written.attached = False
