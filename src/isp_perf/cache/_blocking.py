"""The manager's operations for threads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, Protocol, Unpack

from isp_perf._core.ranges import whole
from isp_perf._runtime.drive import drive
from isp_perf.cache._config import CachePolicy, PolicyOptions, policy_with
from isp_perf.cache._decorator import unwrapped
from isp_perf.cache._engine import Engine
from isp_perf.cache._figures import CacheStats
from isp_perf.cache._hottest import read_calls, warm_calls_here, write_hottest
from isp_perf.cache._insight import CacheHealth, Explanation, HotKey, Insight
from isp_perf.cache._keyed import Keys
from isp_perf.cache._options import options_for
from isp_perf.cache._receipt import Receipt
from isp_perf.cache._report import WarmReport
from isp_perf.cache._warm import warm_here, warm_plan
from isp_perf.cache._writing import WriteIntent

__all__ = ["SyncCacheManager"]


class _Manager(Protocol):
    @property
    def policy(self) -> CachePolicy: ...

    def bypass(self) -> AbstractContextManager[None]: ...

    def request_scope(self) -> AbstractContextManager[None]: ...

    def stats(self) -> CacheStats: ...

    def writing(self, *keys: str) -> WriteIntent: ...

    def hot_keys(self, number: int = 10, *, keys: bool = False) -> list[HotKey]: ...

    def explain(self, key: str) -> Explanation: ...

    def health(self) -> CacheHealth: ...


class SyncCacheManager:
    """The operations of a ``CacheManager``, blocking: ``manager.sync``. The entries are the manager's own.

    A load that a thread leads is shared with tasks of the manager that ask for the same key, and the other way round.

    Args:
        manager: whose policy and statistics hold here.
        engine: its levels.
        keys: its operations.
        receipt: makes the receipt of an invalidation.
    """

    def __init__(self, manager: _Manager, engine: Engine, keys: Keys, *, receipt: Callable[[object], Receipt]) -> None:
        self._manager = manager
        self._engine = engine
        self._keys = keys
        self._receipt = receipt

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under the logical ``key`` from either level, or ``default``; loads nothing."""
        return drive(self._keys.read((key,), self._manager.policy, tasks=False)).get(key, default)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those ``keys`` that either level has; at most one round trip."""
        found: dict[str, Any] = drive(self._keys.read(keys, self._manager.policy, tasks=False))
        return found

    def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Sequence[str] = ()) -> None:
        """Store ``value`` under ``key`` in both levels.

        Args:
            key: the logical key.
            value: what to store.
            ttl: seconds >= 0; default: the manager's policy.
            tags: names under which it can be invalidated.
        """
        drive(self._keys.write(key, value, self._manager.policy, options=options_for(ttl, tags), tasks=False))

    def set_many(self, mapping: Mapping[str, Any], *, ttl: float | None = None) -> None:
        """Store each value of ``mapping`` under its key, for ``ttl`` seconds (>= 0; default: the manager's policy)."""
        flow = self._keys.write_many(mapping, self._manager.policy, options=options_for(ttl), tasks=False)
        unwrapped(drive(flow))

    def get_or_set(self, key: str, loader: Callable[[], Any], **policy: Unpack[PolicyOptions]) -> Any:
        """Return the value under ``key``, or what the plain function ``loader`` returns, which is then stored.

        Args:
            key: the logical key.
            loader: a function without arguments.
            **policy: fields of ``CachePolicy``.
        """
        chosen = policy_with(self._manager.policy, **policy)
        return unwrapped(drive(self._keys.fetch(key, loader, chosen, tasks=False)))

    def invalidate(self, *keys: str) -> Receipt:
        """Remove ``keys`` from both levels; a load of them that has begun is not stored."""
        return self._receipt(drive(self._keys.removal.invalidate(keys, tasks=False)))

    def delete(self, *keys: str) -> Receipt:
        """Remove ``keys`` from both levels, as ``invalidate`` does."""
        return self.invalidate(*keys)

    def invalidate_tags(self, *tags: str) -> Receipt:
        """Remove every value that has one of ``tags``."""
        return self._receipt(drive(self._keys.removal.invalidate_tags(tags, tasks=False)))

    def invalidate_pattern(self, glob: str) -> Receipt:
        """Remove every key that matches the Redis glob, such as ``"user:*"``."""
        return self._receipt(drive(self._keys.removal.invalidate_pattern(glob, tasks=False)))

    def clear(self) -> Receipt:
        """Remove everything of this namespace, whatever its schema; one command in Redis, whatever the number."""
        return self._receipt(drive(self._keys.removal.clear(tasks=False)))

    def bypass(self) -> AbstractContextManager[None]:
        """Return a context in which loaders are called every time; see ``CacheManager.bypass``."""
        return self._manager.bypass()

    def request_scope(self) -> AbstractContextManager[None]:
        """Return a context in which each key is read at most once; see ``CacheManager.request_scope``."""
        return self._manager.request_scope()

    def writing(self, *keys: str) -> WriteIntent:
        """Return a context manager for a change of what ``keys`` are loaded from; see ``CacheManager.writing``."""
        return self._manager.writing(*keys)

    def stats(self) -> CacheStats:
        """Return the manager's statistics."""
        return self._manager.stats()

    def hot_keys(self, number: int = 10, *, keys: bool = False) -> list[HotKey]:
        """Return the ``number`` (>= 1; default 10) entries that were read most; with ``keys``, the keys themselves."""
        return self._manager.hot_keys(number, keys=keys)

    def explain(self, key: str) -> Explanation:
        """Return what this process knows of a logical key."""
        return self._manager.explain(key)

    def health(self) -> CacheHealth:
        """Return the state of both levels."""
        return self._manager.health()

    def warm_cache(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        *,
        concurrency: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> WarmReport:
        """Load values before they are asked for, one after the other in this thread.

        Args:
            sources: as for ``CacheManager.warm_cache``; the loaders are plain functions.
            concurrency: 1; ``CacheManager.warm_cache`` can do more at a time.
            progress: called with (done, total) after each.

        Raises:
            ConfigurationError: a source without ``fetch_func``, an unknown field, another ``concurrency``.
        """
        whole("concurrency", concurrency, most=1)
        plans = {name: warm_plan(name, source, self._manager.policy) for name, source in sources.items()}
        return warm_here(self._keys, plans, progress=progress)

    def snapshot(self, path: str | PathLike[str], *, top: int = 1000) -> int:
        """Write the ``top`` (>= 1; default 1,000) calls to the file ``path``; see ``CacheManager.snapshot``."""
        return write_hottest(path, Insight(self._engine, self._keys).hottest(whole("top", top)))

    def warm_from(
        self,
        path: str | PathLike[str],
        *,
        concurrency: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> WarmReport:
        """Make the calls of plain functions that ``snapshot`` wrote, one after the other in this thread.

        Args:
            path: the file.
            concurrency: 1; ``CacheManager.warm_from`` can do more at a time.
            progress: called with (done, total) after each.
        """
        whole("concurrency", concurrency, most=1)
        return warm_calls_here(self._engine, read_calls(path, self._engine), progress)
