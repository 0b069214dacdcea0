"""The cache: ``@cached``, a fast local level, and Redis as an optional second level."""

from isp_perf.cache._blocking import SyncCacheManager
from isp_perf.cache._codec import MsgpackCodec
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._decorator import AsyncCached, CacheDecorator, SyncCached
from isp_perf.cache._entry import FillingEntry, FillingTags, entry
from isp_perf.cache._manager import CacheManager
from isp_perf.cache._receipt import Receipt, WarmReport
from isp_perf.cache._stats import CacheStats

__all__ = [
    "AsyncCached",
    "CacheDecorator",
    "CacheManager",
    "CachePolicy",
    "CacheStats",
    "FillingEntry",
    "FillingTags",
    "MsgpackCodec",
    "Receipt",
    "SyncCacheManager",
    "SyncCached",
    "WarmReport",
    "cache_manager",
    "cached",
    "entry",
]

cache_manager = CacheManager()
"""The default manager: local only until it is configured."""

cached = cache_manager.cached
"""``cache_manager.cached``."""
