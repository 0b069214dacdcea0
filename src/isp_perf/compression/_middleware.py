"""``CompressionMiddleware``: response compression for any ASGI 3 application."""

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Literal

from isp_perf._core.negotiation import KNOWN_CODINGS
from isp_perf.compression._asgi import ASGIApp, Receive, Scope, Send
from isp_perf.compression._config import DEFAULT_TYPES, Breach, Budget, Streaming, VariantCache, checked_codings
from isp_perf.compression._dictionary import Dictionaries
from isp_perf.compression._engine import Engine
from isp_perf.compression._gate import Gate
from isp_perf.compression._offload import Offload
from isp_perf.compression._stats import CompressionStats
from isp_perf.errors import ConfigurationError

__all__ = ["CompressionMiddleware"]

_BUDGET = Budget()
_STREAMING = Streaming()


def _check_tags(etag: str, budget: Budget, cache: VariantCache | None) -> None:
    if etag not in ("weak", "suffix"):
        raise ConfigurationError("etag", etag, "'weak' or 'suffix'", "keep 'weak'")
    if etag == "suffix" and (budget.adaptive or (cache is not None and cache.upgrade_after is not None)):
        rule = "strong tags need fixed levels, or equal tags would name different bytes"
        fix = "pass budget=Budget(adaptive=False) and VariantCache(upgrade_after=None), or keep etag='weak'"
        raise ConfigurationError("etag", etag, rule, fix)


def _check_breach(breach: Breach | None, dictionaries: Dictionaries | None) -> None:
    if breach is not None and dictionaries is not None:
        rule = "a dictionary makes lengths tell more, padding is there to make them tell less"
        raise ConfigurationError("dictionaries", "given with breach", rule, "choose one of the two")


def _check_values(minimum_size: int, types: Iterable[str], exclude: Iterable[str]) -> None:
    if isinstance(minimum_size, bool) or minimum_size < 0:
        raise ConfigurationError("minimum_size", minimum_size, "bytes >= 0", "1024 is the default")
    if isinstance(types, str) or isinstance(exclude, str):
        raise ConfigurationError("types/exclude", "a string", "a collection of strings", "put it into a tuple")


class CompressionMiddleware:
    """Codes the responses of an ASGI 3 application as the client likes best, and never a byte wrongly.

    brotli, zstd (extra ``zstd``), gzip and deflate; a coding whose library is missing is not offered. Large bodies are
    coded in threads, so that the event loop goes on. Scopes other than ``http`` pass untouched. Sources: RFC 9110 8.4,
    8.8.3, 12.5.3 and 12.5.5, RFC 9111 5.2, RFC 9530, RFC 9659.

    Args:
        app: the application.
        minimum_size: bytes from which a complete body is coded; default 1024, >= 0.
        encodings: what to offer; the order breaks ties between codings the client likes equally.
        budget: how long coding may occupy the event loop, and what may be traded for it.
        types: media types to code: exact names, ``"text/*"``, ``"*+json"``.
        exclude: path patterns (``*``, ``?``, ``[...]`` as in a shell) that are left alone altogether.
        etag: ``"weak"`` (default): a strong tag ``"v1"`` becomes ``W/"v1-br"``; ``"suffix"``: ``"v1-br"``, allowed only
            with ``Budget(adaptive=False)`` and no upgrades in the cache.
        not_acceptable: what a client gets that refuses identity and every coding on offer: ``"406"`` (default), before
            the application runs, or ``"identity"``.
        breach: padding and cross-site rule against length guessing; ``None`` (default): off.
        cache: keeps compressed bodies by content; ``None`` (default): off.
        dictionaries: responses coded against what the client has already (RFC 9842); ``None`` (default): off.
        streaming: how event streams and NDJSON are coded.
        stats: the record to count in; ``None`` makes one, found as ``.stats``.
        executor: threads for large bodies; ``None``: up to 4 of our own.

    Raises:
        ConfigurationError: a setting is out of its range, or two contradict each other.
    """

    app: ASGIApp

    def __init__(
        self,
        app: ASGIApp,
        *,
        minimum_size: int = 1024,
        encodings: tuple[str, ...] = KNOWN_CODINGS,
        budget: Budget = _BUDGET,
        types: Iterable[str] = DEFAULT_TYPES,
        exclude: Iterable[str] = (),
        etag: Literal["weak", "suffix"] = "weak",
        not_acceptable: Literal["406", "identity"] = "406",
        breach: Breach | None = None,
        cache: VariantCache | None = None,
        dictionaries: Dictionaries | None = None,
        streaming: Streaming = _STREAMING,
        stats: CompressionStats | None = None,
        executor: Executor | None = None,
    ) -> None:
        _check_values(minimum_size, types, exclude)
        if not_acceptable not in ("406", "identity"):
            raise ConfigurationError("not_acceptable", not_acceptable, "'406' or 'identity'", "keep '406'")
        _check_tags(etag, budget, cache)
        _check_breach(breach, dictionaries)
        self.app = app
        self._engine = Engine(
            minimum_size=minimum_size,
            encodings=checked_codings("encodings", encodings),
            budget=budget,
            types=types,
            exclude=exclude,
            strong_tags=etag == "suffix",
            refuses=not_acceptable == "406",
            breach=breach,
            cache=cache,
            dictionaries=dictionaries,
            streaming=streaming,
            stats=stats,
            offload=Offload(executor),
        )
        self._excluded = self._engine.excluded

    @property
    def stats(self) -> CompressionStats:
        """The record this middleware counts in."""
        return self._engine.stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI 3 asks."""
        if scope["type"] != "http" or (self._excluded is not None and self._left_alone(scope)):
            await self.app(scope, receive, send)
            return
        request = self._engine.request(scope)
        if request.answer is not None:
            await request.answer(scope["method"], send)
            return
        scope = request.scope or scope
        gate = Gate(request, scope, send)
        try:
            await self.app(scope, receive, gate.send)
        except BaseException:
            gate.abort()
            raise
        if gate.onward is not send:
            await gate.finish()

    def _left_alone(self, scope: Scope) -> bool:
        excluded = self._excluded is not None and self._excluded.match(scope["path"]) is not None
        self._engine.stats.skipped["excluded"] += excluded
        return excluded
