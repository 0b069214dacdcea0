"""Whether the Redis of the environment can hold what a cache puts into it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from isp_perf.cli._advice import Advice
from isp_perf.ops._shown import percent, size
from isp_perf.redis import RedisPool, RedisSettings

__all__ = ["memory_advice"]

_FULL: Final = 0.5  # share of the machine's memory from which a Redis without a limit is a danger
_FIX: Final = "CONFIG SET maxmemory-policy allkeys-lru: a cache may forget, and must take new entries"


async def memory_advice(settings: RedisSettings) -> list[Advice]:
    """Return what is wrong with the server's limit; nothing if there is no server or it keeps its settings to itself.

    Args:
        settings: where Redis is.
    """
    pool = RedisPool(settings)
    if not pool.enabled:
        return []
    results = await asyncio.gather(_asked(pool.client()), return_exceptions=True)
    await pool.aclose()
    answer = results[0]
    return [] if isinstance(answer, BaseException) else judged(*answer)


async def _asked(client: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return await client.config_get("maxmemory*"), await client.info("memory")


def judged(limits: Mapping[str, Any], memory: Mapping[str, Any]) -> list[Advice]:
    """Return what is wrong.

    Args:
        limits: ``CONFIG GET maxmemory*``.
        memory: ``INFO memory``.
    """
    limit, policy = int(limits.get("maxmemory", 0)), str(limits.get("maxmemory-policy", ""))
    used, machine = int(memory.get("used_memory", 0)), int(memory.get("total_system_memory", 0))
    if limit and policy == "noeviction":
        evidence = f"maxmemory-policy noeviction, {size(used)} of {size(limit)} used: writes fail when it is full"
        return [Advice("redis", "Redis memory", evidence, _FIX)]
    if not limit and machine and used >= _FULL * machine:
        evidence = f"no maxmemory, {size(used)} used: {percent(used / machine)} of the machine's memory"
        return [Advice("redis", "Redis memory", evidence, f"set maxmemory, and {_FIX}")]
    return []
