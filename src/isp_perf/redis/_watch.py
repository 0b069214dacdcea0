"""The deadlines of a link: they cost nothing per command.

All entries of one write share one mark, and one timer per link aims at the oldest mark. An entry that is overdue ends
its caller's wait. A link from which nothing at all was heard for the timeout, while answers are owed, is dead; one
that is in the middle of a long answer is not.

A guard is asked once per write too: it hears of a success when everything of the write was answered, and of a failure
when something of it was not, in time or at all.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from isp_perf.redis._entry import Batch, Entry, LinkLostError, Part
from isp_perf.typing import Guard

__all__ = ["Watch", "Watched"]

_LATE_SHARE = 0.25  # a timer later than this share of the timeout means that our own loop was blocked


class Watched(Protocol):
    """What a watch must know of its link."""

    closed: bool
    pending: deque[Entry]
    progress_at: float

    def unsent(self) -> Iterable[Entry]:
        """Return the entries that were marked and wait to be written."""
        ...

    def end(self, entry: Entry, error: LinkLostError) -> None:
        """End one caller's wait."""
        ...

    def fail(self, cause: BaseException | None, *, timeout: str = "") -> None:
        """End the link."""
        ...


class Watch:
    """When what was sent, and what happens if it is not answered.

    Args:
        link: whose entries they are.
        loop: its event loop.
        timeout: seconds until an entry without a reply is overdue.
        guard: hears how writes ended.
    """

    def __init__(
        self, link: Watched, loop: asyncio.AbstractEventLoop, *, timeout: float, guard: Guard | None = None
    ) -> None:
        self._link = link
        self._time = loop.time
        self._loop = loop
        self._timeout = timeout
        self._guard = guard
        self._marks: deque[tuple[float, Sequence[Entry]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._second_look = False

    def mark(self, entries: Sequence[Entry]) -> None:
        """Start the time of entries that are written now, or as soon as there is room.

        Raises:
            Exception: the guard rejects the write.
        """
        if self._guard is not None:
            self._guard.before()
        now = self._time()
        if not self._link.pending:
            self._link.progress_at = now
        self._marks.append((now, entries))
        if self._timer is None:
            self._arm(now + self._timeout)

    def sweep(self, *, idle: bool) -> None:
        """Forget the marks whose entries all ended; ``idle``: nothing is owed any more."""
        marks = self._marks
        if idle and self._guard is None:
            marks.clear()
        while marks and (idle or _ended(marks[0][1])):
            marks.popleft()
            if self._guard is not None:
                self._guard.success()

    def since(self) -> dict[int, float]:
        """Return when each entry's time began, by identity."""
        return {id(entry): at for at, entries in self._marks for entry in entries}

    def stop(self, cause: BaseException | None) -> None:
        """The link ends: no timer is left behind, and the guard hears of answers that will not come."""
        if self._timer is not None:
            self._timer.cancel()
        if self._guard is not None and self._marks:
            self._guard.failure(cause or ConnectionResetError("the connection was closed"))
        self._marks.clear()

    def _arm(self, at: float) -> None:
        self._armed_for = at
        self._timer = self._loop.call_at(at, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._link.closed or not self._marks:
            return
        now, aim = self._time(), self._marks[0][0] + self._timeout
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
        silent = now - self._link.progress_at
        if self._link.pending and silent >= self._timeout:
            self._link.fail(TimeoutError(f"no byte for {silent:.3f} s"), timeout=kind)
            return
        self._expire(now - self._timeout, kind)
        if self._marks:
            self._arm(self._marks[0][0] + self._timeout)

    def _expire(self, before: float, kind: str) -> None:
        unsent: Counter[int] = Counter(id(_whole(entry)) for entry in self._link.unsent())
        while self._marks and self._marks[0][0] <= before:
            since, entries = self._marks.popleft()
            if self._guard is not None:
                self._guard.failure(TimeoutError("no answer in time"))
            for entry in entries:
                # Of a batch the written part is answered first, so the unsent part is the last to be missing.
                whole = _whole(entry)
                waiting = unsent[id(whole)] >= (whole.missing if isinstance(whole, Batch) else 1)
                reason = "queue" if waiting else kind
                self._link.end(entry, LinkLostError(written=not waiting, since=since, timeout=reason))


def _ended(entries: Sequence[Entry]) -> bool:
    """Return whether nobody waits for a write any more; the last entry is asked first, for it is answered last."""
    return entries[-1].done() and all(entry.done() for entry in entries)


def _whole(entry: Entry) -> Entry:
    """Return the batch an entry is a part of, or the entry itself."""
    return entry.whole if isinstance(entry, Part) else entry
