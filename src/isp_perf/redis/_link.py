"""One multiplexed connection: every command joins the next write, and replies are paired with callers in order.

redis-py connects (DNS, TLS, ACL, RESP3); then the transport is taken over by this protocol. The one invariant is that
the n-th reply belongs to the n-th command written. It holds because a command is packed before anything is queued,
because its entry joins ``pending`` in the same step in which its bytes are handed to the transport, and because a
caller that went away (cancelled, timed out) leaves its entry behind, whose reply is then read and dropped.

Deadlines cost nothing per command: all entries of one event-loop tick share one mark, and one timer per link aims at
the oldest. An entry that is overdue ends its caller's wait; a link from which nothing at all was heard for the timeout
while answers are owed is dead.
"""

import asyncio
import contextlib
from asyncio import InvalidStateError
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import InvalidResponse

from isp_perf.errors import PoolBusyError
from isp_perf.redis._connect import detach, transport_of
from isp_perf.redis._entry import Batch, Entry, LinkLostError, PushError
from isp_perf.redis._stats import LaneStats

__all__ = ["Link"]

_CHUNK = 256  # commands per write: the server starts on the first chunk while the next is being packed
_HIGH_WATER_BYTES = 8 << 20
_NOTHING = object()
_LATE_SHARE = 0.25  # a timer later than this share of the timeout means that our own loop was blocked

_Push = hiredis.PushNotification


