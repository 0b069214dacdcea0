"""Pub/sub that says what it cannot know: after every reconnect a ``Gap`` tells that messages may have been missed."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._core.backoff import full_jitter
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._stats import Gap, Message

if TYPE_CHECKING:
    from isp_perf.redis._client import PipelinedRedis

__all__ = ["listen"]

_draw = SystemRandom().random
_LOST = (DriverConnectionError, DriverTimeoutError, OSError, TimeoutError)


async def listen(client: "PipelinedRedis", channels: tuple[str | bytes, ...]) -> AsyncGenerator[Message | Gap, None]:
    """Yield the messages of the channels, and a ``Gap`` before the first one after each reconnect.

    Raises:
        NotSentError: the first subscription failed. Later ones are repeated until the iterator is closed.
    """
    subscription = _Subscription(client, channels)
    try:
        while True:
            gap = await subscription.ensure()
            if gap is not None:
                yield gap
            message = await subscription.next()
            if message is not None:
                yield message
    finally:
        await subscription.end()


@dataclass(slots=True)
class _Subscription:
    """One redis-py subscription after the other."""

    client: "PipelinedRedis"
    channels: tuple[str | bytes, ...]
    listener: Any = None
    heard_at: float = 0.0  # wall clock: when the server was last heard; 0: never
    asked: bool = False  # a PING is on its way

    async def ensure(self) -> Gap | None:
        """Subscribe if need be; return the gap since the server was last heard, if there is one."""
        if self.listener is not None:
            return None
        since, retry = self.heard_at, self.client.states.settings.retry
        for attempt in count():
            try:
                await self._subscribe()
                break
            except _LOST as error:
                if not since:
                    raise LostNotSentError("SUBSCRIBE: not sent, the server cannot be reached", 0.0) from error
                await asyncio.sleep(full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw()))
        return Gap(since, self.heard_at) if since else None

    async def _subscribe(self) -> None:
        await self.client.states.current()
        listener: Any = cast("Any", self.client).pubsub()
        try:
            async with asyncio.timeout(self.client.states.settings.timeout):
                await listener.subscribe(*self.channels)
                for _ in self.channels:
                    await listener.get_message(timeout=None)
        except BaseException:
            await listener.aclose()
            raise
        self.listener, self.heard_at, self.asked = listener, time.time(), False

    async def next(self) -> Message | None:
        """Return the next message; ``None`` after a sign of life, or when the connection was lost."""
        settings = self.client.states.settings
        limit = settings.timeout if self.asked else settings.health_check_interval or None
        try:
            received = await self.listener.get_message(timeout=limit)
            if received is None:
                if self.asked:
                    await self.end()  # silent although asked
                else:
                    self.asked = True
                    await self.listener.ping()
                return None
        except _LOST:
            await self.end()
            return None
        self.heard_at, self.asked = time.time(), False
        return Message(received["channel"], received["data"]) if received["type"] == "message" else None

    async def end(self) -> None:
        """Unsubscribe by closing the connection."""
        listener, self.listener = self.listener, None
        if listener is not None:
            await listener.aclose()
