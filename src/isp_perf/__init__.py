"""isp_perf makes an existing Python ASGI service fast and hard to break.

The names below are loaded on first use (PEP 562): ``import isp_perf`` itself imports no third party and no asyncio.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isp_perf.breaker import (
        AI_CIRCUIT_CONFIG,
        DATABASE_CIRCUIT_CONFIG,
        REDIS_CIRCUIT_CONFIG,
        WHATSAPP_CIRCUIT_CONFIG,
        CircuitBreaker,
        CircuitConfig,
        circuit_breaker,
        circuits,
    )
    from isp_perf.cache import CacheManager, cache_manager, cached
    from isp_perf.compression import CompressionMiddleware, RequestDecompressionMiddleware
    from isp_perf.errors import CircuitOpenError
    from isp_perf.queries import preload
    from isp_perf.redis import RedisPool
    from isp_perf.settings import Settings
    from isp_perf.toolkit import Toolkit

__all__ = [
    "AI_CIRCUIT_CONFIG",
    "DATABASE_CIRCUIT_CONFIG",
    "REDIS_CIRCUIT_CONFIG",
    "WHATSAPP_CIRCUIT_CONFIG",
    "CacheManager",
    "CircuitBreaker",
    "CircuitConfig",
    "CircuitOpenError",
    "CompressionMiddleware",
    "RedisPool",
    "RequestDecompressionMiddleware",
    "Settings",
    "Toolkit",
    "cache_manager",
    "cached",
    "circuit_breaker",
    "circuits",
    "preload",
]
__version__ = "0.1.0"

_ROOMS = {
    "breaker": (
        "AI_CIRCUIT_CONFIG",
        "DATABASE_CIRCUIT_CONFIG",
        "REDIS_CIRCUIT_CONFIG",
        "WHATSAPP_CIRCUIT_CONFIG",
        "CircuitBreaker",
        "CircuitConfig",
        "circuit_breaker",
        "circuits",
    ),
    "cache": ("CacheManager", "cache_manager", "cached"),
    "compression": ("CompressionMiddleware", "RequestDecompressionMiddleware"),
    "errors": ("CircuitOpenError",),
    "queries": ("preload",),
    "redis": ("RedisPool",),
    "settings": ("Settings",),
    "toolkit": ("Toolkit",),
}
_HOMES = {name: f"isp_perf.{room}" for room, names in _ROOMS.items() for name in names}


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
