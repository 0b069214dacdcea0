"""The decisions of one middleware: what a request allows, which coding a body gets, where the codec runs."""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from fnmatch import translate
from functools import partial
from hashlib import blake2b
from time import perf_counter
from typing import Final

from isp_perf._core.cost import FASTEST, LEVELS, OBSERVED_FROM, Choice, CostModel, LoadSteps
from isp_perf._core.etags import Marks, unmark_list
from isp_perf._core.headers import Headers, Vary, has_token
from isp_perf._core.media import EVENTS, LINES, MediaTypes
from isp_perf._core.negotiation import IDENTITY_PREFERRED, NOT_ACCEPTABLE, Plan, negotiate
from isp_perf.compression._asgi import Scope, Send
from isp_perf.compression._codecs import Codec, Encoder, available, codec
from isp_perf.compression._config import Breach, Budget, Streaming, VariantCache
from isp_perf.compression._dictionary import (
    DICTIONARY_FIELDS,
    Dictionaries,
    DictionaryUse,
    Shelf,
    make_shelf,
)
from isp_perf.compression._memo import Memo
from isp_perf.compression._offload import Offload
from isp_perf.compression._stats import CompressionStats
from isp_perf.compression._variants import Variants

__all__ = ["STREAM_LEVELS", "Engine", "Request"]

STREAM_LEVELS: Final = {"br": 5, "zstd": 3, "gzip": 6, "deflate": 6}
_PLAIN_VARY: Final = Vary((b"Accept-Encoding",))
_DICTIONARY_VARY: Final = Vary((b"Accept-Encoding", b"Available-Dictionary"))
_MOST_SMALL: Final = 4096
_NONE: Final[frozenset[bytes]] = frozenset()
_ZEROCOPY: Final = "http.response.zerocopysend"
_ACCEPT: Final = b"accept-encoding"
_CONDITIONS = (b"if-none-match", b"if-match")
Answer = Callable[[str, Send], Awaitable[None]]
"""Answers a request in place of the application; takes the method and the server's ``send``."""


class Request:
    """What a request says about the coding of its response.

    One object serves all requests that say nothing but the same ``Accept-Encoding``, so it is never changed after it
    was handed out.

    Attributes:
        engine: the decisions of the middleware.
        plan: what the client accepts.
        reason: why the response stays uncoded, as far as the request tells.
        small: lengths, as written, that are too small to be coded; none if the client refuses the uncoded body.
        answer: answers in place of the application; ``None`` where the application is asked.
        marks: the tags in the client's condition that we had marked.
        vary: what the response varies by.
        use: what dictionaries mean for it.
        scope: the scope for the application where it differs from the server's.
    """

    __slots__ = ("answer", "engine", "marks", "plan", "reason", "scope", "small", "use", "vary")

    def __init__(self, engine: "Engine", plan: Plan) -> None:
        self.engine = engine
        self.plan = plan
        self.reason = plan.reason
        self.small = engine.small if plan.identity_ok else _NONE
        self.answer: Answer | None = engine.refuse if engine.refuses and plan.reason == NOT_ACCEPTABLE else None
        self.marks: Marks | None = None
        self.vary = _PLAIN_VARY
        self.use: DictionaryUse | None = None
        self.scope: Scope | None = None


def _models(encodings: Sequence[str]) -> tuple[dict[str, Codec], CostModel]:
    codecs = {coding: found for coding in encodings if (found := codec(coding)) is not None}
    rates = {(coding, level): rate for coding, c in codecs.items() for level, rate in c.rates.items()}
    return codecs, CostModel(rates)


