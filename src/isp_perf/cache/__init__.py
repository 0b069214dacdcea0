"""The cache: ``@cached``, a fast local level, and Redis as an optional second level."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack

from isp_perf.cache._config import CachePolicy, PolicyOptions
from isp_perf.cache._decorator import AsyncCached, CacheDecorator, ManyDecorator, SyncCached
from isp_perf.cache._entry import FillingEntry, FillingTags, entry
from isp_perf.cache._manager import CacheManager
from isp_perf.cache._receipt import Receipt

if TYPE_CHECKING:
    from isp_perf.cache._blocking import SyncCacheManager
    from isp_perf.cache._codec import MsgpackCodec
    from isp_perf.cache._figures import CacheStats, CacheTally
    from isp_perf.cache._insight import CacheHealth, Explanation, HotKey
    from isp_perf.cache._report import WarmReport
    from isp_perf.cache._signed import PickleCodec
    from isp_perf.cache._writing import WriteIntent
    from isp_perf.cache.consistency import Auditor, AuditReport, StaleRead

__all__ = [
    "AsyncCached",
    "AuditReport",
    "Auditor",
    "CacheDecorator",
    "CacheHealth",
    "CacheManager",
    "CachePolicy",
    "CacheStats",
    "CacheTally",
    "Explanation",
    "FillingEntry",
    "FillingTags",
    "HotKey",
    "ManyDecorator",
    "MsgpackCodec",
    "PickleCodec",
    "Receipt",
    "StaleRead",
    "SyncCacheManager",
    "SyncCached",
    "WarmReport",
    "WriteIntent",
    "cache_manager",
    "cached",
    "entry",
]

_ON_FIRST_USE = {
    "AuditReport": "consistency",
    "Auditor": "consistency",
    "CacheHealth": "_insight",
    "CacheStats": "_figures",
    "CacheTally": "_figures",
    "Explanation": "_insight",
    "HotKey": "_insight",
    "MsgpackCodec": "_codec",
    "PickleCodec": "_signed",
    "StaleRead": "consistency",
    "SyncCacheManager": "_blocking",
    "WarmReport": "_report",
    "WriteIntent": "_writing",
}


def __getattr__(name: str) -> Any:
    """Return what few programs name, imported when it is named."""
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ON_FIRST_USE[name]}"), name)
    globals()[name] = value
    return value


cache_manager: CacheManager = CacheManager()
"""The default manager: local only until it is configured."""


def cached(key: str | None = None, **policy: Unpack[PolicyOptions]) -> CacheDecorator:
    """Return a decorator that caches the results of a function in the default manager.

    Args:
        key: template such as ``"user:{user_id}"``; ``{hash}`` stands for all arguments. Default: the function's
            qualified name and ``{hash}``.
        **policy: fields of ``CachePolicy``.

    Raises:
        ConfigurationError: as for ``CacheManager.cached``, when it decorates.
    """
    return cache_manager.cached(key, **policy)
