"""Combining for threads: whoever finds the link free leads, and sends everybody's commands in one write.

A thread queues its commands. If nobody leads, it takes the whole queue, writes it at once and reads all replies, its
own and those of the others (its followers), who sleep on a lock each. Then the oldest waiter leads the next round. No
background thread and no event loop is involved, so a single thread pays for nothing but two lock operations.

The role of the leader is never lost: it is passed on when a round ends, fails, or its leader is interrupted; and a
leader whose own time is over hands the reading of the round to a follower who still waits. A follower whose time is
over, or who is interrupted, leaves its slot behind, whose replies are then read and dropped.

Followers who are done are woken one by the other: each wakes the next before it goes on. Woken all at once, thirty
threads would mostly wait for the interpreter's lock, to be woken a second time.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from redis.exceptions import InvalidResponse

from isp_perf.errors import RejectedError
from isp_perf.redis._entry import LinkLostError, VetoedError
from isp_perf.redis._slot import DONE, LEAD, READ, WAIT, Round, Slot, complete
from isp_perf.redis._stats import LaneStats
from isp_perf.redis._wire import Wire
from isp_perf.typing import Guard

__all__ = ["Combiner"]

_CHUNK = 256  # commands per write
_MOST_SLOTS = 1_000  # threads whose commands one leader takes along
_PING = b"*1\r\n$4\r\nPING\r\n"


class Combiner:
    """One connection that any number of threads share.

    Args:
        connect: returns a connected redis-py connection within the seconds given, or raises.
        check_after: seconds of silence after which the connection is checked before it is used; 0: never.
        stats: counters of the lane.
        guard: may veto a round, and hears how it and the attempts to connect ended.
        on_push: receives each RESP3 push, by the thread that reads it, before the replies that follow it.
        on_lost: called each time a connection ends.
    """

    def __init__(
        self,
        connect: Callable[[float], Any],
        *,
        check_after: float,
        stats: LaneStats,
        guard: Guard | None = None,
        on_push: Callable[[Sequence[Any]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._on_push = on_push
        self._on_lost = on_lost
        self._check_after = check_after
        self._stats = stats
        self._guard = guard
        self._forgotten: list[Any] = []
        self._fresh()

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[Slot] = deque()
        self._leading = False
        self._connection: Wire | None = None

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
        since = time.monotonic()
        with self._mutex:
            slot = Slot(data, deadline, since) if self._leading else None
            if slot is None:
                self._leading = True
            else:
                self._queue.append(slot)
        return self._alone(data, deadline, since) if slot is None else self._follow(slot)

    # -- roles

    def _follow(self, slot: Slot) -> list[Any]:
        """Wait for the replies, or for a role to play."""
        try:
            if not slot.lock.acquire(timeout=max(0.0, slot.deadline - slot.since)):
                self._give_up(slot)
        except BaseException as error:  # of a signal's handler
            self._abandon(slot, error)
            raise
        finally:
            if slot.following is not None:
                slot.following.lock.release()
        if slot.role is LEAD:
            self._lead(slot)
        elif slot.role is READ and slot.round is not None:
            self._read(slot.round, slot)
        if slot.error is not None:
            raise slot.error
        return slot.replies

    def _alone(self, data: Sequence[bytes], deadline: float, since: float) -> list[Any]:
        """Send and read the commands of a thread that found the connection free; others queue up meanwhile."""
        connection = self._admitted(deadline, since)
        self._stats.count_batch(len(data), sum(map(len, data)))
        try:
            replies = self._exchange(connection, data, deadline)
        except BaseException as error:
            self._end(connection, error)
            if not isinstance(error, OSError | InvalidResponse):
                raise
            kind = "server" if isinstance(error, TimeoutError) else ""
            self._stats.count_timeout(kind)
            raise LinkLostError(written=True, since=since, timeout=kind, cause=error) from error
        with self._mutex:
            self._pass_on_locked()
        if self._guard is not None:
            self._guard.success()
        return replies

    def _exchange(self, connection: Wire, data: Sequence[bytes], deadline: float) -> list[Any]:
        """Return the replies to commands, written in chunks of which two are on their way at any time."""
        replies: list[Any] = []
        if len(data) == 1:
            connection.send(data[0], deadline)
        for start in range(0, len(data) if len(data) > 1 else 0, _CHUNK):
            connection.send(b"".join(data[start : start + _CHUNK]), deadline)
            while len(replies) < start:
                replies.append(connection.next_reply(deadline, self._stats))
        while len(replies) < len(data):
            replies.append(connection.next_reply(deadline, self._stats))
        return replies

    def _end(self, connection: Wire, cause: BaseException) -> None:
        """Give up a connection whose replies cannot be read to the end, and pass the lead on."""
        self._drop(connection)
        self._stats.lost_links += 1
        with self._mutex:
            self._pass_on_locked()
        self._blame(cause)

    def _admitted(self, deadline: float, since: float) -> Wire:
        """Return the connection for a new round; if there is none, or the guard has a veto, everybody learns it."""
        try:
            connection = self._ready(deadline)
            if self._guard is not None:
                self._guard.before()
        except RejectedError as veto:
            vetoed = VetoedError(since, veto)
            self._refuse(vetoed)
            raise vetoed from veto
        except BaseException as error:
            self._refuse(error)
            raise
        return connection

    def _give_up(self, slot: Slot) -> None:
        """End a follower's wait at its deadline, unless it was given a role in the same moment."""
        with self._mutex:
            if slot.role is not WAIT:
                return
            slot.dead = True
            if not slot.sent:
                self._queue.remove(slot)
        if slot.sent:
            self._stats.timeouts_server += 1
        else:
            self._stats.timeouts_queue += 1
        slot.lose(timeout="server" if slot.sent else "queue")

    def _abandon(self, slot: Slot, cause: BaseException) -> None:
        """A waiting thread was interrupted: it goes, and whatever role it was given meanwhile goes to another."""
        with self._mutex:
            slot.dead = True
            if not slot.sent:
                self._queue.remove(slot)
            if slot.role is LEAD:
                self._pass_on_locked()
        if slot.role is READ and slot.round is not None:
            self._fail(slot.round, cause)

    def _lead(self, slot: Slot) -> None:
        """Send what is queued and read the replies."""
        connection = self._admitted(slot.deadline, slot.since)
        batch = self._take()
        data = list(chain.from_iterable(each.data for each in batch))
        self._stats.count_batch(len(data), sum(map(len, data)))
        started = Round(connection, batch)
        try:
            connection.send(b"".join(data), slot.deadline)
        except BaseException as error:
            self._fail(started, error)
            if not isinstance(error, OSError):
                raise
        else:
            self._read(started, slot)

    def _take(self) -> list[Slot]:
        """Take what is queued for one write."""
        with self._mutex:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST_SLOTS))]
            for each in batch:
                each.sent = True
        return batch

    def _read(self, current: Round, slot: Slot) -> None:
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

    def _hand_over(self, current: Round, slot: Slot) -> None:
        """Let a follower who still waits read on; if there is none, the unread replies end the connection."""
        with self._mutex:
            slot.role = DONE
            self._wake_locked(filter(complete, current.slots))
            current.slots = [each for each in current.slots if not complete(each)]
            if slot in current.slots:
                slot.lose(timeout="server")
                slot.dead = True
                self._stats.timeouts_server += 1
            heir = next((each for each in current.slots if not each.dead), None)
            if heir is not None:
                heir.role, heir.round = READ, current
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

    def _fail(self, current: Round, cause: BaseException) -> None:
        """The connection ended: everybody of the round learns it."""
        self._drop(current.connection)
        self._stats.lost_links += 1
        kind = "server" if isinstance(cause, TimeoutError) else ""
        with self._mutex:
            self._pass_on_locked()
            for each in current.slots:
                if not complete(each) and not each.dead:
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
            heir.role = LEAD
            heir.lock.release()
        else:
            self._leading = False

    def _wake_locked(self, slots: Iterable[Slot]) -> None:
        """Tell followers that they are done: the first is woken, and wakes the next as soon as it runs."""
        last: Slot | None = None
        for each in slots:
            if each.role is WAIT and not each.dead:
                each.role = DONE
                if last is None:
                    each.lock.release()
                else:
                    last.following = each
                last = each

    # -- the connection

    def _ready(self, deadline: float) -> Wire:
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
            connection = self._connection = Wire(self._dial(left), self._on_push)
            self._stats.connects += 1
        return connection

    def _dial(self, left: float) -> Any:
        try:
            return self._connect(left)
        except Exception as error:
            self._blame(error.__cause__ or error)
            raise

    def _drop(self, connection: Wire) -> None:
        current = self._connection is connection
        if current:
            self._connection = None
        connection.driver.disconnect()
        if current and self._on_lost is not None:
            self._on_lost()
