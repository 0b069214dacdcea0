"""The manager: configuration, the decorator, and everything done by key."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from os import PathLike
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast
from weakref import WeakSet, WeakValueDictionary

from isp_perf._core.ranges import whole
from isp_perf._runtime.drive import adrive
from isp_perf._runtime.resolve import remote_level
from isp_perf.cache._config import CachePolicy, PolicyOptions, policy_with
from isp_perf.cache._decorator import CacheDecorator, ManyDecorator, decorate, unwrapped
from isp_perf.cache._engine import Engine
from isp_perf.cache._keyed import Keys
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._options import ROOM, ManagerOptions, check_options, options_for
from isp_perf.cache._receipt import Receipt
from isp_perf.cache._scope import ModeContext
from isp_perf.cache._site import Site
from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.cache._asking import Asker
    from isp_perf.cache._blocking import SyncCacheManager
    from isp_perf.cache._figures import CacheStats, CacheTally
    from isp_perf.cache._insight import CacheHealth, Explanation, HotKey, Insight
    from isp_perf.cache._remote import SecondLevel
    from isp_perf.cache._report import WarmReport
    from isp_perf.cache._writing import WriteIntent
    from isp_perf.typing import RemoteLevel

__all__ = ["CacheManager", "managers"]

managers: WeakSet["CacheManager"] = WeakSet()
"""Every manager alive, for metrics."""

T = TypeVar("T")


class CacheManager:
    """A cache of two levels: this process's memory, and optionally Redis behind it.

    Args:
        name: a label, used in nothing but ``repr``; repeats are allowed.
        redis: a ``RedisPool`` or another ``RemoteLevel``, or a URL; default ``None``: local only.
        namespace: first part of every key in Redis; default ``"isp"``. Not empty, no colon.
        schema: second part; change it and all old entries are misses. Default 1.
        max_entries: room in the local level, >= 1; default 10,000. Eviction is S3-FIFO.
        max_bytes: room in the local level by weight, >= 1; default ``None``: no such limit.
        l1: a cache of the ``cachetools`` package that holds the local level in place of ours; default ``None``.
        policy: what holds where a function says nothing else.
        secret: one or several keys of 16 or more bytes (the first one signs, all verify); values in Redis are then
            signed, and unsigned ones are a miss. Default ``None``: unsigned.
        after_outage: ``"flush"`` (default): what Redis held during an outage is not believed after it; ``"trust"``:
            it is, but for the keys that this process invalidated meanwhile.
        observer: hears of loads, evictions and invalidations, outside every lock; default ``None``.
        clock: monotonic seconds; another clock than ``time.monotonic`` makes expiry exact, compared on each hit.

    Raises:
        ConfigurationError: a setting out of range.
    """

    def __init__(self, name: str = "default", **options: Unpack[ManagerOptions]) -> None:
        self.name = name
        self._options: ManagerOptions = {}
        self._engine = Engine(LocalLevel(ROOM, monotonic))
        self._sites: WeakSet[Site] = WeakSet()
        self._keys = Keys(self._engine, self._sites)
        self._templates: WeakValueDictionary[str, Site] = WeakValueDictionary()
        self._resolved: tuple[object, RemoteLevel | None] = (None, None)
        self.configure(**options)
        managers.add(self)

    def configure(self, **options: Unpack[ManagerOptions]) -> None:
        """Change settings, before or between uses; settings not given stay. Entries of the local level are dropped.

        Raises:
            ConfigurationError: a setting out of range; nothing has changed then.
        """
        chosen: ManagerOptions = {**self._options, **options}
        check_options(cast("Mapping[str, object]", chosen))
        clock = chosen.get("clock", monotonic)
        redis = chosen.get("redis")
        if self._resolved[0] is not redis:
            self._resolved = (redis, remote_level(redis))
        self._options = chosen
        namespace = chosen.get("namespace", "isp")
        engine, level = self._engine, self._resolved[1]
        with engine.local.lock:
            self._keys.removal.supersede_all_locked()
            engine.local.configure_locked(
                chosen.get("max_entries", ROOM), clock, max_bytes=chosen.get("max_bytes"), l1=chosen.get("l1")
            )
            if engine.second is not None:
                engine.second.leave()
            second = None if level is None else self._second(level)
            engine.attach(second, None if second is None else _asker(second))
            engine.prefix = namespace
            engine.wall = time if clock is monotonic else clock
        engine.observe(chosen.get("observer"), self.name)

    def _second(self, level: "RemoteLevel") -> "SecondLevel":
        from isp_perf.cache._remote import SecondLevel
        from isp_perf.cache._upkeep import keep

        options = self._options
        secret = options.get("secret") or ()
        return SecondLevel(
            level,
            self._engine.local,
            namespace=options.get("namespace", "isp"),
            schema=str(options.get("schema", 1)),
            secrets=(secret,) if isinstance(secret, bytes) else secret,
            flush=options.get("after_outage", "flush") == "flush",
            upkeep=keep,
            observer=options.get("observer"),
        )

    @property
    def policy(self) -> CachePolicy:
        """What holds where a function says nothing else."""
        return self._options.get("policy", _DEFAULTS)

    @property
    def sync(self) -> "SyncCacheManager":
        """The same operations for threads, over the same entries."""
        from isp_perf.cache._blocking import SyncCacheManager

        return SyncCacheManager(self, self._engine, self._keys, receipt=self._receipt)

    def cached(self, key: str | None = None, **policy: Unpack[PolicyOptions]) -> CacheDecorator:
        """Return a decorator that caches the results of a function.

        Args:
            key: template such as ``"user:{user_id}"``; ``{hash}`` stands for all arguments. Default: the function's
                qualified name and ``{hash}``.
            **policy: fields of ``CachePolicy``.

        Raises:
            ConfigurationError: when it decorates: a template that does not fit the function or belongs to another
                function, a policy out of range, a generator.
        """
        chosen = policy_with(self.policy, **policy)

        def decorator(function: Callable[..., Any], /) -> Any:
            return self._decorated(Site(self._engine, function, template=key, policy=chosen))

        return cast("CacheDecorator", decorator)

    def cached_many(self, key: str, **policy: Unpack[PolicyOptions]) -> ManyDecorator:
        """Return a decorator that makes a loader of many ids a cached function of one.

        The loader takes a list of ids and returns a dict: an id it leaves out is ``None`` (kept as ``cache_none``
        says), an id whose value is an exception fails alone. Concurrent single calls in one tick of the event loop
        become one call of the loader, of at most 1,000 ids, in a copy of the first caller's context; so do those of
        ``.many(ids)``. A plain function is called with one id for a single call, and with all missing ones for
        ``.many(ids)``.

        Args:
            key: template with one field, such as ``"user:{user_id}"``, the name of the parameter of single calls.
            **policy: fields of ``CachePolicy``.

        Raises:
            ConfigurationError: when it decorates: as for ``cached``, or a loader that does not take one list.
        """
        chosen = policy_with(self.policy, **policy)

        def decorator(function: Callable[..., Any], /) -> Any:
            from isp_perf.cache._batcher import batcher_for

            batcher = batcher_for(function, key, self._engine.local.lock)
            site = Site(self._engine, batcher.single, template=key, policy=chosen)
            site.batcher = batcher
            return self._decorated(site)

        return cast("ManyDecorator", decorator)

    def _decorated(self, site: Site) -> Any:
        self._refuse_rival(site)
        wrapper = site.wrapper()
        self._sites.add(site)
        self._engine.admit(site)
        return decorate(wrapper, site, self._keys, receipt=self._receipt)

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value under the logical ``key`` from either level, or ``default``; loads nothing."""
        return (await adrive(self._keys.read((key,), self.policy, tasks=True))).get(key, default)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those ``keys`` that either level has; at most one round trip."""
        found: dict[str, Any] = await adrive(self._keys.read(keys, self.policy, tasks=True))
        return found

    async def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Sequence[str] = ()) -> None:
        """Store ``value`` under ``key`` in both levels.

        A key of a cached function keeps what the function says: its ttl, windows, tags and codec.

        Args:
            key: the logical key.
            value: what to store.
            ttl: seconds >= 0; default: the policy of the manager, or of the function whose key it is.
            tags: names under which it can be invalidated, besides those of the function.

        Raises:
            ConfigurationError: a negative ttl; a key of a function that takes tags from arguments not in the key.
            CodecError: there is a remote level, and the value would not come back from it.
        """
        await adrive(self._keys.write(key, value, self.policy, options=options_for(ttl, tags), tasks=True))

    async def set_many(self, mapping: Mapping[str, Any], *, ttl: float | None = None) -> None:
        """Store each value of ``mapping`` under its key, for ``ttl`` seconds (>= 0; default: the manager's policy).

        All are written to Redis together. If one cannot be stored, the others are, and its error is raised.
        """
        flow = self._keys.write_many(mapping, self.policy, options=options_for(ttl), tasks=True)
        unwrapped(await adrive(flow))

    async def get_or_set(self, key: str, loader: Callable[[], Any], **policy: Unpack[PolicyOptions]) -> Any:
        """Return the value under ``key``, or what ``loader`` returns, which is then stored.

        Concurrent calls for one key share one load.

        Args:
            key: the logical key.
            loader: a function or coroutine function without arguments.
            **policy: fields of ``CachePolicy``.
        """
        chosen = policy_with(self.policy, **policy)
        return unwrapped(await adrive(self._keys.fetch(key, loader, chosen, tasks=True)))

    async def invalidate(self, *keys: str) -> Receipt:
        """Remove ``keys`` from both levels; a load of them that has begun is not stored."""
        return self._receipt(await adrive(self._keys.removal.invalidate(keys, tasks=True)))

    async def delete(self, *keys: str) -> Receipt:
        """Remove ``keys`` from both levels, as ``invalidate`` does."""
        return await self.invalidate(*keys)

    async def invalidate_pattern(self, glob: str) -> Receipt:
        """Remove every key that matches the Redis glob, such as ``"user:*"``; O(number of keys) in Redis."""
        return self._receipt(await adrive(self._keys.removal.invalidate_pattern(glob, tasks=True)))

    async def invalidate_tags(self, *tags: str) -> Receipt:
        """Remove every value that has one of ``tags``; one command in Redis, whatever their number."""
        return self._receipt(await adrive(self._keys.removal.invalidate_tags(tags, tasks=True)))

    async def clear(self) -> Receipt:
        """Remove everything of this namespace, whatever its schema; one command in Redis, whatever the number."""
        return self._receipt(await adrive(self._keys.removal.clear(tasks=True)))

    async def warm_cache(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        *,
        concurrency: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> "WarmReport":
        """Load values before they are asked for; each is stored under its name as key.

        Args:
            sources: ``{name: {"fetch_func": loader, "ttl": 3600, ...}}``; besides ``fetch_func``, fields of
                ``CachePolicy``. Loaders take no argument and may be coroutine functions.
            concurrency: loaders that run at a time, >= 1; default 8.
            progress: called with (done, total) after each.

        Raises:
            ConfigurationError: a source without ``fetch_func``, an unknown field, ``concurrency`` below 1.
        """
        whole("concurrency", concurrency)
        from isp_perf.cache._warm import warm, warm_plan

        plans = {name: warm_plan(name, source, self.policy) for name, source in sources.items()}
        return await warm(self._keys, plans, concurrency=concurrency, progress=progress)

    def bypass(self) -> AbstractContextManager[None]:
        """Return a context in which cached functions and ``get_or_set`` call their loader, every time.

        Nothing is read, nothing is stored and no load is shared; ``get`` and ``peek`` find nothing. What is written on
        purpose (``set``, ``put``, ``refresh``, invalidations) is written as ever. For the code inside and the tasks it
        starts only; may be nested, also with ``request_scope``: the innermost counts.
        """
        return ModeContext(self._engine, scoped=False)

    def request_scope(self) -> AbstractContextManager[None]:
        """Return a context in which each key is read at most once, so that one request sees one state.

        What was read is returned again whatever happens meanwhile, unless the code inside invalidates or writes it.
        Loaders read anew, since what they return is for everybody. For the code inside and the tasks it starts only.
        """
        return ModeContext(self._engine, scoped=True)

    @property
    def _insight(self) -> "Insight":
        from isp_perf.cache._insight import Insight

        return Insight(self._engine, self._keys)

    def stats(self) -> "CacheStats":
        """Return a snapshot of the statistics; every count is exact."""
        return self._insight.stats()

    def tally(self) -> "CacheTally":
        """Return how long loads took and how the remote level fared; every count is exact."""
        return self._insight.tally()

    def sample_hits(self, functions: int = 8) -> None:
        """Have the next local hit of some cached functions timed, each in its turn; ``tally()`` tells what they took.

        Timed is what the wrapper does: key, lookup, count, and the copy under ``isolate="copy"``, with one reading of
        a clock; not the call itself. No other hit pays for it. Reading the metrics does this by itself.

        Args:
            functions: how many, >= 1.
        """
        self._engine.sample_hits(whole("functions", functions))

    def functions(self) -> "dict[str, CacheStats]":
        """Return the statistics of every living cached function by its key template, which holds no argument."""
        return self._insight.functions()

    def hot_keys(self, number: int = 10, *, keys: bool = False) -> "list[HotKey]":
        """Return the entries of the local level that were read most, hottest first.

        Args:
            number: how many at most, >= 1; default 10.
            keys: tell the keys themselves, which may hold personal data; default: the templates only.
        """
        return self._insight.hot_keys(whole("number", number), keys=keys)

    def explain(self, key: str) -> "Explanation":
        """Return what this process knows of a logical key, why it missed last included; never its value."""
        return self._insight.explain(key)

    def health(self) -> "CacheHealth":
        """Return the state of both levels; asks nobody, so it never waits."""
        return self._insight.health()

    def writing(self, *keys: str) -> "WriteIntent":
        """Return a context manager to put around a change of what ``keys`` are loaded from, its commit included.

        Until it is left no process believes or stores those keys. If this process dies between, the intent ends by
        itself after 2 s; leaving it removes the keys, whether the body succeeded, failed or was cancelled. With
        ``async with`` or ``with``; it answers a ``WriteIntent``.

        Args:
            *keys: logical keys.
        """
        from isp_perf.cache._writing import PlacedIntent, WriteIntent

        return WriteIntent(PlacedIntent(self._engine.second, self._keys.removal, keys))

    async def snapshot(self, path: str | PathLike[str], *, top: int = 1000) -> int:
        """Write the hottest calls of cached functions to a file, to warm the next start; keys, never values.

        The file is replaced as a whole and readable by its owner only. Calls whose arguments are other than texts,
        numbers, bools, None and UUIDs, those of methods, and keys of the user's own are left out.

        Args:
            path: the file.
            top: how many at most, >= 1; default 1,000.

        Returns:
            How many calls it holds.

        Raises:
            OSError: the file cannot be written.
        """
        from isp_perf.cache._hottest import write_hottest

        return await asyncio.to_thread(write_hottest, path, self._insight.hottest(whole("top", top)))

    async def warm_from(
        self,
        path: str | PathLike[str],
        *,
        concurrency: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> "WarmReport":
        """Make the calls that ``snapshot`` wrote, hottest first; those of functions that are gone are left out.

        Args:
            path: the file.
            concurrency: loaders that run at a time, >= 1; default 8. Plain functions run in threads.
            progress: called with (done, total) after each.

        Returns:
            The template of each call that succeeded, and the first error by template.

        Raises:
            ConfigurationError: the file is not one that ``snapshot`` wrote, ``concurrency`` below 1.
            OSError: the file cannot be read.
        """
        whole("concurrency", concurrency)
        from isp_perf.cache._hottest import read_calls, warm_calls_in_tasks

        calls = await asyncio.to_thread(read_calls, path, self._engine)
        return await warm_calls_in_tasks(self._engine, calls, progress, concurrency=concurrency)

    async def start(self) -> None:
        """Deliver what an earlier outage left undelivered. Optional: the first use does the same."""
        if self._engine.second is not None:
            await adrive(self._engine.second.settle(tasks=True))

    async def aclose(self) -> None:
        """End the channel, and the remote level if this manager opened it from a URL; later calls open them again."""
        given, level = self._resolved
        if self._engine.second is not None:
            await adrive(self._engine.second.settle(tasks=True))
            self._engine.second.leave()
        if isinstance(given, str) and level is not None:
            await level.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self.aclose()

    def internals(self) -> tuple[Engine, Keys]:
        """Return the levels and the operations by key; for the other modules of the cache, and subject to change."""
        return self._engine, self._keys

    def __repr__(self) -> str:
        return f"CacheManager({self.name!r}, entries={len(self._engine.local)})"

    def _receipt(self, delivered: object) -> Receipt:
        self._engine.tell()
        return Receipt(self._settle, delivered=bool(delivered))

    async def _settle(self) -> bool:
        second = self._engine.second
        return second is None or bool(await adrive(second.settle(tasks=True)))

    def _refuse_rival(self, site: Site) -> None:
        other = self._templates.setdefault(site.template, site)
        if other.identity != site.identity:
            raise ConfigurationError(
                "key", site.template, f"{other.label} already has this template", "give each function its own"
            )


def _asker(second: "SecondLevel") -> "Asker":
    from isp_perf.cache._asking import Asker

    for name in _WITH_REMOTE:  # now: a first call that imports them would hold up its event loop
        import_module(f"isp_perf.cache.{name}")
    return Asker(second)


_DEFAULTS = CachePolicy()
_WITH_REMOTE = ("_exchange", "_filling", "_reading")
