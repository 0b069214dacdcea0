"""One multiplexed connection: every command joins the next write, and replies are paired with callers in order.

redis-py connects (DNS, TLS, ACL, RESP3); then the transport is taken over by this protocol. The one invariant is that
the n-th reply belongs to the n-th command written. It holds because a command is packed before anything is queued,
because its entry joins ``pending`` in the same step in which its bytes are handed to the transport, and because a
caller that went away (cancelled, timed out) leaves its entry behind, whose reply is then read and dropped.

This module is the hot path, and its shape is argued by what commands cost (CPython 3.11, 100 tasks, 2.0 us of which
asyncio's own tasks and futures take):

- A command that finds the link idle is written at once, without waiting for the end of the tick, unless commands came
  together a moment ago. Then it is probably the first of a burst: written alone it would split every round of a
  hundred concurrent commands in two, and each half would pay for its own system calls.
- Statistics, deadlines, the guard and flow control are paid per write and per read, never per command.
- Replies are read into one buffer that is kept: a fresh one of the loop's size for each read costs more than the
  parsing of a short reply.
"""

import asyncio
import contextlib
from asyncio import Future, InvalidStateError
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import InvalidResponse

from isp_perf.errors import PoolBusyError, RejectedError
from isp_perf.redis._connect import detach, transport_of
from isp_perf.redis._entry import Batch, Entry, LinkLostError, PushError, VetoedError
from isp_perf.redis._stats import LaneStats
from isp_perf.redis._watch import Watch
from isp_perf.typing import Guard

__all__ = ["LARGE_BYTES", "Link"]

LARGE_BYTES = 1 << 16  # a longer reply is a large one; also the size of a read
_CHUNK = 256  # commands per write: the server starts on the first chunk while the next is being packed
_CHUNK_BYTES = 1 << 16
_LONE = 3  # so many commands in a row that came alone make the next one be written at once
_HIGH_WATER_BYTES = 8 << 20
_NOTHING = object()

_Push = hiredis.PushNotification


