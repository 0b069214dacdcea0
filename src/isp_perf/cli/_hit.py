"""Measures one cached call of the example service against the database load it replaces; run in the service's folder.

Both sides run in one process on the database of the demo: medians of single loads, and of rounds of many hits.
"""

import asyncio
import importlib
import json
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

__all__ = ["measure"]

_LOADS = 25
_ROUNDS, _HITS = 9, 5_000


async def measure() -> dict[str, dict[str, float]]:
    """Return for each cached function of the service: seconds of a load, seconds of a hit, and their ratio."""
    service: Any = importlib.import_module("main")
    figures = {"inbox": await _compare(service.inbox, (1, 1)), "profile": await _compare(service.profile, (1,))}
    await service.engine.dispose()
    return figures


async def _compare(cached: Any, arguments: tuple[int, ...]) -> dict[str, float]:
    loads = [await _time(cached.__wrapped__, arguments, 1) for _ in range(_LOADS)]
    await cached(*arguments)
    hits = [await _time(cached, arguments, _HITS) for _ in range(_ROUNDS)]
    load, hit = statistics.median(loads), statistics.median(hits)
    return {"load_seconds": load, "hit_seconds": hit, "ratio": load / hit}


async def _time(function: Callable[..., Awaitable[Any]], arguments: tuple[int, ...], times: int) -> float:
    started = perf_counter()
    for _ in range(times):
        await function(*arguments)
    return (perf_counter() - started) / times


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
