"""What a thread brings to the connection that threads share: its commands, and how it learns what became of them."""

import threading
from collections.abc import Sequence
from enum import Enum
from typing import Any

from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._wire import Wire

__all__ = ["DONE", "LEAD", "READ", "WAIT", "Round", "Slot", "complete"]


class _Role(Enum):
    """What a thread is to do when it is woken."""

    WAIT = 0
    LEAD = 1
    READ = 2
    DONE = 3


WAIT, LEAD, READ, DONE = _Role  # an enumeration's own attributes are slow on CPython 3.11


class Slot:
    """One thread's commands and what became of them. ``role`` changes under the combiner's mutex only."""

    __slots__ = ("data", "dead", "deadline", "error", "following", "lock", "replies", "role", "round", "sent", "since")

    def __init__(self, data: Sequence[bytes], deadline: float, since: float) -> None:
        self.data = data
        self.since = since
        self.deadline = deadline
        self.replies: list[Any] = []
        self.error: Exception | None = None
        self.following: Slot | None = None  # who is woken by this one
        self.role = WAIT
        self.round: Round | None = None
        self.sent = False
        self.dead = False
        self.lock = threading.Lock()
        self.lock.acquire()

    def lose(self, *, timeout: str = "", cause: BaseException | None = None) -> None:
        """Note that the replies will not come."""
        self.error = LinkLostError(written=self.sent, since=self.since, timeout=timeout, cause=cause)


def complete(slot: Slot) -> bool:
    """Return whether every reply of a slot was read."""
    return len(slot.replies) == len(slot.data)


class Round:
    """Slots whose commands are on their way, in order, and the connection their replies come from."""

    __slots__ = ("connection", "slots")

    def __init__(self, connection: Wire, slots: list[Slot]) -> None:
        self.connection = connection
        self.slots = slots