class Link(asyncio.Protocol):
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
    """

    closed: bool
    loop: asyncio.AbstractEventLoop
    progress_at: float
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
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.progress_at = self.loop.time()
        self.pending: deque[Entry] = deque()
        self.held: Callable[[], None] | None = None  # hands over commands that were held back to be joined
        self.collector: Any = None  # who joins them, see _coalesce
        self._connection = connection
        self._timeout = timeout
        self._limit = in_flight
        self._reject = reject
        self._stats = stats
        self._on_lost = on_lost
        self._on_push = on_push
        self._out: list[bytes] = []
        self._out_entries: list[Entry] = []
        self._backlog: deque[tuple[bytes, Entry]] = deque()
        self._marks: deque[tuple[float, Sequence[Entry]]] = deque()
        self._scheduled = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._second_look = False
        self._reader = hiredis.Reader(
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

    # -- sending

    def send(self, data: bytes) -> "asyncio.Future[Any]":
        """Queue one packed command and return the future of its reply; written at once if the link is idle."""
        if self.held is not None:
            self.held()
        entry: asyncio.Future[Any] = self.loop.create_future()
        if self.pending or self._out or self._paused:
            if self._reject and len(self.pending) + len(self._out) + len(self._backlog) >= self._limit:
                raise PoolBusyError("redis")
            self._out.append(data)
            self._out_entries.append(entry)
            if not self._scheduled:
                self.schedule()
            return entry
        entries = (entry,)
        self._mark(entries)
        self.pending.append(entry)
        self._stats.count_batch(1, len(data))
        self.transport.write(data)
        return entry

    def send_many(self, data: Sequence[bytes]) -> "asyncio.Future[list[Any]]":
        """Queue packed commands next to each other and return the future of all their replies, errors included."""
        future: asyncio.Future[list[Any]] = self.loop.create_future()
        if not data:
            future.set_result([])
            return future
        if self._reject and len(self.pending) + self.queued + len(data) > self._limit and self.pending:
            raise PoolBusyError("redis")
        if self.held is not None:
            self.held()
        self._out.extend(data)
        self._out_entries.extend([Batch(future, len(data))] * len(data))
        if not self._scheduled:
            self._flush()
        return future

    @property
    def idle(self) -> bool:
        """Whether a command would be written at once."""
        return not (self.pending or self._out or self._paused)

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

    def _mark(self, entries: Sequence[Entry]) -> None:
        now = self.loop.time()
        if not self.pending:
            self.progress_at = now
        self._marks.append((now, entries))
        if self._timer is None:
            self._arm(now + self._timeout)

    def _flush(self) -> None:
        if self.held is not None:
            self.held()
        self._scheduled = False
        out, entries = self._out, self._out_entries
        self._out, self._out_entries = [], []
        out, entries = self._living(out, entries)
        if self.closed or not entries:
            return
        self._mark(entries)
        if self._backlog or self._paused or self._room() < len(entries):
            self._backlog.extend(zip(out, entries, strict=True))
            self._drain()
        elif len(entries) <= _CHUNK:
            self._write(out, entries)
        else:
            self._write_chunks(out, entries)

    def _write_chunks(self, out: list[bytes], entries: list[Entry]) -> None:
        for start in range(0, len(entries), _CHUNK):
            if self._paused:
                self._backlog.extend(zip(out[start:], entries[start:], strict=True))
                return
            self._write(out[start : start + _CHUNK], entries[start : start + _CHUNK])

    def _living(self, out: list[bytes], entries: list[Entry]) -> tuple[list[bytes], list[Entry]]:
        """Leave out what nobody waits for any more: it was not written, so no reply will come for it."""
        living = [entry for entry in entries if not entry.done()]
        if len(living) != len(entries):
            self._stats.cancelled_unsent += len(entries) - len(living)
            out = [data for data, entry in zip(out, entries, strict=True) if not entry.done()]
        return out, living

    def _room(self) -> int:
        return self._limit - len(self.pending)

    def _write(self, out: list[bytes], entries: list[Entry]) -> None:
        data = b"".join(out)
        self.pending.extend(entries)
        self._stats.count_batch(len(entries), len(data))
        self.transport.write(data)

    def _drain(self) -> None:
        """Write what waits, in chunks, as far as the in-flight limit and the transport allow."""
        while self._backlog and not self._paused and (room := min(self._room(), _CHUNK)) > 0:
            taken = [self._backlog.popleft() for _ in range(min(room, len(self._backlog)))]
            out, entries = self._living([data for data, _ in taken], [entry for _, entry in taken])
            if entries:
                self._write(out, entries)

    # -- receiving, as the transport's protocol

    def data_received(self, data: bytes) -> None:
        """Pair every complete reply with the oldest entry."""
        self.progress_at = self.loop.time()
        self._stats.bytes_in += len(data)
        try:
            self._reader.feed(data)
            self._pair()
        except (InvalidResponse, IndexError, PushError) as error:
            self.fail(error)
            return
        if self._backlog:
            self._drain()
        self._sweep()

    def _sweep(self) -> None:
        """Forget the marks of ticks whose entries all ended."""
        marks = self._marks
        if not self.pending and not self._backlog:
            marks.clear()
        while marks and marks[0][1][-1].done() and all(entry.done() for entry in marks[0][1]):
            marks.popleft()

    def _pair(self) -> None:
        gets, next_entry = self._reader.gets, self.pending.popleft
        while True:
            reply = gets()
            if reply is _NOTHING:
                return
            if type(reply) is _Push:
                self._take_push(reply)
                continue
            entry = next_entry()
            try:
                if isinstance(reply, Exception):
                    entry.set_exception(reply)
                else:
                    entry.set_result(reply)
            except InvalidStateError:  # its caller was cancelled or timed out
                self._stats.discarded_replies += 1

    def _take_push(self, push: list[Any]) -> None:
        self._stats.pushes += 1
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

    # -- time

    def _arm(self, at: float) -> None:
        self._armed_for = at
        self._timer = self.loop.call_at(at, self._check)

    def _check(self) -> None:
        self._timer = None
        if self.closed or not self._marks:
            return
        now, aim = self.loop.time(), self._marks[0][0] + self._timeout
        if now < aim:
            self._arm(aim)
            return
        late = now - self._armed_for > self._timeout * _LATE_SHARE
        if late and not self._second_look:  # read what arrived while our loop was blocked, then look again
            self._second_look = True
            self._arm(now + 0.001)
            return
        kind = "client" if self._second_look else "server"
        self._second_look = False
        self._end_overdue(now, kind)

    def _end_overdue(self, now: float, kind: str) -> None:
        """End the callers whose time is over, or the link if nothing at all was heard for as long."""
        if self.pending and now - self.progress_at >= self._timeout:
            self.fail(TimeoutError(f"no byte for {now - self.progress_at:.3f} s"), timeout=kind)
            return
        self._expire(now - self._timeout, kind)
        if self._marks:
            self._arm(self._marks[0][0] + self._timeout)

    def _expire(self, before: float, kind: str) -> None:
        unsent = Counter(id(entry) for _, entry in self._backlog)
        while self._marks and self._marks[0][0] <= before:
            since, entries = self._marks.popleft()
            for entry in entries:
                # Of a batch the written part is answered first, so the unsent part is the last to be missing.
                waiting = unsent[id(entry)] >= getattr(entry, "missing", 1)
                reason = "queue" if waiting else kind
                self._end(entry, LinkLostError(written=not waiting, since=since, timeout=reason))

    def _count_timeout(self, kind: str) -> None:
        if kind:
            name = f"timeouts_{kind}"
            setattr(self._stats, name, getattr(self._stats, name) + 1)

    # -- the end

    def fail(self, cause: BaseException | None, *, timeout: str = "") -> None:
        """End the link: every entry learns whether its command was written. Safe to call twice."""
        if self.closed:
            return
        if self.held is not None:
            self.held()  # those whose keys were held back are told as well
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        since = {id(entry): at for at, entries in self._marks for entry in entries}
        now = self.loop.time()
        ended = self._entries()
        for container in (self._backlog, self._out, self._out_entries, self._marks, self.pending):
            container.clear()
        self._close_transport()
        for entry, sent in ended:
            at = since.get(id(entry), now)
            self._end(entry, LinkLostError(written=sent, since=at, timeout=timeout, cause=cause))
        self._on_lost(self)

    def _entries(self) -> list[tuple[Entry, bool]]:
        """Return everything that waits, in order, and whether it was written."""
        unwritten = [entry for _, entry in self._backlog] + self._out_entries
        return [*zip(self.pending, repeat(True)), *zip(unwritten, repeat(False))]

    def _end(self, entry: Entry, error: LinkLostError) -> None:
        if not entry.done():
            self._count_timeout(error.timeout)
            entry.set_exception(error)

    def _close_transport(self) -> None:
        """Close the socket without waiting; a loop that is already closed is no obstacle."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing will ever be called back
            self.transport.abort()
        detach(self._connection)
