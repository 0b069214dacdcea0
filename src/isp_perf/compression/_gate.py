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
        if message["type"] != _START or type(headers) is not list or message["status"] not in _ORDINARY:
            return self._responded().send(message)
        found = collect(headers)
        kind = self._request.engine.kinds[found.get(b"content-type")]
        if kind != OPAQUE or b"content-range" in found:
            return self._considered(message, found, kind)
        self._request.engine.skipped["type"] += 1
        self.onward = self._send
        return self._send(message)

    def _responded(self) -> Responder:
        self._responder = responder = Responder(self._request, self._scope, self._send)
        self.onward = responder.send
        return responder

    def _considered(self, message: Message, found: dict[bytes, bytes], kind: int) -> Awaitable[None]:
        """Send the head of a response of a compressible type, or of a range, by whatever it needs."""
        if not _SPECIAL.isdisjoint(found):
            return self._responded().begin(message, found)
        head = self._uncoded(message, found)
        if head is None:
            return self._responded().admit(message, found, kind)
        self.onward = self._send
        return self._send(head)

    def _uncoded(self, message: Message, found: dict[bytes, bytes]) -> Message | None:
        """Return the head, with Vary, if it alone tells that nothing is coded; ``None``: a closer look is needed."""
        request, scope = self._request, self._scope
        reason = request.reason
        if reason is None:
            if found.get(b"content-length") not in request.small:
                return None
            reason = "too_small"
        if SCOPE_KEY in scope or ("endpoint" in scope and hasattr(scope["endpoint"], OPT_OUT)):
            return None
        request.engine.skipped[reason] += 1
        headers: Headers = message["headers"]
        head = dict(message)
        vary = found.get(b"vary")
        head["headers"] = [*headers, request.vary.line] if vary is None else plain_headers(headers, vary, request.vary)
        return head

    def finish(self) -> Awaitable[None]:
        """Do what is left when the application has returned and something else than the server's send took its part."""
        responder = self._responded() if self.onward is None else self._responder
        return responder.finish()

    def abort(self) -> None:
        """Count a response that ended before its end, and drop what it held."""
        if self.onward is None:
            self._request.engine.skipped["aborted"] += 1
        elif self.onward is not self._send:
            self._responder.abort()
