"""What waits for replies on a link, and how it learns that none will come."""

import asyncio
from typing import Any, Protocol

__all__ = ["Batch", "Entry", "LinkLostError", "PushError", "VetoedError"]


class LinkLostError(Exception):
    """The link ended an entry without a reply; callers see it as ``NotSentError`` or ``MaybeExecutedError``."""

    def __init__(self, *, written: bool, since: float, timeout: str = "", cause: BaseException | None = None) -> None:
        super().__init__(written, since, timeout)
        self.written = written
        self.since = since
        self.timeout = timeout  # "", "server", "client" or "queue"
        self.cause = cause

    @property
    def final(self) -> bool:
        """Whether sending the command again is of no use: its time is over."""
        return bool(self.timeout)


class VetoedError(LinkLostError):
    """The guard rejected the write: nothing was sent, and asking again at once is of no use."""

    def __init__(self, since: float, veto: BaseException) -> None:
        super().__init__(written=False, since=since, cause=veto)

    @property
    def final(self) -> bool:
        """Whether sending the command again is of no use: the guard would reject it again."""
        return True


class Entry(Protocol):
    """What waits for one reply. ``asyncio.Future`` is one."""

    def done(self) -> bool:
        """Return whether nobody waits any more."""
        ...

    def set_result(self, value: Any, /) -> None:
        """Receive the reply."""
        ...

    def set_exception(self, error: Any, /) -> None:
        """Receive an error reply, or the link's end."""
        ...


class Batch:
    """One entry that collects the replies of many commands; errors are collected like values."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: "asyncio.Future[list[Any]]", size: int) -> None:
        self.future = future
        self.missing = size
        self.replies: list[Any] = []

    def done(self) -> bool:
        """Return whether the caller went away or has everything."""
        return self.future.done()

    def set_result(self, value: Any, /) -> None:
        """Take the next reply; the last one wakes the caller. After that ``InvalidStateError``, as a future does."""
        self.replies.append(value)
        self.missing -= 1
        if self.missing <= 0:
            self.future.set_result(self.replies)

    set_exception = set_result


class PushError(Exception):
    """The handler of a push raised; its error is the cause."""