class Engine:
    """The resolved settings of one middleware, and the state it keeps between requests."""

    def __init__(
        self,
        *,
        minimum_size: int,
        encodings: tuple[str, ...],
        budget: Budget,
        types: Iterable[str],
        exclude: Iterable[str],
        strong_tags: bool,
        refuses: bool,
        breach: Breach | None,
        cache: VariantCache | None,
        dictionaries: Dictionaries | None,
        streaming: Streaming,
        stats: CompressionStats | None,
        offload: Offload,
    ) -> None:
        self.minimum_size = minimum_size
        # One look-up answers what else would be a check for digits, a conversion and two comparisons per response.
        self.small = frozenset(b"%d" % size for size in range(1, min(minimum_size, _MOST_SMALL)))
        self.encodings = available(encodings)
        self.strong_tags = strong_tags
        self.refuses = refuses
        self.breach = breach
        self.streaming = streaming
        self.stats = CompressionStats() if stats is None else stats
        self.skipped = self.stats.skipped
        self.offload = offload
        self.kinds = Memo(_classifier(types), 512)
        self._requests = Memo(self._request, 256)
        self._codecs, self._cost = _models(self.encodings)
        self._budget_us = budget.inline_ms * 1000
        self._steps = _steps(budget)
        self._fixed = not budget.adaptive
        self.variants = None if cache is None else Variants(cache, self._encode, self.stats)
        self._shy = breach is not None and breach.cross_site == "identity"
        self.excluded = _any_of(exclude)
        self.shelf = make_shelf(dictionaries)
        self._marks = self.encodings if self.shelf is None else (*self.encodings, "dcz")
        self._read = _fields(breach=breach is not None, dictionaries=self.shelf is not None)

    def _request(self, accept: bytes | None) -> Request:
        return Request(self, negotiate(accept, self.encodings))

    def request(self, scope: Scope) -> Request:
        """Read the request's headers, once; most say nothing but what they accept, and share an answer."""
        headers: Headers = scope["headers"]
        if type(headers) is not list:
            return self._listed(scope, headers)
        read, accept, rare = self._read, None, self.shelf is not None
        for name, value in headers:
            if name in read:
                rare = rare or accept is not None or name != _ACCEPT
                accept = value
        request = self._considered(scope) if rare else self._requests[accept]
        return _without_zerocopy(request, scope) if scope.get("extensions") else request

    def _listed(self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> Request:
        """Read headers that are some other iterable, which the application must be able to read after us."""
        own: Scope = {**scope, "headers": list(headers)}
        request = copy(self.request(own))
        request.scope = request.scope or own
        return request

    def _considered(self, scope: Scope) -> Request:
        """Apply the rarer request fields: no-transform, conditions with our marks, credentials from another site."""
        found = _picked(scope["headers"], self._read)
        request = self._request(found.get(_ACCEPT))
        request.reason = self._forbidden(found) or request.reason
        if b"if-none-match" in found or b"if-match" in found:
            self._unmark(request, scope, found)
        if self.shelf is not None:
            self._look_up(request, scope, found, shelf=self.shelf)
        return request

    def _look_up(self, request: Request, scope: Scope, found: dict[bytes, bytes], *, shelf: Shelf) -> None:
        """Note what dictionaries mean for the request; one that the client has makes dcz a coding as good as others."""
        use = request.use = shelf.use(scope, found, wanted=request.plan.dictionary)
        request.vary = _PLAIN_VARY if use is None else _DICTIONARY_VARY
        if use is not None and use.dictionary is not None and request.reason in (IDENTITY_PREFERRED, NOT_ACCEPTABLE):
            request.reason = request.answer = None
        request.answer = shelf.answer(scope["path"]) or request.answer

    def _forbidden(self, found: dict[bytes, bytes]) -> str | None:
        if has_token(found.get(b"cache-control", b""), b"no-transform"):
            return "no_transform"
        return "cross_site" if self._shy and _cross_site(found) else None

    async def refuse(self, _: str, send: Send) -> None:
        """Answer 406 in place of the application: the client refused identity and all that is offered."""
        self.stats.skipped["not_acceptable"] += 1
        offered = ", ".join(self.encodings).encode("ascii")
        headers = [(b"vary", b"Accept-Encoding"), (b"accept-encoding", offered), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 406, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _unmark(self, request: Request, scope: Scope, found: dict[bytes, bytes]) -> None:
        restored: dict[bytes, bytes] = {}
        for name in _CONDITIONS:
            if name in found:
                value, marks = unmark_list(found[name], self._marks, strong=self.strong_tags)
                if marks:
                    restored[name] = value
                    request.marks = marks if name == b"if-none-match" else request.marks
        if restored:
            kept = [pair for pair in scope["headers"] if pair[0] not in restored]
            request.scope = {**scope, "headers": [*kept, *restored.items()]}

    def choose(self, candidates: Sequence[str], size: int) -> Choice:
        """Choose coding, level and place for a complete body of ``size`` bytes."""
        steps = self._steps
        if not self._fixed and (steps.step or self.offload.pending):
            before = steps.moves
            steps.update(self.offload.load)
            self.stats.level_steps += steps.moves - before
        # With fixed levels, step 1 is the one where no level depends on the size.
        step = 1 if self._fixed and steps.step == 0 else steps.step
        return self._cost.choose(candidates, size, budget_us=self._budget_us, step=step)

    def encode(self, choice: Choice, body: bytes) -> tuple[bytes, float]:
        """Encode a complete body here and now, learn from it, and return it with the seconds it took."""
        result = self._encode(choice, body)
        self.stats.codec_seconds += result[1]
        if len(body) >= OBSERVED_FROM:
            self._cost.observe(choice, len(body), result[1])
        return result

    async def encode_away(self, choice: Choice, body: bytes) -> tuple[bytes, float]:
        """Encode a complete body in a thread; the time it took there teaches nothing, for threads share the cores."""
        return await self._away(partial(self._encode, choice, body))

    async def encode_with(self, encode: Callable[[bytes], bytes], body: bytes) -> tuple[bytes, float]:
        """Encode a complete body with a dictionary that the client has, here or in a thread."""
        job = partial(_timed, encode, body)
        if self._cost.predict("zstd", LEVELS["zstd"], len(body)) > self._budget_us:
            return await self._away(job)
        coded, seconds = job()
        self.stats.codec_seconds += seconds
        return coded, seconds

    async def _away(self, job: Callable[[], tuple[bytes, float]]) -> tuple[bytes, float]:
        self.stats.offloaded += 1
        coded, seconds = await self.offload.run(job)
        self.stats.codec_seconds += seconds
        return coded, seconds

    def _encode(self, choice: Choice, body: bytes) -> tuple[bytes, float]:
        padding = 0 if self.breach is None else self.padding(body)
        whole = self._codecs[choice.coding].whole
        started = perf_counter()
        coded = whole(body, choice.level, padding)
        return coded, perf_counter() - started

    def padding(self, sample: bytes) -> int:
        """Return by how many bytes to lengthen what is coded from ``sample``; 0 without ``Breach``."""
        if self.breach is None:
            return 0
        digest = blake2b(sample, digest_size=8).digest()
        return 1 + int.from_bytes(digest, "big") % self.breach.pad

    def stream_coding(self, candidates: Sequence[str], kind: int, size: int) -> str:
        """Choose the coding of a stream by its kind and the size of its first chunk."""
        if kind in (LINES, EVENTS):
            return next((name for name in self.streaming.encodings if name in candidates), candidates[0])
        for coding in candidates:
            if self.fits(coding, size):
                return coding
        return candidates[0]

    def stream(self, coding: str, kind: int, first: bytes) -> Encoder:
        """Open a coded stream."""
        small = self.streaming.small and kind in (LINES, EVENTS)
        return self._codecs[coding].stream(small=small, padding=self.padding(first))

    def fits(self, coding: str, size: int) -> bool:
        """Say whether a chunk of ``size`` bytes may be coded on the event loop."""
        return self._cost.predict(coding, STREAM_LEVELS[coding], size) <= self._budget_us


def _classifier(types: Iterable[str]) -> Callable[[bytes | None], int]:
    classify = MediaTypes(types).classify
    return lambda content_type: classify(content_type or b"")


def _steps(budget: Budget) -> LoadSteps:
    if budget.preset == "fast":
        return LoadSteps(FASTEST)
    return LoadSteps(None if budget.adaptive else 0)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    translated = [translate(pattern) for pattern in patterns]
    return re.compile("|".join(translated)) if translated else None


def _fields(*, breach: bool, dictionaries: bool) -> frozenset[bytes]:
    """Return the request fields to read: no more than the settings need, for each request pays for them."""
    fields = {_ACCEPT, b"cache-control", *_CONDITIONS}
    if breach:
        fields |= {b"cookie", b"authorization", b"sec-fetch-site"}
    return frozenset(fields.union(DICTIONARY_FIELDS) if dictionaries else fields)


def _picked(headers: Iterable[tuple[bytes, bytes]], read: frozenset[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in read:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def _timed(encode: Callable[[bytes], bytes], body: bytes) -> tuple[bytes, float]:
    started = perf_counter()
    coded = encode(body)
    return coded, perf_counter() - started


def _cross_site(found: dict[bytes, bytes]) -> bool:
    site = found.get(b"sec-fetch-site", b"").strip().lower()
    return site == b"cross-site" and (b"cookie" in found or b"authorization" in found)


def _without_zerocopy(request: Request, scope: Scope) -> Request:
    """Return the request with a scope that does not invite the application to send files past the codec."""
    extensions = scope["extensions"]
    if request.reason is not None or _ZEROCOPY not in extensions:
        return request
    own = copy(request)
    kept = {name: value for name, value in extensions.items() if name != _ZEROCOPY}
    own.scope = {**(request.scope or scope), "extensions": kept}
    return own
