"""A remote level in memory: the cache's protocol without a server, for tests that need no network."""

import asyncio
import fnmatch
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from time import monotonic
from typing import Any, Final

from isp_perf.errors import NotSentError
from isp_perf.typing import (
    NO_LEASE,
    Announce,
    Answer,
    Clock,
    Commit,
    Drop,
    DropIf,
    Fill,
    Identity,
    Intent,
    Lease,
    Listener,
    Order,
    Ping,
    Put,
    Read,
    Release,
    Renew,
    Replace,
    Swap,
)

__all__ = ["MemoryLevel"]

_VERSION_LIFE: Final = 30 * 86_400.0
_WRITER_BYTES: Final = 8


class _Server:
    """What a server keeps, and who hears of changes; each order is done as a whole.

    Attributes:
        data: key -> bytes.
        asked: how often each kind of order was carried out.
        sick: every order fails.
        identity: changes when the server lost what it kept.
        writable: whether it stores anything.
    """

    asked: Counter[str]
    clock: Clock
    data: dict[str, bytes]
    due: dict[str, float]
    identity: str
    listeners: list[tuple[str, Listener]]
    lock: Any
    members: dict[str, dict[str, float]]
    sick: bool
    writable: bool

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.data = {}
        self.due = {}
        self.members = {}
        self.listeners = []
        self.asked = Counter()
        self.sick = False
        self.identity = "memory/1"
        self.writable = True
        self.lock = threading.RLock()
        self._carry_out: dict[type[Any], Callable[[Any], Any]] = {
            Read: lambda order: Answer(self._found(order.keys), [self.get(key) or b"" for key in order.beside]),
            Lease: self._lease,
            Fill: self._swap,
            Put: self._put,
            Swap: lambda order: self._swap_seen(order, order.data, order.ttl),
            Replace: lambda order: self._swap_seen(order, b"L" + order.token, order.seconds),
            Renew: self._renew,
            Release: lambda order: self.get(order.key) == b"L" + order.token and self.remove(order.key),
            Drop: lambda order: sum(not self._intended(key) and self.remove(key) for key in order.keys),
            DropIf: lambda order: self.get(order.key) == order.seen and self.remove(order.key),
            Intent: self._intent,
            Commit: self._commit,
            Announce: self._announce,
            Ping: lambda order: order.nonce,
            Identity: lambda _: self.identity,
        }

    def perform(self, orders: Sequence[Order]) -> list[Any]:
        with self.lock:
            for order in orders:
                self.asked[type(order).__name__] += 1
            if self.sick:
                raise NotSentError("the level in memory is told to be sick")
            return [self._carry_out[type(order)](order) for order in orders]

    def get(self, key: str) -> bytes | None:
        if key in self.due and self.clock() >= self.due[key]:
            self.remove(key)
        return self.data.get(key)

    def put(self, key: str, data: bytes, seconds: float | None) -> None:
        self.data[key] = data
        self.due.pop(key, None)
        if seconds is not None:
            self.due[key] = self.clock() + seconds
        self._tell(key)

    def remove(self, key: str) -> bool:
        self.due.pop(key, None)
        there = self.data.pop(key, None) is not None
        if there:
            self._tell(key)
        return there

    def _tell(self, key: str) -> None:
        for prefix, listener in list(self.listeners):
            if key.startswith(prefix):
                listener.changed([key.encode("utf-8", "surrogatepass")])

    def _found(self, keys: Sequence[str]) -> list[tuple[bytes | None, float | None]]:
        return [(self.get(key), None if key not in self.due else self.due[key] - self.clock()) for key in keys]

    def _intended(self, key: str) -> bool:
        data = self.get(key)
        return data is not None and data[:1] == b"T" and len(data) % _WRITER_BYTES == 1

    def _lease(self, order: Lease) -> Answer:
        if not self.writable:
            return self._refused(order)
        self._make(order.beside, order.fresh, _VERSION_LIFE)
        found = self._found(order.keys)
        self._make(order.keys, b"L" + order.token, order.seconds)
        return Answer(found, [self.data[key] for key in order.beside])

    def _refused(self, order: Lease) -> Answer:
        found: list[tuple[bytes | None, float | None]]
        found = [(NO_LEASE, None) if data is None else (data, left) for data, left in self._found(order.keys)]
        return Answer(found, [self.get(key) or b"" for key in order.beside])

    def _make(self, keys: Sequence[str], data: bytes, seconds: float) -> None:
        for key in keys:
            if self.get(key) is None:
                self.put(key, data, seconds)

    def _put(self, order: Put) -> bool:
        if self._intended(order.key):
            return False
        self.put(order.key, order.data, order.ttl)
        return True

    def _swap(self, order: Fill) -> bool:
        key, expected, data, seconds = order.key, b"L" + order.token, order.data, order.ttl
        if self.get(key) != expected:
            return False
        self.put(key, data, seconds)
        return True

    def _swap_seen(self, order: Swap | Replace, data: bytes, seconds: float) -> bool:
        there = self.get(order.key)
        if there is None or sha1(there, usedforsecurity=False).hexdigest() != order.seen:
            return False
        self.put(order.key, data, seconds)
        return True

    def _renew(self, order: Renew) -> int:
        held = [key for key, token in zip(order.keys, order.tokens, strict=True) if self.get(key) == b"L" + token]
        for key in held:
            self.due[key] = self.clock() + order.seconds
        return len(held)

    def _intent(self, order: Intent) -> None:
        for key in order.keys:
            others = self.data[key] if self._intended(key) else b"T"
            self.put(key, others + order.writer, order.seconds)

    def _commit(self, order: Commit) -> None:
        for key in order.keys:
            data = self.data[key] if self._intended(key) else b"T"
            writers = [data[start : start + _WRITER_BYTES] for start in range(1, len(data), _WRITER_BYTES)]
            left = b"".join(writer for writer in writers if writer != order.writer)
            if left:
                self.put(key, b"T" + left, self.due[key] - self.clock())
            else:
                self.remove(key)

    def _announce(self, order: Announce) -> list[str]:
        members = self.members.setdefault(order.key, {})
        members[order.member] = self.clock() + order.seconds
        return [member for member, until in members.items() if until > self.clock()]

    def remove_pattern(self, glob: str) -> int:
        with self.lock:
            return sum(self.remove(key) for key in list(self.data) if fnmatch.fnmatchcase(key, glob))