class Link(asyncio.BufferedProtocol):
    """A FIFO multiplexer over the transport of a connected redis-py connection.

    Args:
        connection: redis-py's connection, already connected; it is kept so that nothing closes its socket.
        timeout: seconds until an entry without a reply is overdue.
        in_flight: most entries written and not answered.
        reject: refuse entries above ``in_flight`` with ``PoolBusyError`` instead of queueing them.
        stats: counters of the lane.
        on_lost: called once when the link ends, after everybody who waited was told.
        on_push: receives each RESP3 push (its parts as a list, the kind first, as bytes) in the order of the wire: a
            push that the server sent before a reply is handed over before that reply is. It runs inside the event
            loop's read callback, so it must be short; if it raises, the link ends, because a push that was not dealt
            with is as good as lost. Without it pushes are counted and read past.
        guard: may veto a write, and hears how each one ended.

    Attributes:
        large: whether the read that is being dealt with completed a reply above ``LARGE_BYTES``. Who gets a reply may
            look whether it was theirs; the next read resets it.
    """

    closed: bool
    large: bool
    loop: asyncio.AbstractEventLoop
    pending: deque[Entry]
    progress_at: float
    stats: LaneStats
    transport: asyncio.Transport

    def __init__(
        self,
        connection: Any,
        *,
        timeout: float,
        in_flight: int,
        reject: bool,
        stats: LaneStats,
        on_lost: Callable[["Link"], None],
        on_push: Callable[[list[Any]], None] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.large = False
        self.progress_at = self.loop.time()
        self.pending = deque()
        self.held: Callable[[], int] | None = None  # hands over what was held back to be joined, returns how much
        self.collector: Any = None  # who joins them, see _coalesce
        self._connection = connection
        self._limit = in_flight
        self._reject = reject
        self.stats = stats
        self._on_lost = on_lost
        self._on_push = on_push
        self._out: list[bytes] = []
        self._out_entries: list[Entry] = []
        self._backlog: deque[tuple[bytes, Entry]] = deque()
        self._watch = Watch(self, self.loop, timeout=timeout, guard=guard)
        self._scheduled = False
        self._paused = False
        self._lone = _LONE  # writes of one command in a row, each on an idle link
        self._grown = 0  # bytes read of a reply that is not complete
        self._buffer = memoryview(bytearray(LARGE_BYTES))
        self._reader: Any = hiredis.Reader(
            protocolError=InvalidResponse, replyError=cast("Any", BaseParser).parse_error, notEnoughData=_NOTHING
        )
        self.transport = transport_of(connection)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self.transport.set_protocol(self)

    # -- what waits

    @property
    def queued(self) -> int:
        """Entries not yet handed to the transport."""
        return len(self._out) + len(self._backlog)

    @property
    def busy(self) -> bool:
        """Whether a command sent now would wait behind the in-flight limit or a full transport."""
        return bool(self._backlog) or self._paused or len(self.pending) >= self._limit

    @property
    def through(self) -> bool:
        """Whether a command sent now is written at once."""
        return self._lone >= _LONE and not (self._scheduled or self.pending or self._paused)

    # -- sending

    def send(self, data: bytes) -> "Future[Any]":
        """Queue one packed command and return the future of its reply; written at once if the link is idle."""
        if self.held is not None:
            self.held()
        if self._reject:
            self._make_room(1)
        entry: Future[Any] = Future(loop=self.loop)
        if not self._scheduled:
            if self._lone >= _LONE and not self.pending and not self._paused:
                self._write_through(data, entry)
                return entry
            self._scheduled = True
            self.loop.call_soon(self._flush)
        self._out.append(data)
        self._out_entries.append(entry)
        return entry

    def send_many(self, data: Sequence[bytes]) -> "Future[list[Any]]":
        """Queue packed commands next to each other and return the future of all their replies, errors included."""
        future: Future[list[Any]] = Future(loop=self.loop)
        if not data:
            future.set_result([])
            return future
        if self._reject and self.pending:
            self._make_room(len(data))
        if self.held is not None:
            self.held()
        entries: list[Any] = Batch(future, len(data)).entries
        if not self._scheduled:
            self._lone = 0
            if self._admitted(entries):
                self._write_all(data, entries)
            return future
        self._out.extend(data)
        self._out_entries.extend(entries)
        return future

    def _make_room(self, entries: int) -> None:
        if len(self.pending) + self.queued + entries > self._limit:
            raise PoolBusyError("redis")

    def schedule(self) -> None:
        """Have everything queued written at the end of this tick."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def queue(self, data: bytes, entry: Entry) -> None:
        """Queue one packed command whose reply goes to ``entry``; written with the next flush."""
        self._out.append(data)
        self._out_entries.append(entry)
        self.schedule()

    def _write_through(self, data: bytes, entry: "Future[Any]") -> None:
        if self._admitted((entry,)):
            self.pending.append(entry)
            self.stats.count_one(len(data))
            self.transport.write(data)

    def _admitted(self, entries: Sequence[Entry]) -> bool:
        """Start the time of entries; where the guard has a veto, tell them."""
        try:
            self._watch.mark(entries)
        except RejectedError as veto:
            for entry in entries:
                self.end(entry, VetoedError(self.loop.time(), veto))
            return False
        return True

    def _flush(self) -> None:
        joined = 0 if self.held is None else self.held()
        self._scheduled = False
        out, entries = self._living(self._out, self._out_entries)
        self._out, self._out_entries = [], []
        alone = max(len(entries), joined) <= 1 and not self.pending
        self._lone = self._lone + 1 if alone else 0
        if entries and not self.closed and self._admitted(entries):
            self._write_all(out, entries)

    def _write_all(self, out: Sequence[bytes], entries: list[Entry]) -> None:
        """Write entries, as far as the in-flight limit and the transport allow, and keep the rest."""
        if self._backlog or self._paused or self._limit - len(self.pending) < len(entries):
            self._backlog.extend(zip(out, entries, strict=True))
            self._drain()
        elif len(entries) <= _CHUNK:
            self._write(out, entries)
        else:
            self._write_chunks(out, entries)

    def _write_chunks(self, out: Sequence[bytes], entries: list[Entry]) -> None:
        for start in range(0, len(entries), _CHUNK):
            if self._paused:
                self._backlog.extend(zip(out[start:], entries[start:], strict=True))
                return
            self._write(out[start : start + _CHUNK], entries[start : start + _CHUNK])

    def _living(self, out: list[bytes], entries: list[Entry]) -> tuple[list[bytes], list[Entry]]:
        """Leave out what nobody waits for any more: it was not written, so no reply will come for it."""
        living = [entry for entry in entries if not entry.done()]
        if len(living) != len(entries):
            self.stats.cancelled_unsent += len(entries) - len(living)
            out = [data for data, entry in zip(out, entries, strict=True) if not entry.done()]
        return out, living

    def _write(self, out: Sequence[bytes], entries: list[Entry]) -> None:
        data = b"".join(out)
        self.pending.extend(entries)
        self.stats.count_batch(len(entries), len(data))
        self.transport.write(data)

    def _drain(self) -> None:
        """Write what waits, in chunks, as far as the in-flight limit and the transport allow."""
        while self._backlog and not self._paused and (room := min(self._limit - len(self.pending), _CHUNK)) > 0:
            taken = [self._backlog.popleft() for _ in range(min(room, len(self._backlog)))]
            out, entries = self._living([data for data, _ in taken], [entry for _, entry in taken])
            if entries:
                self._write(out, entries)

    # -- receiving, as the transport's protocol

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that is read into."""
        del sizehint  # a hint: the transport reads no more than the buffer holds
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pair every complete reply with the oldest entry."""
        self.progress_at = self.loop.time()
        self.stats.bytes_in += nbytes
        owed = len(self.pending)
        try:
            self._reader.feed(self._buffer, 0, nbytes)
            self._pair()
        except (InvalidResponse, IndexError, PushError) as error:
            self.fail(error)
            return
        self.large = self._grown >= LARGE_BYTES and len(self.pending) < owed
        if self.large:
            self.stats.large_replies += 1
        self._grown = self._grown + nbytes if len(self.pending) == owed and self._reader.has_data() else 0
        if self._backlog:
            self._drain()
        self._watch.sweep(idle=not self.pending and not self._backlog)

    def _pair(self) -> None:
        gets, next_entry = self._reader.gets, self.pending.popleft
        while (reply := gets()) is not _NOTHING:
            if type(reply) is _Push:
                self._take_push(reply)
                continue
            entry = next_entry()
            try:
                if type(reply) is bytes or not isinstance(reply, Exception):
                    entry.set_result(reply)
                else:
                    entry.set_exception(reply)
            except InvalidStateError:  # its caller was cancelled or timed out
                self.stats.discarded_replies += 1

    def _take_push(self, push: list[Any]) -> None:
        self.stats.pushes += 1
        if self._on_push is not None:
            try:
                self._on_push(push)
            except Exception as error:
                raise PushError from error

    def eof_received(self) -> bool:
        """Take the server's half-close for the end: no further reply can come."""
        self.fail(ConnectionResetError("the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End every entry."""
        self.fail(exc or ConnectionResetError("the connection was closed"))

    def pause_writing(self) -> None:
        """Keep commands here while the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._paused = False
        self._drain()

    # -- the end

    def fail(self, cause: BaseException | None, *, timeout: str = "") -> None:
        """End the link: every entry learns whether its command was written. Safe to call twice."""
        if self.closed:
            return
        if self.held is not None:
            self.held()  # those whose keys were held back are told as well
        self.closed = True
        since, now = self._watch.since(), self.loop.time()
        self._watch.stop(cause)
        ended = [*zip(self.pending, repeat(True)), *zip(self.unsent(), repeat(False))]
        for container in (self._backlog, self._out, self._out_entries, self.pending):
            container.clear()
        self._close_transport()
        for entry, sent in ended:
            at = since.get(id(entry), now)
            self.end(entry, LinkLostError(written=sent, since=at, timeout=timeout, cause=cause))
        self._on_lost(self)

    def unsent(self) -> Iterable[Entry]:
        """Return what waits to be written, in order."""
        return [*(entry for _, entry in self._backlog), *self._out_entries]

    def end(self, entry: Entry, error: LinkLostError) -> None:
        """End one caller's wait, if it has not ended already."""
        if not entry.done():
            self.stats.count_timeout(error.timeout)
            entry.set_exception(error)

    def _close_transport(self) -> None:
        """Close the socket without waiting; a loop that is already closed is no obstacle."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing will ever be called back
            self.transport.abort()
        detach(self._connection)
