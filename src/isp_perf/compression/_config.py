"""The settings of compression: frozen, checked when made, each with unit, range and default."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from isp_perf._core import media
from isp_perf._core.negotiation import KNOWN_CODINGS
from isp_perf.errors import ConfigurationError

__all__ = ["DEFAULT_TYPES", "Breach", "Budget", "Options", "Streaming", "VariantCache", "checked_codings"]

DEFAULT_TYPES: Final = media.DEFAULT_TYPES
"""Media types that are compressed by default: exact names, ``type/*``, and structured suffixes as ``*+json``."""

_MAX_PAD = 256


def checked_codings(setting: str, encodings: Sequence[str]) -> tuple[str, ...]:
    """Return ``encodings`` as a tuple; raise ``ConfigurationError`` if one is unknown, repeated, or none is left."""
    names = tuple(encodings)
    if not names or len(set(names)) != len(names) or not set(names) <= set(KNOWN_CODINGS):
        rule = f"a non-empty tuple of different codings from {KNOWN_CODINGS}"
        raise ConfigurationError(setting, encodings, rule, "for example ('br', 'gzip')")
    return names


@dataclass(frozen=True, slots=True)
class Budget:
    """How long compressing one body may occupy the event loop, and what may be traded for it.

    Attributes:
        inline_ms: a body (or chunk) predicted to take longer than this many milliseconds is compressed in a thread.
            Default 1.0; 0 sends everything to threads, ``math.inf`` nothing.
        preset: ``"balanced"`` (default) or ``"fast"``, which takes the fastest coding the client likes and its fastest
            level: several times quicker, some 10 % more bytes.
        adaptive: step levels down while the threads cannot follow, and up again after (default). ``False`` fixes
            the level of each coding, which ``etag="suffix"`` requires.
    """

    inline_ms: float = 1.0
    preset: Literal["balanced", "fast"] = "balanced"
    adaptive: bool = True

    def __post_init__(self) -> None:
        if math.isnan(self.inline_ms) or self.inline_ms < 0:
            raise ConfigurationError("inline_ms", self.inline_ms, "milliseconds >= 0", "1.0 is a good start")
        if self.preset not in ("balanced", "fast"):
            raise ConfigurationError("preset", self.preset, "'balanced' or 'fast'", "leave it out for 'balanced'")


@dataclass(frozen=True, slots=True)
class Streaming:
    """How responses of unknown length are coded. Every message is flushed, so nothing is held back.

    Attributes:
        encodings: order among codings the client likes equally, for event streams and NDJSON: the memory of an open
            stream is what counts there. Default gzip, br, zstd, deflate.
        small: give these streams a small window (default): some 37 KiB of memory an open gzip stream instead of 270,
            for about 2 % of the bytes saved.
    """

    encodings: tuple[str, ...] = ("gzip", "br", "zstd", "deflate")
    small: bool = True

    def __post_init__(self) -> None:
        checked_codings("encodings", self.encodings)


@dataclass(frozen=True, slots=True)
class Breach:
    """Defence against guessing secrets by the length of compressed bodies (BREACH, CVE-2013-3587).

    Attributes:
        pad: lengthen every coded body by 1 to ``pad`` bytes (1-256, default 32). The length depends on the body only,
            so asking again does not average it away.
        cross_site: ``"identity"`` (default) leaves responses uncoded when a request that carries a cookie or
            credentials comes from another site (``Sec-Fetch-Site: cross-site``); ``"encode"`` codes them as any other.
    """

    pad: int = 32
    cross_site: Literal["identity", "encode"] = "identity"

    def __post_init__(self) -> None:
        if not 1 <= self.pad <= _MAX_PAD:
            raise ConfigurationError("pad", self.pad, f"1 to {_MAX_PAD} bytes", "32 is a good start")
        if self.cross_site not in ("identity", "encode"):
            raise ConfigurationError("cross_site", self.cross_site, "'identity' or 'encode'", "keep 'identity'")


@dataclass(frozen=True, slots=True)
class VariantCache:
    """Keeps compressed bodies by content: an equal body is compressed once.

    The time an answer takes tells whether its body was seen before. Responses marked ``private`` or ``no-store`` are
    therefore neither kept nor found, unless that is allowed.

    Attributes:
        max_bytes: bytes of bodies and their variants together, default 64 MiB; the longest unused go first.
        max_body: bodies above this many bytes are not looked up (their hash would hold the event loop); default 1 MiB.
        upgrade_after: hits after which a variant is compressed again as small as can be (brotli 11) in one background
            thread; default 3, ``None``: never.
        private: also serve responses marked private or no-store; default ``False``.
    """

    max_bytes: int = 64 << 20
    max_body: int = 1 << 20
    upgrade_after: int | None = 3
    private: bool = False

    def __post_init__(self) -> None:
        for setting, value in (("max_bytes", self.max_bytes), ("max_body", self.max_body)):
            if value < 1:
                raise ConfigurationError(setting, value, "bytes >= 1", "leave it out for the default")
        if self.upgrade_after is not None and self.upgrade_after < 1:
            raise ConfigurationError("upgrade_after", self.upgrade_after, "hits >= 1, or None", "3 is a good start")


@dataclass(frozen=True, slots=True)
class Options:
    """What one response asks for: the value of ``scope["isp_perf.compression"]``.

    It never overrules what the client refused.

    Attributes:
        coding: use this coding if the client accepts it at all; ``None`` (default) leaves the choice.
        minimum_size: bytes from which this response is coded, >= 0; ``None`` (default) takes the middleware's.
        cache: ``True`` lets the variant cache keep this response although it is private or no-store, ``False`` keeps
            it out; ``None`` (default) goes by Cache-Control.
        server_timing: add ``Server-Timing: cmp;dur=<ms>;desc="<coding><level>"`` to a complete coded response.
    """

    coding: str | None = None
    minimum_size: int | None = None
    cache: bool | None = None
    server_timing: bool = False

    def __post_init__(self) -> None:
        if self.coding is not None and self.coding not in KNOWN_CODINGS:
            raise ConfigurationError("coding", self.coding, f"one of {KNOWN_CODINGS}", "or None to leave the choice")
        if self.minimum_size is not None and self.minimum_size < 0:
            raise ConfigurationError("minimum_size", self.minimum_size, "bytes >= 0", "or None for the middleware's")
