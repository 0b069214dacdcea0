"""News of changes by pub/sub, where the server or a proxy cannot track: a subscription beside the orders.

Whoever removes keys publishes their names in the same script (see ``_scripts``). Orders and news come over two
connections, so each round of orders publishes a number too, and counts as answered when that number has come back by
way of the subscription: then everything published before it has come as well. A subscription that stays silent, or that
ends, is a lost one. Expiry, eviction, FLUSHALL and the writes of other programs are not heard of in this way.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from secrets import token_bytes
from typing import Any, Final, Generic, TypeVar, cast

from redis.asyncio.client import PubSub
from redis.client import PubSub as BlockingPubSub
from redis.exceptions import RedisError

from isp_perf.redis._entry import unheard
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack
from isp_perf.typing import Listener, Order, Ping

__all__ = ["BlockingNews", "Bulletin", "Hearing", "News", "mispaired", "topic_of"]

_CHANGED: Final = b"!"
_FILLED: Final = b"+"
_NUMBER: Final = b"?"
_NUMBER_BYTES: Final = 8
_PAUSE_SECONDS: Final = 1.0  # between two attempts to subscribe
_TURNS: Final = 3  # of the event loop, for what arrived while it was blocked
_LOST: Final = (RedisError, OSError, TimeoutError)


def topic_of(prefix: str) -> bytes:
    """Return the channel on which changes of keys with this prefix are published; the scripts name it likewise."""
    return prefix.split(":", 1)[0].encode("utf-8", "surrogatepass") + b":%changes"


class Bulletin:
    """What was published, and up to where it was heard.

    Args:
        prefix: of the keys to hear of.
        listener: who hears.

    Attributes:
        heard: the last of our own numbers that came back.
        sender: who we are; our own fills are no news.
        topic: the channel.
        up: whether every change from now on will be heard of.
        waiting: numbers, and who waits for them.
    """

    __slots__ = ("_listener", "_lock", "_number", "_prefix", "heard", "sender", "topic", "up", "waiting")

    heard: int
    sender: bytes
    topic: bytes
    up: bool
    waiting: "list[tuple[int, asyncio.Future[None]]]"

    def __init__(self, prefix: str, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._number = 0
        self._prefix = prefix.encode("utf-8", "surrogatepass")
        self.heard = 0
        self.sender = token_bytes(_NUMBER_BYTES)
        self.topic = topic_of(prefix)
        self.up = False
        self.waiting = []

    def number(self) -> tuple[int, bytes]:
        """Return the next number, and the packed command that publishes it."""
        with self._lock:
            self._number += 1
            number = self._number
        told = _NUMBER + self.sender + number.to_bytes(_NUMBER_BYTES, "big")
        return number, pack(("PUBLISH", self.topic, told))

    def reached(self, number: int) -> bool:
        """Return whether nobody has to wait for ``number``."""
        return not self.up or number <= self.heard

    def take(self, message: Any) -> None:
        """Deal with what the subscription received: a message, or the confirmation that it begins (again)."""
        if message is None:
            return
        if message["type"] == "subscribe":
            self.end()
            self._begin()
        elif message["type"] == "message":
            self._read(bytes(message["data"]))

    def _begin(self) -> None:
        self._listener.changed(None)  # what is being read now was asked for before anything could be heard
        self.up = True
        self._listener.connected()

    def end(self) -> None:
        """Take note that changes may be missed from now on."""
        if self.up:
            self.up = False
            self._wake()
            self._listener.lost()

    def _read(self, data: bytes) -> None:
        kind, body = data[:1], data[1:]
        sender = body[:_NUMBER_BYTES]
        if kind == _NUMBER:
            if sender == self.sender:
                self.heard = max(self.heard, int.from_bytes(body[_NUMBER_BYTES:], "big"))
                self._wake()
        elif kind == _FILLED:
            if sender != self.sender:
                self._changed(body[_NUMBER_BYTES:])
        else:
            self._changed(body if kind == _CHANGED else None)

    def _changed(self, body: bytes | None) -> None:
        """Pass on the names in ``body``; if they cannot be read, anything may have changed."""
        try:
            names = None if body is None else list(_names(body))
        except ValueError:
            names = None
        if names is None:
            self._listener.changed(None)
        elif ours := [name for name in names if name.startswith(self._prefix)]:
            self._listener.changed(ours)

    def _wake(self) -> None:
        still: list[tuple[int, asyncio.Future[None]]] = []
        for number, future in self.waiting:
            if self.up and number > self.heard:
                still.append((number, future))
            elif not future.done():
                future.set_result(None)
        self.waiting = still


def _names(body: bytes) -> Iterator[bytes]:
    """Yield the names, each of which stands behind its length and a colon."""
    at = 0
    while at < len(body):
        colon = body.index(b":", at)
        end = colon + 1 + int(body[at:colon])
        if not colon < end <= len(body):
            raise ValueError(end)
        yield body[colon + 1 : end]
        at = end


class News:
    """The subscription of one channel of an event loop.

    Args:
        pool: redis-py's pool, which the subscription's connection comes from.
        bulletin: what it tells.
    """

    def __init__(self, pool: Any, bulletin: Bulletin) -> None:
        self._pool = pool
        self._bulletin = bulletin
        self._task: asyncio.Task[None] | None = None
        self._retry_at = 0.0

    def ask(self, link: Link | None) -> int:
        """Publish a number over ``link`` ahead of its next orders and return it; 0: nothing is heard of now."""
        if link is None:
            return 0
        if not self._bulletin.up:
            if self._task is None and link.loop.time() >= self._retry_at:
                self._retry_at = link.loop.time() + _PAUSE_SECONDS
                self._task = link.loop.create_task(self._listen())
            return 0
        number, command = self._bulletin.number()
        link.send(command).add_done_callback(unheard)
        return number

    async def caught_up(self, number: int, *, within: float) -> None:
        """Return when ``number`` came back; after ``within`` seconds without it the subscription is given up."""
        bulletin = self._bulletin
        if bulletin.reached(number):
            return
        future = asyncio.get_running_loop().create_future()
        bulletin.waiting.append((number, future))
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await future
        for _ in range(_TURNS):
            if bulletin.reached(number):
                return
            await asyncio.sleep(0)
        self.stop()

    async def _listen(self) -> None:
        task, subscription = asyncio.current_task(), cast("Any", PubSub(self._pool))
        try:
            await subscription.subscribe(self._bulletin.topic)
            while True:
                self._bulletin.take(await subscription.get_message(timeout=None))
        except _LOST:
            pass
        finally:
            if self._task is task:
                self._task = None
                self._bulletin.end()
            await subscription.aclose()

    def stop(self) -> None:
        """End the subscription; the next orders open another one."""
        task, self._task = self._task, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()
        self._bulletin.end()


class BlockingNews:
    """The subscription of one channel of threads; it is read together with the answers to orders.

    Args:
        pool: redis-py's pool, which the subscription's connection comes from.
        bulletin: what it tells.
    """

    def __init__(self, pool: Any, bulletin: Bulletin) -> None:
        self._pool = pool
        self._bulletin = bulletin
        self._lock = threading.Lock()
        self._subscription: Any = None
        self._retry_at = 0.0

    def ask(self, *, connected: bool) -> tuple[int, list[bytes]]:
        """Return the next number and what publishes it; 0 and nothing: nothing is heard of now."""
        if self._bulletin.up:
            number, command = self._bulletin.number()
            return number, [command]
        if connected and time.monotonic() >= self._retry_at and self._lock.acquire(blocking=False):
            try:
                self._subscribe()
            finally:
                self._lock.release()
        return 0, []

    def _subscribe(self) -> None:
        self._retry_at = time.monotonic() + _PAUSE_SECONDS
        self._close()
        self._subscription = BlockingPubSub(self._pool)
        try:
            self._subscription.subscribe(self._bulletin.topic)
            self._bulletin.take(self._subscription.get_message(timeout=_PAUSE_SECONDS))
        except _LOST:
            self._close()

    def caught_up(self, number: int, *, within: float) -> None:
        """Read until ``number`` came back; after ``within`` seconds without it the subscription is given up."""
        until = time.monotonic() + within
        with self._lock:
            while self._bulletin.up and self._bulletin.heard < number:
                left = until - time.monotonic()
                try:
                    message = self._subscription.get_message(timeout=max(0.0, left))
                except _LOST:
                    message, left = None, 0.0
                self._bulletin.take(message)
                if message is None and left <= 0:
                    self._bulletin.end()
                    self._close()

    def stop(self) -> None:
        """Believe the subscription no longer; the next orders open another one."""
        self._bulletin.end()

    def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def close(self) -> None:
        """End the subscription."""
        self._bulletin.end()
        with self._lock:
            self._close()


def mispaired(orders: Sequence[Order], replies: Sequence[Any]) -> bool:
    """Return whether a reply is not the one of its command, as after bytes that a broken network swallowed."""
    return any(
        isinstance(order, Ping) and not isinstance(reply, Exception) and reply != order.nonce
        for order, reply in zip(orders, replies, strict=True)
    )


_News = TypeVar("_News", News, BlockingNews)


class Hearing(Generic[_News]):
    """What channels of both colours say of how they hear."""

    _listener: Listener
    _news: _News | None
    _tracks: bool

    def _lost(self) -> None:
        """Take note that orders got lost: what is published may be heard of, but nothing proves it."""
        if self._news is not None:
            self._news.stop()
        self._listener.lost()

    @property
    def kind(self) -> str:
        """How changes are heard of: ``"tracking"`` or ``"pubsub"``."""
        return "tracking" if self._tracks else "pubsub"
