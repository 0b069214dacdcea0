"""Puts our cache behind ``async_lru.alru_cache``, before async-lru's tests import it."""

import functools
import inspect

import async_lru
import cachetools

from isp_perf.cache import CacheManager


def alru_cache(maxsize=128, typed=False, *, ttl=None, jitter=None):
    """Decorate as async-lru does; its bookkeeping methods over our statistics."""
    if callable(maxsize) or hasattr(maxsize, "_make_unbound_method"):
        return decorated(maxsize, size=128, typed=False, ttl=None, jitter=None)
    if maxsize is not None and not isinstance(maxsize, int):
        raise NotImplementedError(f"{maxsize!r} decorating is not supported")
    return functools.partial(decorated, size=maxsize, typed=typed, ttl=ttl, jitter=jitter)


def decorated(function, *, size, typed, ttl, jitter):
    target = function.func if isinstance(function, functools.partial) else function
    if not inspect.iscoroutinefunction(target):
        raise RuntimeError(f"coroutine function is required, got {function!r}")
    if isinstance(function, functools.partial):
        function = as_function(function, target)
    manager = CacheManager()
    local = manager._engine.local
    if size is not None and size > 0:
        with local.lock:
            local.configure_locked(size, local.clock, l1=cachetools.LRUCache(size))
    seconds = 0 if size is not None and size <= 0 else ttl or 3600
    share = jitter / (seconds + jitter) if jitter else 0.0
    cached = manager.cached(ttl=seconds + (jitter or 0), jitter=share, typed=typed)(function)
    return bookkeeping(manager, cached, size=size, typed=typed)


def as_function(call, target):
    async def function(*args, **kwargs):
        return await call(*args, **kwargs)

    function.__signature__ = inspect.signature(call)
    function.__name__, function.__qualname__ = target.__name__, target.__qualname__
    function.__doc__, function.__dict__ = target.__doc__, {**target.__dict__, **function.__dict__}
    return function


def bookkeeping(manager, cached, *, size, typed):
    """Give ``cached`` the methods of async-lru."""
    forgotten = [0, 0]

    def cache_info():
        stats = manager.stats()
        hits = stats.hits + stats.joined - forgotten[0]
        return functools._CacheInfo(hits, stats.misses - stats.joined - forgotten[1], size, stats.l1_size)

    def cache_clear():
        manager.sync.clear()
        stats = manager.stats()
        forgotten[:] = [stats.hits + stats.joined, stats.misses - stats.joined]

    def cache_contains(*args, **kwargs):
        local = manager._engine.local
        with local.lock:
            entry = local.index_locked().get(cached.key(*args, **kwargs))
            return entry is not None and entry in local.living_locked() and local.clock() < entry.due

    def cache_invalidate(*args, **kwargs):
        there = cache_contains(*args, **kwargs)
        manager.sync.invalidate(cached.key(*args, **kwargs))
        return there

    def cache_parameters():
        flights = sum(len(store.flights) for site in manager._sites for store in site.stores())
        return {"maxsize": size, "typed": typed, "tasks": flights, "closed": False}

    cached.cache_info, cached.cache_clear, cached.cache_contains = cache_info, cache_clear, cache_contains
    cached.cache_invalidate, cached.cache_parameters = cache_invalidate, cache_parameters
    return cached


async_lru.alru_cache = alru_cache
