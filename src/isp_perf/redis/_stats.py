"""Plain records: what the lanes did, what the pool looks like, what a bulk write left undone, what was published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["BATCH_BOUNDS", "BulkResult", "Gap", "LaneStats", "Message", "RedisHealth", "RedisStats"]

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the batch-size histogram; batches above the last bound are counted behind it."""


@dataclass(slots=True)
class LaneStats:
    """Counters of one lane since the pool was made.

    Args:
        commands: commands sent.
        batches: writes handed to the transport.
        batch_sizes: writes by number of commands, in the buckets of ``BATCH_BOUNDS``.
        bytes_out: bytes of commands.
        bytes_in: bytes of replies.
        connects: links made, the first one included.
        failed_connects: attempts to connect that failed.
        lost_links: links that ended unasked.
        retries_unsent: repetitions of commands that were not written.
        retries_read: repetitions of reads whose answer was lost.
        retries_refused: repetitions of commands the server refused unexecuted (LOADING, READONLY ...).
        cancelled_unsent: commands whose caller went away before they were written.
        discarded_replies: answers whose caller was cancelled or timed out.
        timeouts_queue: callers whose time was over before their command was written.
        timeouts_server: callers whose answer did not come in time.
        timeouts_client: the same, while our own event loop was late.
        pushes: messages the server sent unasked.
        large_replies: replies above 64 KiB.
    """

    commands: int = 0
    batches: int = 0
    batch_sizes: list[int] = field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))
    bytes_out: int = 0
    bytes_in: int = 0
    connects: int = 0
    failed_connects: int = 0
    lost_links: int = 0
    retries_unsent: int = 0
    retries_read: int = 0
    retries_refused: int = 0
    cancelled_unsent: int = 0
    discarded_replies: int = 0
    timeouts_queue: int = 0
    timeouts_server: int = 0
    timeouts_client: int = 0
    pushes: int = 0
    large_replies: int = 0

    def count_batch(self, commands: int, size_bytes: int) -> None:
        """Count one write of so many ``commands`` and ``size_bytes``."""
        self.commands += commands
        self.batches += 1
        self.bytes_out += size_bytes
        bits = (commands - 1).bit_length()
        self.batch_sizes[bits if bits < len(BATCH_BOUNDS) else -1] += 1

    def count_one(self, size_bytes: int) -> None:
        """Count a write of one command of ``size_bytes``."""
        self.commands += 1
        self.batches += 1
        self.bytes_out += size_bytes
        self.batch_sizes[0] += 1

    def count_timeout(self, kind: str) -> None:
        """Count a caller whose time was over; ``kind`` is queue, server or client, or empty if it was not the time."""
        if kind:
            name = f"timeouts_{kind}"
            setattr(self, name, getattr(self, name) + 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the counters by name, the histogram as ``{"<= 1": n, ...}``."""
        values: dict[str, Any] = {name: getattr(self, name) for name in LaneStats.__slots__}
        labels = [*(f"<= {bound}" for bound in BATCH_BOUNDS), f"> {BATCH_BOUNDS[-1]}"]
        values["batch_sizes"] = dict(zip(labels, self.batch_sizes, strict=True))
        return values


@dataclass(frozen=True, slots=True)
class RedisStats:
    """A snapshot of a pool's counters.

    Attributes:
        lanes: counters by lane name (``fast``, ``bulk``, ``dedicated``, ``blocking``).
        in_flight: commands sent and not yet answered, now, over all links.
        queued: commands waiting to be sent, now.
    """

    lanes: Mapping[str, LaneStats]
    in_flight: int
    queued: int

    @property
    def commands(self) -> int:
        """Commands sent over all lanes."""
        return sum(lane.commands for lane in self.lanes.values())

    @property
    def retries(self) -> int:
        """Repetitions of every class over all lanes."""
        lanes = self.lanes.values()
        return sum(lane.retries_unsent + lane.retries_read + lane.retries_refused for lane in lanes)

    def as_dict(self) -> dict[str, Any]:
        """Return totals and the counters of every lane as plain data."""
        return {
            "commands": self.commands,
            "retries": self.retries,
            "in_flight": self.in_flight,
            "queued": self.queued,
            "lanes": {name: lane.as_dict() for name, lane in self.lanes.items()},
        }


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """How the pool is.

    Attributes:
        status: ``healthy``; ``degraded`` (the server answers, but a lane is down); ``unhealthy`` (no answer);
            ``disabled`` (no server is configured).
        ping_time_ms: last measured round trip in milliseconds, ``None`` if there is none.
        created_connections: sockets open now, over all lanes.
        available_connections: those that would take a command now without waiting; never above the former.
        reason: one line without secrets: why it is not healthy; empty if it is.
        stats: ``RedisStats.as_dict()`` of the moment.
    """

    status: Literal["healthy", "degraded", "unhealthy", "disabled"]
    ping_time_ms: float | None = None
    created_connections: int = 0
    available_connections: int = 0
    reason: str = ""
    stats: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """Return the seed's shape (``status``, ``ping_time_ms``, ``pool_info``) with our own keys beside it."""
        return {
            "status": self.status,
            "ping_time_ms": self.ping_time_ms,
            "pool_info": {
                "created_connections": self.created_connections,
                "available_connections": self.available_connections,
            },
            "reason": self.reason,
            "stats": dict(self.stats),
        }


@dataclass(frozen=True, slots=True, repr=False)
class BulkResult:
    """What a bulk write did.

    Attributes:
        stored: how many keys the server acknowledged.
        errors: the error of each key that was not acknowledged: ``NotSentError`` (surely not stored),
            ``MaybeExecutedError``, or the server's own error.
    """

    stored: int
    errors: Mapping[str | bytes, Exception]

    @property
    def ok(self) -> bool:
        """Whether every key was stored."""
        return not self.errors

    def __bool__(self) -> bool:
        return not self.errors

    def __repr__(self) -> str:
        return f"BulkResult(stored={self.stored}, errors={len(self.errors)})"


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A published message.

    Attributes:
        channel: where it was published.
        data: what was published.
    """

    channel: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """The subscription was interrupted: messages published in between are lost, and nobody knows whether there were.

    Attributes:
        since: when the server was last heard before, in seconds of UNIX time.
        until: when the subscription was in place again.
    """

    since: float
    until: float
