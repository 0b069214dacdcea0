"""The decisions of one middleware: what a request allows, which coding a body gets, where the codec runs."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from hashlib import blake2b
from time import perf_counter
from typing import Final

from isp_perf._core.cost import FASTEST, Choice, CostModel, LoadSteps
from isp_perf._core.etags import Marks, unmark_list
from isp_perf._core.headers import has_token
from isp_perf._core.media import EVENTS, LINES, MediaTypes
from isp_perf._core.negotiation import Plan, negotiate
from isp_perf.compression._asgi import Scope
from isp_perf.compression._codecs import Codec, Encoder, available, codec
from isp_perf.compression._config import Breach, Budget, Streaming, VariantCache
from isp_perf.compression._offload import Offload
from isp_perf.compression._stats import CompressionStats
from isp_perf.compression._variants import Variants

__all__ = ["STREAM_LEVELS", "Engine", "Request"]

STREAM_LEVELS: Final = {"br": 5, "zstd": 3, "gzip": 6, "deflate": 6}
_MAX_CACHED_HEADER = 256
_SILENT = negotiate(None)
_CONDITIONS = (b"if-none-match", b"if-match")


class Request:
    """What a request says about the coding of its response."""

    __slots__ = ("marks", "plan", "reason", "scope")

    def __init__(self, scope: Scope, plan: Plan) -> None:
        self.scope = scope
        self.plan = plan
        self.reason = plan.reason
        self.marks: Marks | None = None


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
        breach: Breach | None,
        cache: VariantCache | None,
        streaming: Streaming,
        stats: CompressionStats | None,
        offload: Offload,
    ) -> None:
        self.minimum_size = minimum_size
        self.encodings = available(encodings)
        self.strong_tags = strong_tags
        self.breach = breach
        self.streaming = streaming
        self.stats = CompressionStats() if stats is None else stats
        self.offload = offload
        self.vary: tuple[bytes, ...] = (b"Accept-Encoding",)
        self.kind = lru_cache(maxsize=512)(MediaTypes(types).classify)
        self._plan_cached = lru_cache(maxsize=256)(self._negotiate)
        self._codecs, self._cost = _models(self.encodings)
        self._budget_us = budget.inline_ms * 1000
        self._steps = LoadSteps(FASTEST if budget.preset == "fast" else None if budget.adaptive else 0)
        self._fixed = not budget.adaptive
        self.variants = None if cache is None else Variants(cache, self._encode, self.stats)
        patterns = [translate(pattern) for pattern in exclude]
        self._excluded = re.compile("|".join(patterns)) if patterns else None
        private = (b"cookie", b"authorization", b"sec-fetch-site") if breach is not None else ()
        self._read = frozenset((b"accept-encoding", b"cache-control", *_CONDITIONS, *private))

    def _negotiate(self, header: bytes) -> Plan:
        return negotiate(header, self.encodings)

    def excludes(self, path: str) -> bool:
        """Say whether the path is left alone altogether."""
        return self._excluded is not None and self._excluded.match(path) is not None

    def request(self, scope: Scope) -> Request:
        """Read the request's headers once; the scope is copied if the application must see other ones."""
        found = _picked(scope["headers"], self._read)
        if not found:
            return Request(scope, _SILENT)
        header = found.get(b"accept-encoding", b"")
        plan = self._plan_cached(header) if len(header) <= _MAX_CACHED_HEADER else self._negotiate(header)
        request = Request(scope, plan)
        if len(found) > 1 or not header:
            self._consider(request, found)
        if plan.candidates and scope.get("extensions"):
            request.scope = _without_zerocopy(request.scope)
        return request

    def _consider(self, request: Request, found: dict[bytes, bytes]) -> None:
        """Apply the rarer request fields: no-transform, conditions with our marks, credentials from another site."""
        if b"cache-control" in found and has_token(found[b"cache-control"], b"no-transform"):
            request.reason = "no_transform"
        elif self.breach is not None and self.breach.cross_site == "identity" and _cross_site(found):
            request.reason = "cross_site"
        if b"if-none-match" in found or b"if-match" in found:
            self._unmark(request, found)

    def _unmark(self, request: Request, found: dict[bytes, bytes]) -> None:
        restored: dict[bytes, bytes] = {}
        for name in _CONDITIONS:
            if name in found:
                value, marks = unmark_list(found[name], self.encodings, strong=self.strong_tags)
                if marks:
                    restored[name] = value
                    request.marks = marks if name == b"if-none-match" else request.marks
        if restored:
            kept = [pair for pair in request.scope["headers"] if pair[0] not in restored]
            request.scope = {**request.scope, "headers": [*kept, *restored.items()]}

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
        coded, seconds = self._encode(choice, body)
        self.stats.codec_seconds += seconds
        self._cost.observe(choice, len(body), seconds)
        return coded, seconds

    async def encode_away(self, choice: Choice, body: bytes) -> tuple[bytes, float]:
        """Encode a complete body in a thread; the time it took there teaches nothing, for threads share the cores."""
        self.stats.offloaded += 1
        coded, seconds = await self.offload.run(self._encode, choice, body)
        self.stats.codec_seconds += seconds
        return coded, seconds

    def _encode(self, choice: Choice, body: bytes) -> tuple[bytes, float]:
        started = perf_counter()
        coded = self._codecs[choice.coding].whole(body, choice.level, self.padding(body))
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


def _picked(headers: Iterable[tuple[bytes, bytes]], read: frozenset[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in read:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def _cross_site(found: dict[bytes, bytes]) -> bool:
    site = found.get(b"sec-fetch-site", b"").strip().lower()
    return site == b"cross-site" and (b"cookie" in found or b"authorization" in found)


def _without_zerocopy(scope: Scope) -> Scope:
    extensions = scope["extensions"]
    if "http.response.zerocopysend" not in extensions:
        return scope
    kept = {name: value for name, value in extensions.items() if name != "http.response.zerocopysend"}
    return {**scope, "extensions": kept}