class _BlockingLevel:
    """The level for threads; also one of its channels."""

    def __init__(self, server: _Server, listener: tuple[str, Listener] | None = None) -> None:
        self._server = server
        self._listener = listener
        self._closed = False

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; ``within`` means nothing in memory."""
        if within <= 0:
            raise TimeoutError
        self._connect()
        return self._server.perform(orders)

    def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the glob; ``force`` means nothing in memory."""
        self._server.perform([Ping(bytes([force]))])
        return self._server.remove_pattern(glob)

    def channel(self, prefix: str, listener: Listener, /) -> "_BlockingLevel":
        """Return a channel."""
        return _BlockingLevel(self._server, (prefix, listener))

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Hear no more."""
        self._closed = True
        listener = self._listener
        if listener is not None and listener in self._server.listeners:
            self._server.listeners.remove(listener)
            listener[1].lost()

    def _connect(self) -> None:
        if self._listener is not None and self._listener not in self._server.listeners and not self._server.sick:
            self._server.listeners.append(self._listener)
            self._listener[1].connected()


class _TaskChannel:
    def __init__(self, level: "MemoryLevel", channel: _BlockingLevel) -> None:
        self._level = level
        self._channel = channel

    @property
    def closed(self) -> bool:
        return self._channel.closed

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        await self._level.arrive(orders)
        return self._channel.perform(orders, within=within)

    def close(self) -> None:
        self._channel.close()


class MemoryLevel:
    """A ``RemoteLevel`` in memory that several managers may share as several processes would share a server.

    Args:
        clock: seconds for what lives in it; default ``time.monotonic``.

    Attributes:
        blocking: the same level for threads.
        closed: whether ``aclose`` was called.
        before: awaited before orders of tasks are carried out: the moment for a race. Default ``None``.
    """

    before: Callable[[Sequence[Order]], Awaitable[None]] | None
    blocking: _BlockingLevel
    closed: bool

    def __init__(self, clock: Clock = monotonic) -> None:
        self._server = _Server(clock)
        self.blocking = _BlockingLevel(self._server)
        self.before = None
        self.closed = False

    @property
    def data(self) -> dict[str, bytes]:
        """What it holds, by key; may be changed."""
        return self._server.data

    @property
    def asked(self) -> Counter[str]:
        """How often each kind of order was carried out, by class name."""
        return self._server.asked

    @property
    def sick(self) -> bool:
        """Whether every order fails with ``NotSentError``."""
        return self._server.sick

    @sick.setter
    def sick(self, value: bool) -> None:
        self._server.sick = value
        if value:
            self.cut()

    @property
    def writable(self) -> bool:
        """Whether leases may be granted; a server without memory or permission grants none."""
        return self._server.writable

    @writable.setter
    def writable(self, value: bool) -> None:
        self._server.writable = value

    def cut(self) -> None:
        """End every channel, as a lost connection would; the next order of each opens it again."""
        cut, self._server.listeners = self._server.listeners, []
        for _, listener in cut:
            listener.lost()

    def restart(self, identity: str) -> None:
        """Become another server with the same data, known by ``identity``."""
        self._server.identity = identity
        self.cut()

    def remove(self, key: str) -> bool:
        """Remove ``key`` as another program would, and return whether it was there."""
        return self._server.remove(key)

    def expire_all(self) -> None:
        """Lose everything, as ``FLUSHALL`` does."""
        self._server.data.clear()
        self._server.due.clear()
        for _, listener in list(self._server.listeners):
            listener.changed(None)

    async def arrive(self, orders: Sequence[Order]) -> None:
        """Wait as long as orders take to arrive."""
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before(orders)

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; see ``RemoteLevel.perform``; ``within`` seconds mean nothing in memory."""
        await self.arrive(orders)
        return self.blocking.perform(orders, within=within)

    async def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the glob and return their number; ``force`` means nothing in memory."""
        return self.blocking.delete_pattern(glob, force=force)

    def channel(self, prefix: str, listener: Listener, /) -> _TaskChannel:
        """Return a channel for keys that begin with ``prefix``, of which ``listener`` hears; see ``RemoteLevel``."""
        return _TaskChannel(self, self.blocking.channel(prefix, listener))

    async def aclose(self) -> None:
        """End every channel; orders are carried out all the same."""
        self.closed = True
        self.cut()
