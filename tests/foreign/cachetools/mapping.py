"""Our local level as a mapping of cachetools' kind, for the tests of cachetools."""

from collections.abc import MutableMapping
from time import monotonic

from isp_perf.cache._config import CachePolicy
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._room import Weighed
from isp_perf.cache._stats import Counters
from isp_perf.cache._store import Store, WeighedEntry

_MANY = 1_000_000
_ttl = 3600.0


class Owner:
    """Stands for a decorated function."""

    hit_clock = None

    def __init__(self):
        self.counters = Counters()
        self.policy = CachePolicy()

    def key_of(self, slot, token):
        return token + repr(slot)


class LocalMapping(MutableMapping):
    """A store of a local level with S3-FIFO, by weight."""

    _absent = object()

    def __init__(self, maxsize, getsizeof=None):
        if maxsize < 0:
            raise ValueError("maxsize")
        if getsizeof is not None:
            self.getsizeof = getsizeof
        self.maxsize = maxsize
        room = int(min(maxsize, _MANY))
        self._local = LocalLevel(max(1, room), monotonic)
        self._local._queue = Weighed(max(1, room), max(1, room), largest_share=1)
        self._local._set_plain()
        self._store = Store(Owner(), "")

    def getsizeof(self, value):
        return 1

    @property
    def currsize(self):
        return self._local.weight

    def __setitem__(self, key, value):
        size = self.getsizeof(value)
        if not 0 <= size <= self.maxsize:
            raise ValueError("value too large")
        entry = WeighedEntry.make(value, key, monotonic() + _ttl)
        entry.weight = size
        with self._local.lock:
            self._local._place_locked(self._store, entry, ttl=_ttl, native=True)

    def __getitem__(self, key):
        entry = self._store.hot.get(key)
        if entry is None:
            return self.__missing__(key)
        entry.hits += 1
        return entry.value

    def __missing__(self, key):
        raise KeyError(key)

    def __contains__(self, key):
        return key in self._store.hot

    def get(self, key, default=None):
        entry = self._store.hot.get(key)
        if entry is None:
            return default
        entry.hits += 1
        return entry.value

    def pop(self, key, default=_absent):
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default is self._absent:
            raise KeyError(key)
        return default

    def setdefault(self, key, default=None):
        if key not in self:
            self[key] = default
            return default
        return self[key]

    def popitem(self):
        if not self:
            raise KeyError("empty") from None
        key = next(iter(self._store.hot))
        return key, self.pop(key)

    def __delitem__(self, key):
        with self._local.lock:
            self._local.remove_locked(self._store.hot[key])

    def __iter__(self):
        return iter(list(self._store.hot))

    def __len__(self):
        return len(self._local)

    def __repr__(self):
        return f"{type(self).__name__}({self.maxsize})"

    def __reduce__(self):
        kept = {name: value for name, value in vars(self).items() if name not in {"_local", "_store"}}
        return _rebuilt, (type(self), self.maxsize, dict(self), kept)


def _rebuilt(kind, maxsize, items, kept):
    mapping = kind(maxsize)
    vars(mapping).update(kept)
    mapping.update(items)
    return mapping
