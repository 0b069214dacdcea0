"""One coded stream: its encoder, what went in and out of it, and the length it must have."""

from typing import Final

from isp_perf.compression._codecs import Encoder
from isp_perf.compression._engine import Engine

__all__ = ["CodedStream"]

_LONGER: Final = "Response content longer than Content-Length"
_SHORTER: Final = "Response content shorter than Content-Length"


class CodedStream:
    """Encodes the chunks of one response, each flushed, here or in a thread.

    Args:
        engine: the middleware's decisions and statistics.
        kind: the kind of the media type.
        coding: the coding that was chosen.
        first: the first chunk, or ``b""``; it decides the padding.
        declared: the Content-Length that the application declared, or ``None``.
    """

    __slots__ = ("_declared", "_encoder", "_engine", "_received", "_sent", "coding")

    def __init__(self, engine: Engine, kind: int, coding: str, *, first: bytes, declared: int | None) -> None:
        self.coding = coding
        self._engine = engine
        self._encoder: Encoder = engine.stream(coding, kind, first)
        self._declared = declared
        self._received = 0
        self._sent = 0

    async def encode(self, body: bytes, *, last: bool) -> bytes:
        """Encode and flush one chunk; with ``last`` the stream is closed.

        Raises:
            RuntimeError: the body is not as long as declared. Its coded form would look whole, so it is never closed.
        """
        self._received += len(body)
        if self._declared is not None:
            if self._received > self._declared:
                raise RuntimeError(_LONGER)
            if last and self._received < self._declared:
                raise RuntimeError(_SHORTER)
        job = self._encoder.end if last else self._encoder.feed
        if self._engine.fits(self.coding, len(body)):
            return job(body)
        self._engine.stats.offloaded += 1
        return await self._engine.offload.run(job, body)

    def sent(self, size: int) -> None:
        """Take note that ``size`` coded bytes were sent."""
        self._sent += size

    def count(self) -> None:
        """Count the stream by what was really sent, at its end or when it was broken off."""
        self._engine.stats.count(self.coding, self._received, self._sent)
