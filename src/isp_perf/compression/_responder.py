"""One response on its way out: a small state machine whose ``send`` is the application's.

::

    WAITING --start--> HELD --body, complete--> PASSING   one-shot body, coded or not
       |                 |--body, more-------> CODING --last body--> PASSING
       |                 |--anything else----> PASSING   head first, uncoded
       |--start, event stream----------------> CODING
       |--start, HEAD of a coded response----> BODILESS
       '--start, nothing to code-------------> PASSING
    FINISHED stands for PASSING where trailers are still to come; BROKEN follows a fault in the middle of a coded body.

Nothing that comes in is ever changed: applications reuse their messages and header lists. The head is held until the
first body message, so that it can be right; an event stream's head leaves at once.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from isp_perf._core.cost import LEVELS, Choice
from isp_perf._core.headers import (
    Headers,
    coded_headers,
    collect,
    declared_length,
    marked_headers,
    plain_headers,
    without_digests,
)
from isp_perf._core.media import EVENTS, OPAQUE
from isp_perf._core.negotiation import IDENTITY_PREFERRED
from isp_perf.compression._asgi import ASGIApp, Message, Receive, Scope, Send
from isp_perf.compression._dictionary import DictionaryUse, Prepared
from isp_perf.compression._engine import Request
from isp_perf.compression._head import DEFAULTS, OPT_OUT, SCOPE_KEY, as_bytes, forbidden, options_of, timing
from isp_perf.compression._stream import CodedStream
from isp_perf.compression._variants import Variants

__all__ = ["Responder"]


_WAITING, _HELD, _CODING, _PASSING, _FINISHED, _BODILESS, _BROKEN = range(7)
_BODY: Final = "http.response.body"
_START: Final = "http.response.start"
_PATHSEND: Final = "http.response.pathsend"
_ZEROCOPY: Final = "http.response.zerocopysend"
_FILES: Final = (_PATHSEND, _ZEROCOPY)
_OK, _NO_CONTENT, _RESET_CONTENT, _PARTIAL, _NOT_MODIFIED = 200, 204, 205, 206, 304
_BODILESS_STATUS: Final = frozenset((_NO_CONTENT, _RESET_CONTENT, _NOT_MODIFIED))


class Responder:
    """The rules of one response; its ``send`` is what the application gets."""

    __slots__ = (
        "_declared",
        "_engine",
        "_found",
        "_kind",
        "_options",
        "_request",
        "_scope",
        "_send",
        "_start",
        "_state",
        "_stream",
    )

    def __init__(self, request: Request, scope: Scope, send: Send) -> None:
        self._engine = request.engine
        self._request = request
        self._scope = scope
        self._send = send
        self._state = _WAITING

    async def serve(self, app: ASGIApp, receive: Receive) -> None:
        """Run the application for the request, and clear up after it however it ends; its errors pass through."""
        try:
            await app(self._scope, receive, self.send)
        except BaseException:
            self.abort()
            raise
        await self.finish()

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the application; what is awaited ends when the server has taken what follows from it."""
        if self._state == _PASSING:
            return self._send(message)
        kind = message["type"]
        if kind == _BODY:
            return self._first(message) if self._state == _HELD else self._body(message)
        if kind == _START and self._state == _WAITING:
            headers: Headers = message.get("headers", ())
            if type(headers) is not list:  # any iterable will do, and may be read once only
                headers = list(headers)
                message = {**message, "headers": headers}
            return self.begin(message, collect(headers))
        return self._other(message)

    # The head ---------------------------------------------------------------------------------------------------------

    def begin(self, message: Message, found: dict[bytes, bytes]) -> Awaitable[None]:
        """Take the head: a start message whose headers are a list, and those of them that decide (``collect``)."""
        status = message["status"]
        if status == _NOT_MODIFIED:
            return self._not_modified(message, message["headers"], found)
        reason = self._untouchable(status, found)
        return self.admit(message, found, self._kind) if reason is None else self._pass(message, reason)

    def admit(self, message: Message, found: dict[bytes, bytes], kind: int) -> Awaitable[None]:
        """Take the head of a response that may be coded: its type is compressible, and nothing forbids it."""
        self._start = message
        self._found = found
        self._kind = kind
        reason = self._unwanted(found)
        return self._begin_coding() if reason is None else self._plain(reason)

    def _begin_coding(self) -> Awaitable[None]:
        if self._scope["method"] == "HEAD":
            return self._begin_head()
        if self._kind == EVENTS:
            return self._open(b"") if self._candidates() else self._plain(IDENTITY_PREFERRED)
        self._state = _HELD
        return _nothing()

    def _untouchable(self, status: int, found: dict[bytes, bytes]) -> str | None:
        """Return why a response must not be touched at all, or ``None``."""
        if status < _OK or status in _BODILESS_STATUS:
            return "status"
        if status == _PARTIAL or b"content-range" in found:
            return "range"
        self._kind = self._engine.kinds[found.get(b"content-type")]
        if self._kind == OPAQUE:
            return "type"
        if b"content-encoding" in found or b"cache-control" in found:
            return forbidden(found)
        return None

    def _unwanted(self, found: dict[bytes, bytes]) -> str | None:
        """Return why a compressible response stays uncoded, as far as its head tells; note its options."""
        request = self._request
        value = self._scope.get(SCOPE_KEY)
        self._options = DEFAULTS if value is None else options_of(value)
        if value is False or ("endpoint" in self._scope and hasattr(self._scope["endpoint"], OPT_OUT)):
            return "opted_out"
        if request.reason is not None and not self._forced():
            return request.reason
        self._declared = declared_length(found)
        return None if self._declared is None else self._too_small(self._declared)

    def _forced(self) -> bool:
        """Say whether the options name an acceptable coding where only the client's preference spoke for identity."""
        request = self._request
        return request.reason == "identity_preferred" and self._options.coding in request.plan.acceptable

    def _too_small(self, size: int) -> str | None:
        if size == 0:
            return "head" if self._scope["method"] == "HEAD" else "empty"
        least = self._options.minimum_size
        if size >= (self._engine.minimum_size if least is None else least) or not self._request.plan.identity_ok:
            return None
        return "too_small"

    def _begin_head(self) -> Awaitable[None]:
        if self._declared is None:
            return self._plain("head")
        self._engine.stats.skipped["head"] += 1
        self._state = _BODILESS
        known = self._dictionary() is not None
        coding = "dcz" if known else self._engine.choose(self._candidates(), self._declared).coding
        return self._send({**self._start, "headers": self._coded_headers(coding, strong=self._engine.strong_tags)})

    def _dictionary(self) -> Prepared | None:
        """Return the dictionary for a complete body: what the client has, unless the options name another coding."""
        use = self._request.use
        if use is None or (self._options.coding is not None and self._candidates()):
            return None
        return use.dictionary

    def _candidates(self) -> Sequence[str]:
        coding = self._options.coding
        if coding is not None and coding in self._request.plan.acceptable:
            return (coding,)
        return self._request.plan.candidates

    def _coded_headers(self, coding: str, *, strong: bool = False) -> Headers:
        vary = self._found.get(b"vary")
        return coded_headers(self._start["headers"], coding, vary=vary, wanted=self._request.vary, strong=strong)

    def _pass(self, message: Message, reason: str) -> Awaitable[None]:
        """Send the head as it is, and everything after it."""
        self._state = _PASSING
        self._engine.stats.skipped[reason] += 1
        return self._send(message)

    def _plain(self, reason: str) -> Awaitable[None]:
        """Send the head of an uncoded response of a compressible type: with Vary, for caches."""
        start = self._start
        headers: Headers = start["headers"]
        varied = plain_headers(headers, self._found.get(b"vary"), self._request.vary)
        return self._pass(start if varied is headers else {**start, "headers": varied}, reason)

    def _not_modified(self, message: Message, headers: Headers, found: dict[bytes, bytes]) -> Awaitable[None]:
        """Send a 304 as the 200 would have been: its mark on the tag, and Vary (unless the type never varies)."""
        engine, request = self._engine, self._request
        kind = found.get(b"content-type")
        if kind is not None and engine.kinds[kind] == OPAQUE:
            return self._pass(message, "status")
        if request.marks:
            headers = marked_headers(headers, request.marks, request.plan.coding, strong=engine.strong_tags)
        varied = plain_headers(headers, found.get(b"vary"), request.vary)
        return self._pass({**message, "headers": varied}, "status")

    # The body ---------------------------------------------------------------------------------------------------------

    async def _body(self, message: Message) -> None:
        state = self._state
        if state == _CODING:
            await self._chunk(message)
        elif state == _BODILESS:
            await self._send({**message, "body": b""} if message.get("body") else message)
        elif state == _BROKEN:
            raise RuntimeError("The coded body was broken off before; nothing can be sent after it")
        else:
            await self._send(message)

    def _first(self, message: Message) -> Awaitable[None]:
        body = message.get("body", b"")
        if message.get("more_body", False):
            return self._first_chunk(message, as_bytes(body))
        reason = self._too_small(len(body))
        if reason is None and self._declared not in (None, len(body)):
            # Coding it would hide that the application sent less, or more, than it promised.
            reason = "wrong_length"
        return self._whole(message, as_bytes(body)) if reason is None else self._uncoded(message, reason)

    async def _first_chunk(self, message: Message, first: bytes) -> None:
        if not self._candidates():  # the client takes dcz only, and a stream has no dictionary
            await self._uncoded(message, IDENTITY_PREFERRED)
            return
        await self._open(first)
        await self._chunk(message)

    async def _uncoded(self, message: Message, reason: str) -> None:
        await self._plain(reason)
        await self._send(message)

    def _whole(self, message: Message, body: bytes) -> Awaitable[None]:
        """Encode a complete body: with a dictionary, from the variant cache, by the codec here, or in a thread."""
        if self._request.use is not None and (dictionary := self._dictionary()) is not None:
            return self._whole_with(dictionary.code, message, body)
        choice, coded, seconds = self._encoded_now(body)
        if coded is None:
            return self._whole_away(choice, message, body)
        return self._send_coded(message, body, (choice, coded, seconds))

    async def _send_coded(self, message: Message, body: bytes, result: tuple[Choice, bytes, float]) -> None:
        """Send the coded form, or the body as it was if that is not larger and the client may have it so."""
        engine = self._engine
        choice, coded, seconds = result
        if len(coded) >= len(body) and self._request.plan.identity_ok:
            await self._uncoded(message, "not_smaller")
            return
        headers = self._coded_headers(choice.coding, strong=engine.strong_tags)
        if self._request.use is not None:
            self._announce(self._request.use, headers, body)
        if self._options.server_timing:
            headers.append((b"server-timing", timing(choice, seconds)))
        if self._start.get("trailers", False):
            self._state = _FINISHED
        else:
            self._state = _PASSING
            headers.append((b"content-length", b"%d" % len(coded)))
        engine.stats.count(choice.coding, len(body), len(coded))
        await self._send({**self._start, "headers": headers})
        await self._send({**message, "body": coded})

    def _announce(self, use: DictionaryUse, headers: Headers, body: bytes) -> None:
        """Offer the response as a dictionary for the next one, or tell where a trained one is (RFC 9842 2.1 and 3)."""
        shelf = self._engine.shelf
        if shelf is None or self._start["status"] != _OK or self._scope["method"] != "GET":
            return
        offer = shelf.keep(use, body, self._found.get(b"cache-control", b""))
        if offer is not None:
            headers.append((b"use-as-dictionary", offer))
        if use.link is not None:
            headers.append((b"link", f'<{use.link}>; rel="compression-dictionary"'.encode("ascii")))

    def _encoded_now(self, body: bytes) -> tuple[Choice, bytes | None, float]:
        """Encode a complete body if that fits the budget, or find it in the variant cache; else only choose."""
        engine = self._engine
        candidates = self._candidates()
        variants = self._variants(len(body)) if engine.variants is not None else None
        if variants is not None and (found := variants.find(candidates, body)) is not None:
            return *found, 0.0
        choice = engine.choose(candidates, len(body))
        if not choice.inline:
            return choice, None, 0.0
        coded, seconds = engine.encode(choice, body)
        if variants is not None:
            variants.offer(choice, body, coded)
        return choice, coded, seconds

    def _variants(self, size: int) -> Variants | None:
        """Return the variant cache if this response may use it."""
        variants = self._engine.variants
        control = self._found.get(b"cache-control")
        return variants if variants is not None and variants.serves(size, control, wish=self._options.cache) else None

    async def _whole_away(self, choice: Choice, message: Message, body: bytes) -> None:
        """Encode a complete body in a thread."""
        self._state = _BROKEN  # until the thread has answered: a cancelled caller must not start over
        coded, seconds = await self._engine.encode_away(choice, body)
        variants = self._variants(len(body))
        if variants is not None:
            variants.offer(choice, body, coded)
        await self._send_coded(message, body, (choice, coded, seconds))

    async def _whole_with(self, encode: Callable[[bytes], bytes], message: Message, body: bytes) -> None:
        """Encode a complete body with the dictionary that the client has."""
        self._state = _BROKEN
        coded, seconds = await self._engine.encode_with(encode, body)
        self._engine.stats.dictionary += 1
        await self._send_coded(message, body, (Choice("dcz", LEVELS["zstd"], inline=True), coded, seconds))

    async def _open(self, first: bytes) -> None:
        """Begin a coded stream whose first chunk is ``first``, and send its head."""
        engine, kind = self._engine, self._kind
        coding = engine.stream_coding(self._candidates(), kind, len(first))
        self._stream = CodedStream(engine, kind, coding, first=first, declared=self._declared)
        self._state = _CODING
        await self._send({**self._start, "headers": self._coded_headers(coding)})

    async def _chunk(self, message: Message) -> None:
        """Encode and flush one chunk: what the application sent can be decoded before it sends more."""
        body = as_bytes(message.get("body", b""))
        more = message.get("more_body", False)
        if more and not body:
            return
        stream = self._stream
        self._state = _BROKEN  # until it is encoded: after an error or a cancellation there is no going on
        coded = await stream.encode(body, last=not more)
        self._state = _CODING
        await self._send({**message, "body": coded})
        stream.sent(len(coded))
        if not more:
            del self._stream
            stream.count()
            self._state = _FINISHED if self._start.get("trailers", False) else _PASSING

    # The rest ---------------------------------------------------------------------------------------------------------

    async def _other(self, message: Message) -> None:
        kind = message["type"]
        if self._state == _HELD:
            await self._release(kind)
        elif kind in _FILES and self._state in (_CODING, _BROKEN):
            self._state = _BROKEN
            raise RuntimeError(f"{kind} after coded bytes: a file cannot be joined to a coded body")
        elif kind == "http.response.trailers" and self._state in (_CODING, _FINISHED):
            message = {**message, "headers": without_digests(message.get("headers") or ())}
        await self._send(message)

    async def _release(self, kind: str) -> None:
        """Let the held head go, uncoded, before a message that is no body."""
        if kind == _START:
            raise RuntimeError("http.response.start has already been received")
        await self._plain("pathsend" if kind in _FILES else "other_message")

    async def finish(self) -> None:
        """Do what is left when the application has returned: a head that is still held is sent."""
        if self._state == _HELD:
            await self._plain("empty")
        else:
            self.abort()

    def abort(self) -> None:
        """Count a response that was broken off, by what was really sent, and drop its codec."""
        if self._state >= _PASSING and self._state != _BROKEN:
            return
        if hasattr(self, "_stream"):
            self._stream.count()
            del self._stream
        else:
            self._engine.stats.skipped["aborted"] += 1
        self._state = _BROKEN


async def _nothing() -> None:
    """Answer a message that is held."""
