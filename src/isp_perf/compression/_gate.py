"""The ``send`` an application gets: it decides by the head alone, which is all that most responses need.

Every response pays for what stands here, so it is written for the interpreter: one slotted object per request, whose
bound method is the ``send`` (a call of an object with ``__call__`` costs twice as much), no coroutine of its own, one
pass over the head, and a dictionary made only where the head changes. What the head cannot decide, a body to code, a
condition, a range, an option, goes to a ``Responder``, which knows all the rules and does not need this module: both
answer alike, and a test holds them to it.
"""

from collections.abc import Awaitable
from typing import Final

from isp_perf._core.headers import Headers, collect, plain_headers
from isp_perf._core.media import OPAQUE
from isp_perf.compression._asgi import Message, Scope, Send
from isp_perf.compression._engine import Request
from isp_perf.compression._head import OPT_OUT, SCOPE_KEY
from isp_perf.compression._responder import Responder

__all__ = ["Gate"]

_START: Final = "http.response.start"
_ORDINARY: Final = frozenset(range(200, 600)) - {204, 205, 206, 304}
_SPECIAL: Final = frozenset((b"content-encoding", b"content-range", b"cache-control"))


class Gate:
    """Sends one response on: as it is, or through a ``Responder``.

    Attributes:
        onward: what takes the messages: the server's ``send``, a responder's, or ``None`` before the first message.
    """

    __slots__ = ("_request", "_responder", "_scope", "_send", "onward")

    def __init__(self, request: Request, scope: Scope, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._send = send
        self.onward: Send | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the application; the first one decides where all of them go."""
        if self.onward is not None:
            return self.onward(message)
        headers: Headers | None = message.get("headers")
        if message["type"] != _START or type(headers) is not list:
            return self._responded().send(message)
        found = collect(headers)
        head = self._uncoded(message, headers, found)
        if head is None:
            return self._responded().begin(message, headers, found)
        self.onward = self._send
        return self._send(head)

    def _responded(self) -> Responder:
        self._responder = responder = Responder(self._request, self._scope, self._send)
        self.onward = responder.send
        return responder

    def _uncoded(self, message: Message, headers: Headers, found: dict[bytes, bytes]) -> Message | None:
        """Return the head as it leaves if it alone tells that nothing is coded; ``None``: a closer look is needed."""
        if message["status"] not in _ORDINARY:
            return None
        engine = self._request.engine
        if engine.kinds[found.get(b"content-type")] != OPAQUE:
            return self._varied(message, headers, found) if _SPECIAL.isdisjoint(found) else None
        if b"content-range" in found:
            return None
        engine.skipped["type"] += 1
        return message

    def _varied(self, message: Message, headers: Headers, found: dict[bytes, bytes]) -> Message | None:
        """Return the head of a response of a compressible type that stays uncoded, with Vary."""
        request, scope = self._request, self._scope
        reason = request.reason
        if reason is None:
            if found.get(b"content-length") not in request.small:
                return None
            reason = "too_small"
        if SCOPE_KEY in scope or ("endpoint" in scope and hasattr(scope["endpoint"], OPT_OUT)):
            return None
        request.engine.skipped[reason] += 1
        head = dict(message)
        vary = found.get(b"vary")
        head["headers"] = [*headers, request.vary.line] if vary is None else plain_headers(headers, vary, request.vary)
        return head

    async def finish(self) -> None:
        """Do what is left when the application has returned."""
        if self.onward is None:
            self.abort()
        elif self.onward is not self._send:
            await self._responder.finish()

    def abort(self) -> None:
        """Count a response that ended before its end, and drop what it held."""
        if self.onward is None:
            self._request.engine.skipped["aborted"] += 1
        elif self.onward is not self._send:
            self._responder.abort()
