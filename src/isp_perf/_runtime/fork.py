"""Locks that survive ``os.fork``.

A child process has only the thread that forked. A lock that another thread held at that moment would stay held for
ever, so every lock handed to ``protect`` is taken before a fork and released after it, in both processes: the state
it guards is whole in the child. Preloading servers (gunicorn ``--preload``) fork with warm caches this way.
"""

import os
from collections.abc import Callable
from threading import RLock
from typing import Any
from weakref import WeakSet

__all__ = ["new_lock", "restart_in_child"]

_locks: "WeakSet[Any]" = WeakSet()
_held: list[Any] = []


def new_lock() -> Any:
    """Return a new re-entrant lock that is whole again in a forked child.

    Re-entrant, because the collector may run a user's finalizer, which may use the cache, while we hold it.
    """
    lock = RLock()
    _locks.add(lock)
    return lock


def restart_in_child(action: Callable[[], None]) -> None:
    """Run ``action`` in every forked child, for example to start a thread again."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


def _before() -> None:
    for lock in sorted(_locks, key=id):
        lock.acquire()
        _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
