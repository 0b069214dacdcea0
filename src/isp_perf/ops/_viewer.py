"""Who may see the live page, and the stream that keeps it up to date."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from time import monotonic
from typing import Final
from urllib.parse import parse_qs

from isp_perf.metrics._asgi import Receive, Scope, Send, header, reply
from isp_perf.ops._ending import server_ending
from isp_perf.ops._live import Live
from isp_perf.ops._page import page_headers

__all__ = ["is_local", "send_page", "stream", "wanted"]

_FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-host", b"via")
_LASTS: Final = 60.0  # seconds of a stream; who may see the page is asked anew with the next one
_LASTS_UNTOLD: Final = 5.0  # where we are not told that the server ends, for it waits for its streams
_SIGN_OF_LIFE: Final = 2.0  # seconds
_NOTHING: Final = b"data: {}\n\n"
_MOST_VIEWERS: Final = 200
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"vary", b"Accept"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
_MEDIA: Final = {"text/html": "page", "application/xhtml+xml": "page", "text/event-stream": "stream"}


def wanted(scope: Scope) -> str:
    """Return what the client wants by its ``Accept``: ``page``, ``stream`` or ``json``; who names none gets JSON."""
    best, quality = "json", 0.0
    for part in header(scope, b"accept").lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        found = _MEDIA.get(media, "json" if media.endswith("json") else "")
        weight = _quality(parameters)
        if found and weight > quality:
            best, quality = found, weight
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            text = value.strip()
            return float(text) if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit() else 0.0
    return 1.0


def is_local(scope: Scope) -> bool:
    """Return whether a request surely comes from this machine.

    The peer's address alone does not tell: behind a proxy on the same machine everybody is 127.0.0.1, so a request
    that was forwarded is not local. Neither is one for another host name than this machine's own: a web site may give
    its name our address and have a browser on this machine read the page for it.
    """
    client = scope.get("client")
    if not client or not _is_loopback(str(client[0])):
        return False
    if any(header(scope, name) for name in _FORWARDED):
        return False
    host = header(scope, b"host").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


async def send_page(live: Live, scope: Scope, send: Send) -> None:
    """Answer with the page."""
    frame = await live.frame()
    await reply(send, 200, page_headers(), body=frame.page, head=scope["method"] == "HEAD")


async def stream(live: Live, scope: Scope, receive: Receive, *, send: Send) -> None:
    """Answer with a stream of figures that ends after some seconds; the page then asks for the next one."""
    if live.viewers >= _MOST_VIEWERS:
        await reply(send, 503, [(b"retry-after", b"30")], body=b"", head=False)
        return
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    known = header(scope, b"last-event-id") or query.get("since", [""])[0]
    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    gone = asyncio.create_task(_disconnected(receive))
    try:
        if scope["method"] != "HEAD":
            await _feed(live, known, gone.done, send=send)
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _feed(live: Live, known: str, gone: Callable[[], bool], *, send: Send) -> None:
    over = _end_of_a_stream()
    frame = await live.frame()
    event = b"retry: 2000\n" + (frame.event(known) or _NOTHING)
    sent = monotonic()
    with live.watched():
        while not gone():
            if event or monotonic() - sent >= _SIGN_OF_LIFE:
                await _send_part(send, event or _NOTHING)
                sent = monotonic()
            if over():
                return await _send_part(send, b"event: again\n" + _NOTHING)
            known = frame.ident
            frame = await live.tick()
            event = frame.event(known)
    return None


def _end_of_a_stream() -> Callable[[], bool]:
    """Return what says when a stream that begins now shall end: with its server, and otherwise after some time."""
    ending, begun = server_ending(), monotonic()
    if ending is None:
        return lambda: monotonic() - begun >= _LASTS_UNTOLD
    return lambda: ending() or monotonic() - begun >= _LASTS


def _send_part(send: Send, body: bytes) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
