"""Combining for threads: whoever finds the link free leads, and sends everybody's commands in one write.

A thread queues its commands. If nobody leads, it takes the whole queue, writes it at once and reads all replies, its
own and those of the others (its followers), who sleep on a lock each. Then the oldest waiter leads the next round. No
background thread and no event loop is involved, so a single thread pays for nothing but two lock operations.

The role of the leader is never lost: it is passed on when a round ends, fails, or its leader is interrupted; and a
leader whose own time is over hands the reading of the round to a follower who still waits. A follower whose time is
over leaves its slot behind, whose replies are then read and dropped.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import chain
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import InvalidResponse

from isp_perf.errors import RejectedError
from isp_perf.redis._connect import socket_of
from isp_perf.redis._entry import LinkLostError, VetoedError
from isp_perf.redis._stats import LaneStats
from isp_perf.typing import Guard

__all__ = ["Combiner"]

_NOTHING = object()
_READ_BYTES = 1 << 16
_MOST_SLOTS = 1_000  # threads whose commands one leader takes along
_PING = b"*1\r\n$4\r\nPING\r\n"
_NO_LOCK = threading.Lock()
_Push = hiredis.PushNotification


class _Role(Enum):
    """What a thread is to do when it is woken."""

    WAIT = 0
    LEAD = 1
    READ = 2
    DONE = 3


_WAIT, _LEAD, _READ, _DONE = _Role.WAIT, _Role.LEAD, _Role.READ, _Role.DONE


class _Slot:
    """One thread's commands and what became of them. ``role`` changes under the combiner's mutex only."""

    __slots__ = ("data", "dead", "deadline", "error", "lock", "replies", "role", "round", "sent", "since")

    def __init__(self, data: Sequence[bytes], deadline: float) -> None:
        self.data = data
        self.since = time.monotonic()
        self.deadline = deadline
        self.replies: list[Any] = []
        self.error: Exception | None = None
        self.role = _WAIT
        self.round: _Round | None = None
        self.sent = False
        self.dead = False
        self.lock = _NO_LOCK

    def sleep(self) -> None:
        """Get a lock to wait on; only followers need one."""
        self.lock = threading.Lock()
        self.lock.acquire()

    def lose(self, *, timeout: str = "", cause: BaseException | None = None) -> None:
        """Note that the replies will not come."""
        self.error = LinkLostError(written=self.sent, since=self.since, timeout=timeout, cause=cause)


def _complete(slot: _Slot) -> bool:
    """Return whether every reply of a slot was read."""
    return len(slot.replies) == len(slot.data)


class _Round:
    """Slots whose commands are on their way, in order, and the connection their replies come from."""

    __slots__ = ("connection", "slots")

    def __init__(self, connection: "_Connection", slots: list[_Slot]) -> None:
        self.connection = connection
        self.slots = slots


class _Connection:
    """A connected redis-py connection, read with a parser of our own."""

    def __init__(self, connection: Any) -> None:
        self.driver = connection
        self.socket = socket_of(connection)
        self.reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=cast("Any", BaseParser).parse_error, notEnoughData=_NOTHING
        )
        self.used_at = time.monotonic()
        self._timed = False

    def next_reply(self, deadline: float, stats: LaneStats) -> Any:
        """Return the next reply, reading as much as it takes; ``TimeoutError`` at the deadline."""
        while True:
            reply = self.reader.gets()
            if reply is _NOTHING:
                self._read(deadline, stats)
            elif type(reply) is not _Push:
                return reply

    def _read(self, deadline: float, stats: LaneStats) -> None:
        if not self._timed:  # the first read after a write has the write's timeout still
            self.socket.settimeout(max(0.0005, deadline - time.monotonic()))
        self._timed = False
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        stats.bytes_in += len(data)
        self.reader.feed(data)

    def send(self, data: bytes, deadline: float) -> None:
        """Write everything."""
        self.used_at = now = time.monotonic()
        self.socket.settimeout(max(0.0005, deadline - now))
        self._timed = True
        self.socket.sendall(data)


class Combiner:
    """One connection that any number of threads share.

    Args:
        connect: returns a connected redis-py connection within the seconds given, or raises.
        check_after: seconds of silence after which the connection is checked before it is used; 0: never.
        stats: counters of the lane.
        guard: may veto a round, and hears how it and the attempts to connect ended.
    """

    def __init__(
        self, connect: Callable[[float], Any], *, check_after: float, stats: LaneStats, guard: Guard | None = None
    ) -> None:
        self._connect = connect
        self._check_after = check_after
        self._stats = stats
        self._guard = guard
        self._forgotten: list[Any] = []
        self._fresh()

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[_Slot] = deque()
        self._leading = False
        self._connection: _Connection | None = None

    def forget(self) -> None:
        """In a forked child: start anew, without touching the parent's socket."""
        self._forgotten.append(self._connection)
        self._fresh()

    def sockets(self) -> tuple[int, int]:
        """Return how many sockets are open, and how many of them nobody uses now."""
        connected = self._connection is not None
        return int(connected), int(connected and not self._leading)

    @property
    def busy(self) -> bool:
        """Whether a thread is using the connection now."""
        return self._leading

    def close(self) -> None:
        """Close the connection; threads that wait for answers are told."""
        connection = self._connection
        if connection is not None:
            self._drop(connection)

    def execute(self, data: Sequence[bytes], *, deadline: float) -> list[Any]:
        """Send packed commands and return their replies, error replies among them.

        Args:
            data: the commands, next to each other on the wire.
            deadline: when to give up, in ``time.monotonic``'s seconds.

        Raises:
            LinkLostError: the connection ended, or the time was over; it says whether anything was written.
            Exception: what ``connect`` raised; nothing was sent.
        """
        slot = _Slot(data, deadline)
        with self._mutex:
            self._queue.append(slot)
            if self._leading:
                slot.sleep()
            else:
                self._leading = True
                slot.role = _LEAD
        if slot.lock is not _NO_LOCK and not slot.lock.acquire(timeout=max(0.0, deadline - slot.since)):
            self._give_up(slot)
        if slot.role is _LEAD:
            self._lead(slot)
        elif slot.role is _READ and slot.round is not None:
            self._read(slot.round, slot)
        if slot.error is not None:
            raise slot.error
        return slot.replies

    # -- roles

    def _give_up(self, slot: _Slot) -> None:
        """End a follower's wait at its deadline, unless it was given a role in the same moment."""
        with self._mutex:
            if slot.role is not _WAIT:
                return
            slot.dead = True
            if not slot.sent:
                self._queue.remove(slot)
        if slot.sent:
            self._stats.timeouts_server += 1
        else:
            self._stats.timeouts_queue += 1
        slot.lose(timeout="server" if slot.sent else "queue")

    def _lead(self, slot: _Slot) -> None:
        """Send what is queued and read the replies."""
        try:
            connection = self._ready(slot.deadline)
            if self._guard is not None:
                self._guard.before()
        except RejectedError as veto:
            self._refuse(VetoedError(slot.since, veto))
            return
        except BaseException as error:
            self._refuse(error)
            raise
        batch = self._take()
        data = list(chain.from_iterable(each.data for each in batch))
        self._stats.count_batch(len(data), sum(map(len, data)))
        started = _Round(connection, batch)
        try:
            connection.send(b"".join(data), slot.deadline)
        except BaseException as error:
            self._fail(started, error)
            if not isinstance(error, OSError):
                raise
        else:
            self._read(started, slot)

    def _take(self) -> list[_Slot]:
        """Take what is queued for one write."""
        with self._mutex:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST_SLOTS))]
            for each in batch:
                each.sent = True
        return batch

    def _read(self, current: _Round, slot: _Slot) -> None:
        """Read the replies of a round, in order; hand the rest over when the reader's own time ends."""
        connection, stats = current.connection, self._stats
        try:
            for each in current.slots:
                while len(each.replies) < len(each.data):
                    each.replies.append(connection.next_reply(slot.deadline, stats))
        except TimeoutError:
            self._hand_over(current, slot)
        except BaseException as error:
            self._fail(current, error)
            if not isinstance(error, OSError | InvalidResponse):
                raise
        else:
            with self._mutex:
                self._pass_on_locked()
                self._wake_locked(current.slots)
            if self._guard is not None:
                self._guard.success()

    def _hand_over(self, current: _Round, slot: _Slot) -> None:
        """Let a follower who still waits read on; if there is none, the unread replies end the connection."""
        with self._mutex:
            slot.role = _DONE
            self._wake_locked(filter(_complete, current.slots))
            current.slots = [each for each in current.slots if not _complete(each)]
            if slot in current.slots:
                slot.lose(timeout="server")
                slot.dead = True
                self._stats.timeouts_server += 1
            heir = next((each for each in current.slots if not each.dead), None)
            if heir is not None:
                heir.role, heir.round = _READ, current
                heir.lock.release()
                return
        self._drop(current.connection)
        with self._mutex:
            self._pass_on_locked()
        self._blame(TimeoutError("no answer in time"))

    def _blame(self, cause: BaseException) -> None:
        """Tell the guard of a failure; an interrupted leader is none."""
        if self._guard is not None and isinstance(cause, Exception):
            self._guard.failure(cause)

    def _fail(self, current: _Round, cause: BaseException) -> None:
        """The connection ended: everybody of the round learns it."""
        self._drop(current.connection)
        self._stats.lost_links += 1
        kind = "server" if isinstance(cause, TimeoutError) else ""
        with self._mutex:
            self._pass_on_locked()
            for each in current.slots:
                if not _complete(each) and not each.dead:
                    each.lose(timeout=kind, cause=cause)
            self._wake_locked(current.slots)
        self._blame(cause)

    def _refuse(self, cause: BaseException) -> None:
        """There is no connection: everybody who waits learns it."""
        with self._mutex:
            batch = list(self._queue)
            self._queue.clear()
            self._leading = False
            for each in batch:
                each.error = cause if isinstance(cause, Exception) else None
                if each.error is None:
                    each.lose(cause=cause)
            self._wake_locked(batch)

    def _pass_on_locked(self) -> None:
        """Make the oldest waiter the leader, or nobody."""
        if self._queue:
            heir = self._queue[0]
            heir.role = _LEAD
            heir.lock.release()
        else:
            self._leading = False

    def _wake_locked(self, slots: Iterable[_Slot]) -> None:
        for each in slots:
            if each.role is _WAIT and not each.dead:
                each.role = _DONE
                each.lock.release()

    # -- the connection

    def _ready(self, deadline: float) -> _Connection:
        """Return the connection, new if there is none or if the old one was silent for long and does not answer."""
        connection = self._connection
        if connection is not None and self._check_after and time.monotonic() - connection.used_at > self._check_after:
            try:
                connection.send(_PING, deadline)
                connection.next_reply(deadline, self._stats)
            except (OSError, InvalidResponse):
                self._drop(connection)
                connection = None
        if connection is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkLostError(written=False, since=deadline, timeout="queue")
            connection = self._connection = _Connection(self._dial(left))
            self._stats.connects += 1
        return connection

    def _dial(self, left: float) -> Any:
        try:
            return self._connect(left)
        except Exception as error:
            self._blame(error.__cause__ or error)
            raise

    def _drop(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
        connection.driver.disconnect()
