"""What invalidates: by key, by pattern, by tag; flows for both colours."""

from collections.abc import Callable, Iterable
from weakref import WeakSet

from isp_perf._core.globs import glob_pattern
from isp_perf._runtime.flights import Flight
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._local import Store
from isp_perf.cache._scope import forget_keys, forget_tags
from isp_perf.cache._site import Site

__all__ = ["Removal"]


class Removal:
    """The invalidations of one manager.

    Args:
        engine: the levels.
        sites: the decorated functions.
        store: what the user stored by key.

    Attributes:
        writes: writes in progress, by the key they write.
    """

    writes: dict[Flight, str]

    def __init__(self, engine: Engine, sites: "WeakSet[Site]", store: Store) -> None:
        self._engine = engine
        self._sites = sites
        self._store = store
        self.writes = {}

    def invalidate(self, keys: Iterable[str], *, tasks: bool) -> Flow:
        """Remove ``keys`` everywhere and return whether the remote level knows."""
        gone = tuple(dict.fromkeys(keys))
        self.remove_here(gone)
        second = self._engine.second
        if second is None or not gone:
            return True
        return (yield from second.drop(map(second.wire, gone), tasks=tasks))

    def remove_here(self, keys: Iterable[str]) -> None:
        """Remove ``keys`` from the local level; what is being loaded under them is not stored."""
        gone = dict.fromkeys(keys)
        local = self._engine.local
        with local.lock:
            self.detach_locked(gone.__contains__)
            for key in gone:
                entry = local.index_locked().get(key)
                if entry is not None:
                    local.invalidate_locked(entry)

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
        return (yield from self._engine.second.drop_pattern(glob, tasks=tasks))

    def clear(self, *, tasks: bool) -> Flow:
        """Remove everything of the namespace and return whether the remote level knows; O(1) there."""
        second, local = self._engine.second, self._engine.local
        with local.lock:
            self.supersede_all_locked()
            local.drop_all_locked()
        if second is None:
            return True
        # Without its version key the namespace has another version from the next use on: all values of it are misses.
        return (yield from second.drop((second.epoch_name,), tasks=tasks))

    def superseded(self, call: Call, *, tasks: bool) -> Flow:
        """Let no load of ``call`` that is in progress be stored, here or elsewhere, and no value be found."""
        key, second = call.key(), self._engine.second
        self.supersede(key)
        if second is not None and not call.source.local_only:
            yield from second.drop((second.wire(key),), tasks=tasks)

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
        second = self._engine.second
        if second is None or not gone:
            return True
        # Without its version key a tag has another version from the next use on: what carries the old one is a miss.
        return (yield from second.drop(map(second.tag_name, gone), tasks=tasks))

    def _detach_tagged_locked(self, gone: frozenset[str]) -> None:
        forget_tags(self._engine, gone)
        for store in self._stores():
            for slot, flight in list(store.flights.items()):
                if flight.tags & gone:
                    flight.attached = False
                    del store.flights[slot]
        for written in self._away():
            written.attached = written.attached and not written.tags & gone
        second = self._engine.second
        if second is not None:
            for tag in gone:
                second.marks.changed_locked(second.tag_name(tag))

    def detach_locked(self, gone: Callable[[str], bool]) -> None:
        """Detach every load and write in progress whose key is ``gone``: it may finish, and is not kept."""
        forget_keys(self._engine, gone)
        for store in self._stores():
            for slot, flight in list(store.flights.items()):
                if gone(store.owner.key_of(slot, store.token)):
                    flight.attached = False
                    del store.flights[slot]
        for written, key in self._away().items():
            if gone(key):
                written.attached = False
        second = self._engine.second
        if second is not None:
            second.marks.changed_where_locked(lambda name: gone(name.removeprefix(second.prefix)))

    def _stores(self) -> Iterable[Store]:
        return (self._store, *(store for site in self._sites for store in site.stores()))

    def _away(self) -> dict[Flight, str]:
        """Return the writes in progress, and the loads whose question has left, with their keys."""
        second = self._engine.second
        return self.writes | (second.sealed if second is not None else {})
