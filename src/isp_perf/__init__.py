"""isp_perf makes an existing Python ASGI service fast and hard to break.

The names below are loaded on first use (PEP 562): ``import isp_perf`` itself imports no third party and no asyncio.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isp_perf.cache import CacheManager, cache_manager, cached
    from isp_perf.redis import RedisPool

_HOMES = {
    "CacheManager": "isp_perf.cache",
    "RedisPool": "isp_perf.redis",
    "cache_manager": "isp_perf.cache",
    "cached": "isp_perf.cache",
}

__all__ = ["CacheManager", "RedisPool", "cache_manager", "cached"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
