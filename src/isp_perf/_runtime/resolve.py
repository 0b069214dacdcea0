"""Finds what a feature needs of its sibling, by one dynamic import each, so that no feature names another."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.typing import RemoteLevel

__all__ = ["remote_level", "zstd_module"]


def remote_level(redis: object) -> "RemoteLevel | None":
    """Return the remote level that ``redis`` means.

    Args:
        redis: ``None`` for no remote level, a URL, or a remote level, which is returned as it is.

    Raises:
        ConfigurationError: anything else, or a URL the Redis room refuses.
    """
    if redis is None:
        return None
    from isp_perf.typing import RemoteLevel

    if isinstance(redis, str):
        redis = import_module("isp_perf.redis").RedisPool(redis)
    if not isinstance(redis, RemoteLevel):
        raise ConfigurationError(
            "redis", type(redis).__name__, "a URL, a RedisPool, a RemoteLevel or None", 'pass "redis://host:6379/0"'
        )
    return redis


def zstd_module() -> Any:
    """Return the zstd library that the compression room finds, or ``None``."""
    return import_module("isp_perf.compression._codecs").library("compression.zstd", "backports.zstd")
