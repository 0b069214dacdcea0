"""What waits for replies on a link, and how it learns that none will come."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Batch", "Entry", "LinkLostError", "Part", "PushError", "VetoedError", "unheard"]


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


def unheard(future: "asyncio.Future[Any]") -> None:
    """Take note of the end of what nobody may have waited for, so that its error is not reported."""
    if not future.cancelled():
        future.exception()


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


class Part:
    """One command of a batch but the last: its reply is appended, in C, and nobody is woken."""

    __slots__ = ("set_exception", "set_result", "whole")

    def __init__(self, whole: "Batch") -> None:
        self.whole = whole
        self.set_result: Callable[[Any], None] = whole.replies.append
        self.set_exception: Callable[[Any], None] = whole.replies.append

    def done(self) -> bool:
        """Return whether the caller went away, or only the last reply is missing."""
        return self.whole.missing <= 1 or self.whole.future.done()


class Batch:
    """The last command of a batch, which wakes the caller with all replies; errors are collected like values.

    Args:
        future: the caller's.
        size: how many commands the batch has.
    """

    __slots__ = ("future", "replies", "size")

    def __init__(self, future: "asyncio.Future[list[Any]]", size: int) -> None:
        self.future = future
        self.size = size
        self.replies: list[Any] = []

    @property
    def entries(self) -> list["Part | Batch"]:
        """What waits for the replies, one entry for each command."""
        return [*([Part(self)] * (self.size - 1)), self]

    @property
    def missing(self) -> int:
        """How many replies did not come yet."""
        return self.size - len(self.replies)

    def done(self) -> bool:
        """Return whether the caller went away or has everything."""
        return self.future.done()

    def set_result(self, value: Any, /) -> None:
        """Take the last reply; ``InvalidStateError`` if the caller went away, as a future does."""
        self.replies.append(value)
        self.future.set_result(self.replies)

    set_exception = set_result


class PushError(Exception):
    """The handler of a push raised; its error is the cause."""
