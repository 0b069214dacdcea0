"""The cache that workers share in Redis, as the environment names it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

from isp_perf.cache import CacheManager, CachePolicy, cache_manager
from isp_perf.errors import ConfigurationError
from isp_perf.redis import RedisPool
from isp_perf.settings import Settings
from isp_perf.typing import RemoteLevel

__all__ = ["shared_cache"]


@asynccontextmanager
async def shared_cache(namespace: str | None = None) -> AsyncGenerator[CacheManager]:
    """Configure the default cache manager from the environment and close it at the end.

    Args:
        namespace: instead of that of the settings.

    Raises:
        ConfigurationError: no Redis is configured: what a command does to its own memory helps nobody.
        SettingsError: a wrong setting.
    """
    settings = Settings.from_env()
    if namespace is not None:
        settings = replace(settings, namespace=namespace)
    pool = RedisPool(settings.redis)
    if not pool.enabled:
        rule = "is not set, so there is no cache to share with this command"
        raise ConfigurationError("REDIS_URL", None, rule, "set REDIS_URL as for the service")
    manager = cache_manager
    manager.configure(
        redis=cast("RemoteLevel", pool),
        namespace=settings.namespace,
        schema=settings.schema,
        policy=CachePolicy(ttl=settings.cache_ttl),
    )
    try:
        async with manager:
            yield manager
    finally:
        await pool.aclose()
        manager.configure(redis=None)
