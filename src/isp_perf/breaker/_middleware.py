"""Rejections as HTTP answers: 503, Retry-After and a problem document."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from math import ceil
from typing import Any, cast

from isp_perf._core.ranges import seconds
from isp_perf.errors import RejectedError

__all__ = ["CircuitOpenMiddleware"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_BODY = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "A service this request needs is not available at the moment. Please try again later.",
    }
).encode()
_TRY_AGAIN_LATER = 1013


class CircuitOpenMiddleware:
    """Answers a request whose ``RejectedError`` nobody handled with 503 (pure ASGI, any framework).

    The answer carries ``Retry-After`` in whole seconds, rounded up (RFC 9110, 10.2.3), and ``application/problem+json``
    (RFC 9457) that tells nothing about the inside. Once the response has started, the error passes through unchanged: a
    second start would break the protocol. A WebSocket is closed with code 1013, "try again later".

    Put it outside of the framework's own error handling, or errors become a 500 before it sees them.

    Args:
        app: the application to wrap.
        retry_after: seconds to tell (> 0) if the rejection does not know, as for an isolated circuit.

    Raises:
        ConfigurationError: ``retry_after`` is not above 0.
    """

    def __init__(self, app: App, *, retry_after: float = 30.0) -> None:
        self.app = app
        self._unknown = seconds("retry_after", retry_after)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Run the application and answer its rejections."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        over = "http.response.start" if scope["type"] == "http" else "websocket.close"
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == over
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            rejected = _rejection(error)
            if rejected is None or begun:
                raise
            await (self._answer(send, rejected) if scope["type"] == "http" else _close(send))

    async def _answer(self, send: Send, rejected: RejectedError) -> None:
        wait = self._unknown if rejected.retry_after is None else rejected.retry_after
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(_BODY)).encode()),
            (b"retry-after", str(max(1, ceil(wait))).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})


def _rejection(error: BaseException) -> RejectedError | None:
    """Return the rejection that ``error`` is, or the longest one if it is a group of nothing but rejections."""
    if isinstance(error, RejectedError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    leaves = [_rejection(leaf) for leaf in cast("BaseExceptionGroup[BaseException]", error).exceptions]
    found = [leaf for leaf in leaves if leaf is not None]
    if len(found) < len(leaves):
        return None
    return max(found, key=lambda leaf: leaf.retry_after or 0.0)


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
