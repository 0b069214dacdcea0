"""Tells an observer what happened, outside every lock.

Events are read off the counters when a call has been answered: nothing is added to what they count, and each load,
eviction, expiration and invalidation is told once, those of one call together.
"""

import logging
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from isp_perf.cache._stats import Counters
from isp_perf.typing import Observer

__all__ = ["Events"]

_log: Final = logging.getLogger("isp_perf.cache")
_ANY_ERROR: Final = Exception  # an observer is user code, and never reaches the caller
_LEFT: Final = (
    ("cache.eviction", "evicted"),
    ("cache.expiration", "expired"),
    ("cache.invalidation", "invalidated"),
    ("cache.stale_hit", "stale_hits"),
)


class Events:
    """What one manager tells its observer.

    Args:
        observer: whom.
        name: the manager's.
        lock: guards the counters.
    """

    def __init__(self, observer: Observer, name: str, lock: Any) -> None:
        self._observer = observer
        self._name = name
        self._lock = lock
        self._failed = False
        self._told: WeakKeyDictionary[Counters, dict[str, float]] = WeakKeyDictionary()

    def start(self, counters: Counters) -> None:
        """Tell nothing of what was counted before."""
        self._new(counters, ("loads", "errors", "load_seconds", *(name for _, name in _LEFT)))

    def tell(self, counters: Counters, manager: Counters, label: str) -> None:
        """Tell of the loads of a function and of what has left since the last time."""
        with self._lock:
            loaded = self._new(counters, ("loads", "errors", "load_seconds"))
        if loaded["loads"]:
            seconds = loaded["load_seconds"]
            self._send("cache.load", function=label, count=loaded["loads"], failed=loaded["errors"], seconds=seconds)
        self.tell_left(manager)

    def tell_left(self, manager: Counters) -> None:
        """Tell of what has left since the last time."""
        with self._lock:
            left = self._new(manager, tuple(name for _, name in _LEFT))
        for event, name in _LEFT:
            if left[name]:
                self._send(event, count=left[name])

    def _new(self, counters: Counters, names: tuple[str, ...]) -> dict[str, float]:
        """Return what ``counters`` have more than was told of them."""
        told = self._told.setdefault(counters, {})
        read: Callable[[str], float] = counters.__getattribute__
        more = {name: read(name) - told.get(name, 0) for name in names}
        told.update({name: read(name) for name in names})
        return more

    def _send(self, event: str, **attributes: Any) -> None:
        try:
            self._observer.event(event, {"cache": self._name, **attributes})
        except _ANY_ERROR:
            if not self._failed:
                self._failed = True
                _log.exception(
                    "The observer of cache %r raised; it is told on, and this is not logged again", self._name
                )
