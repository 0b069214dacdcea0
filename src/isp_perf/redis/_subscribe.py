"""Pub/sub that says what it cannot know: after every reconnect a ``Gap`` tells that messages may have been missed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._core.backoff import full_jitter
from isp_perf.redis._config import RetryPolicy
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._stats import Gap, Message

if TYPE_CHECKING:
    from isp_perf.redis._client import PipelinedRedis

__all__ = ["listen"]

_draw = SystemRandom().random
_LOST = (DriverConnectionError, DriverTimeoutError, OSError, TimeoutError)


async def listen(
    choose: Callable[[int], Awaitable["PipelinedRedis"]], channels: tuple[str | bytes, ...], *, tries: int = 1
) -> AsyncGenerator[Message | Gap, None]:
    """Yield the messages of the channels, and a ``Gap`` before the first one after each reconnect.

    Args:
        choose: returns the client to subscribe with, asked before each attempt to connect, which are numbered from 0.
        channels: what to listen to.
        tries: how often the first subscription is attempted.

    Raises:
        NotSentError: the first subscription failed. Later ones are repeated until the iterator is closed.
    """
    subscription = _Subscription(choose, channels, tries)
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

    choose: Callable[[int], Awaitable["PipelinedRedis"]]
    channels: tuple[str | bytes, ...]
    tries: int
    settings: Any = None
    listener: Any = None
    heard_at: float = 0.0  # wall clock: when the server was last heard; 0: never
    asked: bool = False  # a PING is on its way

    async def ensure(self) -> Gap | None:
        """Subscribe if need be; return the gap since the server was last heard, if there is one."""
        if self.listener is not None:
            return None
        since = self.heard_at
        for attempt in count():
            try:
                await self._subscribe(await self.choose(attempt))
                break
            except _LOST as error:
                if not since and attempt + 1 >= self.tries:
                    raise LostNotSentError("SUBSCRIBE: not sent, the server cannot be reached", 0.0) from error
                await asyncio.sleep(self._pause(attempt))
        return Gap(since, self.heard_at) if since else None

    def _pause(self, attempt: int) -> float:
        retry = RetryPolicy() if self.settings is None else self.settings.retry
        return full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw())

    async def _subscribe(self, client: "PipelinedRedis") -> None:
        self.settings = client.states.settings
        await client.states.current()
        listener: Any = cast("Any", client).pubsub()
        try:
            async with asyncio.timeout(self.settings.timeout):
                await listener.subscribe(*self.channels)
                for _ in self.channels:
                    await listener.get_message(timeout=None)
        except BaseException:
            await listener.aclose()
            raise
        self.listener, self.heard_at, self.asked = listener, time.time(), False

    async def next(self) -> Message | None:
        """Return the next message; ``None`` after a sign of life, or when the connection was lost."""
        limit = self.settings.timeout if self.asked else self.settings.health_check_interval or None
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
