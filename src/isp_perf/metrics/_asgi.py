"""The few ASGI shapes this package speaks, and how a complete answer is sent."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "accepts_gzip", "header", "not_http", "reply"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str:
    """Return the request header ``name`` (lower case), repeated ones joined by commas; empty if absent."""
    found = [value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == name]
    return ",".join(found)


def accepts_gzip(scope: Scope) -> bool:
    """Return whether the client takes gzip, by name or by ``*``, with a q-value above 0."""
    qualities: dict[str, str] = {}
    for part in header(scope, b"accept-encoding").lower().split(","):
        coding, _, parameter = part.partition(";")
        qualities[coding.strip()] = parameter.replace(" ", "").removeprefix("q=") or "1"
    quality = qualities.get("gzip", qualities.get("*", "0"))
    return any(digit in "123456789" for digit in quality)


async def reply(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], *, body: bytes, head: bool) -> None:
    """Send one complete answer; ``head=True`` sends the headers of ``body`` without it."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def not_http(scope: Scope, receive: Receive, send: Send) -> bool:
    """Serve what is no HTTP request, for an application that knows no other, and return whether it was such."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1000})
    return bool(scope["type"] != "http")


async def _lifespan(receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol of an application that needs neither start nor end."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
