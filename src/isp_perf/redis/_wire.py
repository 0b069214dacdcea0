"""A blocking connection whose bytes are ours: written whole, read with hiredis, both bounded by a deadline."""

import os
import struct
import time
from collections.abc import Callable, Sequence
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET
from ssl import SSLSocket
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import InvalidResponse

from isp_perf.redis._connect import socket_of
from isp_perf.redis._stats import LaneStats

__all__ = ["Wire"]

_KERNEL_LIMITS = os.name == "posix"
_MOST_LATE = 0.01  # seconds by which the kernel may end a call after its deadline
_NOTHING = object()
_READ_BYTES = 1 << 16
_TIMEVAL = struct.Struct("@ll")
_Push = hiredis.PushNotification


class Wire:
    """A connected redis-py connection, read with a parser of our own.

    A plain socket stays blocking, and the kernel bounds its reads and writes (SO_RCVTIMEO): Python's own timeouts cost
    two more system calls for each read and each write. The kernel's limit is changed only when it is too long by more
    than it may be; where it is too short the call is repeated.

    Args:
        connection: redis-py's connection, already connected.
        on_push: receives each RESP3 push, by the thread that reads it, before the replies that follow it.
    """

    def __init__(self, connection: Any, on_push: Callable[[Sequence[Any]], None] | None = None) -> None:
        self._on_push = on_push
        self.driver = connection
        self.socket = socket_of(connection)
        self.reader: Any = hiredis.Reader(
            protocolError=InvalidResponse, replyError=cast("Any", BaseParser).parse_error, notEnoughData=_NOTHING
        )
        self.used_at = time.monotonic()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._plain = _KERNEL_LIMITS and not isinstance(self.socket, SSLSocket)
        self._limit = 0.0
        if self._plain:
            self.socket.settimeout(None)

    def next_reply(self, deadline: float, stats: LaneStats) -> Any:
        """Return the next reply, reading as much as it takes; ``TimeoutError`` at the deadline."""
        while True:
            reply = self.reader.gets()
            if reply is _NOTHING:
                self._read(deadline, stats)
            elif type(reply) is not _Push:
                return reply
            elif self._on_push is not None:
                self._on_push(reply)

    def _read(self, deadline: float, stats: LaneStats) -> None:
        while True:
            self._bound(deadline)
            try:
                size = self.socket.recv_into(self._buffer)
            except BlockingIOError:  # the kernel's limit was shorter than the time that is left
                self._limit = 0.0
                continue
            break
        if not size:
            raise ConnectionResetError("the server closed the connection")
        stats.bytes_in += size
        self.reader.feed(self._buffer, 0, size)

    def send(self, data: bytes, deadline: float) -> None:
        """Write everything; ``TimeoutError`` at the deadline."""
        self.used_at = time.monotonic()
        self._bound(deadline)
        if not self._plain:
            self.socket.sendall(data)
            return
        left = memoryview(data)
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                self._limit = 0.0
                self._bound(deadline)

    def _bound(self, deadline: float) -> None:
        """See to it that the next call of the socket ends at the deadline, or a little after it."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        if not self._plain:
            self.socket.settimeout(left)
        elif not left <= self._limit <= left + _MOST_LATE:
            limit = left + _MOST_LATE / 2
            self._limit = limit
            packed = _TIMEVAL.pack(int(limit), int(limit % 1 * 1e6))
            self.socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, packed)
            self.socket.setsockopt(SOL_SOCKET, SO_SNDTIMEO, packed)
