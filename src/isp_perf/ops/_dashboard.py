"""The application's own figures, always served from the cache: warmed at the start, refreshed ahead of need."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from isp_perf._runtime.background import end

__all__ = ["Dashboard", "DashboardLoader"]

DashboardLoader: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns the application's own figures as JSON-ready values."""

_KEY: Final = "isp_perf:dashboard"
_TTL: Final = 300.0  # seconds; the refresh comes long before
_REFRESH: Final = 10.0  # seconds between refreshes
_SEED: Final = ("total_conversations", "active_conversations", "messages_today")
_log = logging.getLogger("isp_perf.ops")


class Store(Protocol):
    """What is asked of the cache."""

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value under ``key``."""
        ...

    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Store a value."""
        ...


class Dashboard:
    """Serves what one loader computes, without ever computing it in a request once it has been started.

    Args:
        loader: returns the figures; ``None``: the seed's keys are zero and ``configured`` is false.
        store: the cache they are kept in.
    """

    def __init__(self, loader: DashboardLoader | None, store: Store) -> None:
        self._loader = loader
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._latest: Mapping[str, Any] = {}

    def latest(self) -> Mapping[str, Any]:
        """Return the figures computed last, empty before the first ones; asks neither loader nor cache."""
        return self._latest

    async def start(self) -> None:
        """Compute the figures once, and go on refreshing them; a loader that fails is logged and tried again."""
        if self._loader is None or self._task is not None:
            return
        await self._refresh()
        self._task = asyncio.create_task(self._keep_fresh(), name="isp_perf dashboard")

    async def aclose(self) -> None:
        """Stop refreshing."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def figures(self) -> dict[str, Any]:
        """Return the figures, with ``cache_hit``: whether they came from the cache."""
        if self._loader is None:
            return {**dict.fromkeys(_SEED, 0), "cache_hit": True, "configured": False}
        kept = await self._store.get(_KEY)
        hit = kept is not None
        if not hit:  # only without a start, or after a loader that never succeeded
            await self._refresh()
            kept = await self._store.get(_KEY)
        return {**dict.fromkeys(_SEED, 0), **(kept or {}), "cache_hit": hit, "configured": True}

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            await self._refresh()

    async def _refresh(self) -> None:
        if self._loader is None:
            return
        [figures] = await asyncio.gather(self._loader(), return_exceptions=True)
        if isinstance(figures, BaseException):
            _log.warning("the dashboard's loader failed: %s", type(figures).__name__)
            return
        self._latest = dict(figures)
        await self._store.set(_KEY, dict(figures), ttl=_TTL)
