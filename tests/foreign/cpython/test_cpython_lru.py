"""CPython's own tests of ``functools.lru_cache``, on a cached function with a borrowed LRU cache behind it.

They are run from the interpreter's test package, where it is installed. What differs by design is not run:

- hash_only_once, need_for_rlock: arguments of a class of the user's are refused, since nothing tells their equality to
  other processes;
- type_error: lists are arguments like any other;
- typed_is_not_recursive: types are told apart at every depth;
- kwargs_order: the order of keywords is no part of a key;
- threaded2: five threads that miss together share one load, and the test waits for five;
- bug_35780: a loader that asks for its own key gets ``CacheRecursionError``;
- with_types: ``square(3)`` and ``square(x=3)`` are one key, so there are more hits;
- method: two instances do not share results because they are equal as numbers;
- reentrancy_with_len: puts itself in the place of ``len``, which our code and cachetools call.
"""

import functools
import unittest

import cachetools
import pytest

from isp_perf.cache import CacheManager

theirs = pytest.importorskip("test.test_functools", reason="this interpreter has no test package")

BY_DESIGN = {
    "test_lru_bug_35780",
    "test_lru_with_types",
    "test_kwargs_order",
    "test_lru_cache_threaded2",
    "test_lru_cache_typed_is_not_recursive",
    "test_lru_hash_only_once",
    "test_lru_method",
    "test_lru_reentrancy_with_len",
    "test_lru_type_error",
    "test_need_for_rlock",
}


class Lru:
    """What the tests ask of the module ``functools``."""

    _CacheInfo = functools._CacheInfo
    WRAPPER_ASSIGNMENTS = functools.WRAPPER_ASSIGNMENTS
    partial = functools.partial

    @staticmethod
    def lru_cache(maxsize=128, typed=False):
        if callable(maxsize):
            return Lru.lru_cache()(maxsize)
        return functools.partial(decorated, size=None if maxsize is None else max(0, maxsize), typed=typed)


def decorated(function, *, size, typed):
    manager = CacheManager()
    local = manager._engine.local
    if size:
        with local.lock:
            local.configure_locked(size, local.clock, l1=cachetools.LRUCache(size))
    wrapper = manager.cached("all:{hash}" if typed else None, ttl=3600 if size != 0 else 0)(function)
    forgotten = [0, 0]

    def cache_info():
        stats = manager.stats()
        return functools._CacheInfo(stats.hits - forgotten[0], stats.misses - forgotten[1], size, stats.l1_size)

    def cache_clear():
        manager.sync.clear()
        stats = manager.stats()
        forgotten[:] = [stats.hits, stats.misses]

    wrapper.cache_info, wrapper.cache_clear = cache_info, cache_clear
    wrapper.cache_parameters = lambda: {"maxsize": size, "typed": typed}
    return wrapper


@Lru.lru_cache()
def cached_func(x, y):
    return 3 * x + y


class TestLruOfOurs(unittest.TestCase):
    """The tests' class, with ours in the place of the module."""

    module = Lru
    cached_func = (cached_func,)

    @Lru.lru_cache()
    def cached_meth(self, x, y):
        return 3 * x + y

    @staticmethod
    @Lru.lru_cache()
    def cached_staticmeth(x, y):
        return 3 * x + y


for name, test in vars(theirs.TestLRU).items():
    if name.startswith("test_") and name not in BY_DESIGN:
        setattr(TestLruOfOurs, name, test)


def test_no_more_than_what_differs_by_design_is_left_out():
    """Every test of theirs is run, or named above with its reason."""
    names = {name for name in vars(theirs.TestLRU) if name.startswith("test_")}
    assert names - BY_DESIGN == {name for name in vars(TestLruOfOurs) if name.startswith("test_")}
    assert len(names - BY_DESIGN) >= 15
