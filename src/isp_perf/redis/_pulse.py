"""How one server is, judged by the traffic to it; and the counters of its lanes at one moment."""

import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from isp_perf.errors import MaybeExecutedError, RemoteError
from isp_perf.redis._stats import RedisHealth, RedisStats

if TYPE_CHECKING:
    from isp_perf.redis._client import PipelinedRedis
    from isp_perf.redis._state import States

__all__ = ["Pulse", "snapshot"]

_SILENCE: Final = 30.0  # seconds after which a PING is sent where no health check interval says so


def snapshot(states: "States | None") -> RedisStats:
    """Return the counters now; all are empty before the first use."""
    counted = {} if states is None else states.stats
    lanes = {name: replace(lane, batch_sizes=list(lane.batch_sizes)) for name, lane in counted.items()}
    links = [] if states is None else states.links()
    return RedisStats(lanes, sum(len(link.pending) for link in links), sum(link.queued for link in links))


class Pulse:
    """Asks one server how it is, and only if its traffic does not tell.

    Attributes:
        ping_ms: the round trip measured last, in milliseconds; ``None`` before the first.
    """

    ping_ms: float | None

    def __init__(self) -> None:
        self.ping_ms = None

    async def health(self, client: "PipelinedRedis", syncs: Collection[Any]) -> RedisHealth:
        """Return how the server is; never raises, and takes no longer than ``connect_timeout`` and a little."""
        reason = await self._probe(client)
        created, available, down = client.states.sockets(syncs)
        stats = snapshot(client.states).as_dict()
        if reason:
            return RedisHealth("unhealthy", None, created, available, reason, stats)
        status: Literal["degraded", "healthy"] = "degraded" if down else "healthy"
        text = f"lane down: {', '.join(down)}" if down else ""
        return RedisHealth(status, self.ping_ms, created, available, text, stats)

    async def _probe(self, client: "PipelinedRedis") -> str:
        """Return why the server does not answer, or an empty text."""
        settings = client.states.settings
        state = await client.states.current()
        link = state.fast.link
        silence = settings.health_check_interval or _SILENCE
        if link is not None and self.ping_ms is not None and state.loop.time() - link.progress_at < silence:
            return ""
        started = time.perf_counter()
        try:
            (answer,) = await client.run_raw([("PING",)], within=settings.connect_timeout)
        except MaybeExecutedError as error:
            return str(error)
        if isinstance(answer, Exception):
            return str(answer) if isinstance(answer, RemoteError) else type(answer).__name__
        self.ping_ms = round((time.perf_counter() - started) * 1000, 3)
        return ""
