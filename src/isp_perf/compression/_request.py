"""``RequestDecompressionMiddleware``: coded request bodies, opened safely.

The application reads plain bytes. A body that is too large, expands too much, is cut off or corrupt is answered by us
(413 or 400) as long as no response has begun, whatever the application does with the error; afterwards the connection
is broken off, so that half a body is never taken for a whole one.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from isp_perf._core.negotiation import KNOWN_CODINGS
from isp_perf.compression._asgi import ASGIApp, Message, Receive, Scope, Send
from isp_perf.compression._config import checked_codings
from isp_perf.compression._decoders import Chain, RefusedBodyError, decodable
from isp_perf.compression._offload import Offload
from isp_perf.errors import ConfigurationError

__all__ = ["RequestDecompressionMiddleware"]

_UNSUPPORTED_MEDIA_TYPE: Final = 415
_INLINE_INPUT: Final = 1 << 13  # compressed bytes whose decoding surely fits the inline budget of 1 ms
_MESSAGE: Final = 1 << 18
_DROPPED: Final = frozenset((b"content-encoding", b"content-length"))
_DISCONNECT: Final = {"type": "http.disconnect"}


def _codings(scope: Scope) -> list[str]:
    """Return the codings of the request body in the order they were applied, without identity."""
    lines = [value for name, value in scope["headers"] if name == b"content-encoding"]
    names = [name.strip(b" \t").lower().decode("latin-1") for line in lines for name in line.split(b",")]
    return ["gzip" if name == "x-gzip" else name for name in names if name not in ("", "identity")]


class RequestDecompressionMiddleware:
    """Decodes request bodies for an ASGI 3 application, within limits.

    Put it behind authentication: opening the bodies of strangers is a gift to them. Requests without Content-Encoding
    pass with the same scope, receive and send. Sources: RFC 9110 8.4 and 15.5.16, RFC 1952 2.2, RFC 9659.

    Args:
        app: the application.
        encodings: the codings to accept; others are answered with 415 and what is accepted.
        max_size: bytes a decoded body, and each stage of a body coded twice, may have; default 10 MiB. Beyond: 413.
        max_ratio: decoded bytes per received byte, once 1 MiB was decoded; default 200. Beyond: 413.
        max_codings: how many codings a body may have on top of one another; default 2. More: 415.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        encodings: tuple[str, ...] = KNOWN_CODINGS,
        max_size: int = 10 << 20,
        max_ratio: float = 200,
        max_codings: int = 2,
    ) -> None:
        for setting, value in (("max_size", max_size), ("max_ratio", max_ratio), ("max_codings", max_codings)):
            if not value >= 1:
                raise ConfigurationError(setting, value, "a number >= 1", "leave it out for the default")
        self.app = app
        self._encodings = decodable(checked_codings("encodings", encodings))
        self._max_size = max_size
        self._max_ratio = max_ratio
        self._max_codings = max_codings
        self._offload = Offload()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI 3 asks."""
        codings = _codings(scope) if scope["type"] == "http" else []
        if not codings:
            await self.app(scope, receive, send)
            return
        if len(codings) > self._max_codings or not set(codings) <= set(self._encodings):
            await _answer(send, _UNSUPPORTED_MEDIA_TYPE, [(b"accept-encoding", ", ".join(self._encodings).encode())])
            return
        headers = [pair for pair in scope["headers"] if pair[0] not in _DROPPED]
        decoding = Chain(codings, max_size=self._max_size, max_ratio=self._max_ratio)
        body = _Body(decoding, receive, send, offload=self._offload)
        await body.serve(self.app, {**scope, "headers": headers})


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class _Body:
    """One coded request body, and the response to it."""

    __slots__ = ("_answered", "_decoding", "_fault", "_headed", "_more", "_offload", "_pieces", "_receive", "_send")

    def __init__(self, decoding: Chain, receive: Receive, send: Send, *, offload: Offload) -> None:
        self._decoding = decoding
        self._receive = receive
        self._send = send
        self._offload = offload
        self._pieces: Iterator[bytes] | None = None
        self._more = True
        self._headed = False
        self._answered = False
        self._fault: RefusedBodyError | None = None

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application; a fault of the body ends the exchange whatever the application made of it."""
        try:
            await app(scope, self.receive, self.send)
        except RefusedBodyError as fault:
            if fault is not self._fault:
                raise
        except Exception:
            if not self._answered:
                raise
        if self._fault is not None and not self._answered:
            raise RuntimeError("The request body was refused after the response had begun") from self._fault

    async def send(self, message: Message) -> None:
        """Pass a message on, unless the response is ours."""
        if self._answered:
            return
        if self._fault is not None:
            raise self._fault
        self._headed = self._headed or message["type"] == "http.response.start"
        await self._send(message)

    async def receive(self) -> Message:
        """Return the next message, with decoded bytes in place of coded ones."""
        if self._fault is not None:
            return dict(_DISCONNECT)
        inline = False
        if self._pieces is None:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            data = bytes(message.get("body", b""))
            self._more = message.get("more_body", False)
            self._pieces = self._decoding.decode(data, last=not self._more)
            inline = len(data) <= _INLINE_INPUT
        return await self._decoded(self._pieces, inline=inline)

    async def _decoded(self, pieces: Iterator[bytes], *, inline: bool) -> Message:
        """Decode the next part of a chunk: at most one message's worth, whatever the chunk expands to."""
        self._fault = RefusedBodyError(
            400
        )  # until decoding has answered: a cancelled caller must not go on after a gap
        try:
            part, rest = _part(pieces) if inline else await self._offload.run(_part, pieces)
        except RefusedBodyError as fault:
            self._fault = fault
            await self._refuse(fault)
            raise
        self._fault = None
        self._pieces = rest
        return {"type": "http.request", "body": part, "more_body": self._more or rest is not None}

    async def _refuse(self, fault: RefusedBodyError) -> None:
        if not self._headed:
            self._answered = True
            await _answer(self._send, fault.status, [])


def _part(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """Take pieces up to one message, and look ahead by one, so that a last message is known to be the last."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        if size and size + len(piece) > _MESSAGE:
            return b"".join(taken), chain((piece,), pieces)
        taken.append(piece)
        size += len(piece)
    return b"".join(taken), None
