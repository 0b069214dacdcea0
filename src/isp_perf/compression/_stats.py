"""What compression did, in plain integers: the seed's JSON, and a reason for every response left uncoded."""

from typing import Any, Final
from weakref import WeakSet

__all__ = ["REASONS", "CompressionStats", "live_stats"]

REASONS: Final = (
    "no_accept_encoding",
    "identity_preferred",
    "not_acceptable",
    "too_small",
    "not_smaller",
    "type",
    "already_encoded",
    "no_transform",
    "status",
    "range",
    "head",
    "empty",
    "pathsend",
    "excluded",
    "opted_out",
    "cross_site",
    "wrong_length",
    "other_message",
    "aborted",
)
"""Why a response was left uncoded, each a key of ``skipped``."""

_NAMES = {"br": "brotli"}
_MIB = 1 << 20


class _Live(WeakSet["CompressionStats"]):
    """Every record in use, for metrics that read them from outside."""


live_stats: Final = _Live()


class CompressionStats:
    """Counters of one middleware (or of several that share the record).

    Reading is free of locks; counting costs a few integer additions per response. In bytes, always:
    ``bytes_in == bytes_out + total_bytes_saved``.

    Attributes:
        encoded: coded responses by coding.
        saved: bytes saved by coding; negative if the client forced a coding on a body that grew.
        skipped: uncoded responses by reason (``REASONS``).
        bytes_in: bytes of the bodies before coding.
        bytes_out: bytes sent for them.
        codec_seconds: time spent in the codecs, in seconds, on the event loop and in threads.
        offloaded: codec jobs that ran in threads.
        level_steps: times the levels were stepped down or up again because of load.
        cache_hits: variants found in the cache.
        cache_misses: variants looked for and not found.
        cache_upgrades: variants replaced by a smaller one in the background.
        cache_bytes: bytes the variant cache holds now.
        dictionary: responses coded with a dictionary.
    """

    __slots__ = (
        "__weakref__",
        "bytes_in",
        "bytes_out",
        "cache_bytes",
        "cache_hits",
        "cache_misses",
        "cache_upgrades",
        "codec_seconds",
        "dictionary",
        "encoded",
        "level_steps",
        "offloaded",
        "saved",
        "skipped",
    )

    bytes_in: int
    bytes_out: int
    cache_bytes: int
    cache_hits: int
    cache_misses: int
    cache_upgrades: int
    codec_seconds: float
    dictionary: int
    level_steps: int
    offloaded: int

    def __init__(self) -> None:
        self.encoded: dict[str, int] = {"br": 0, "gzip": 0}
        self.saved: dict[str, int] = {"br": 0, "gzip": 0}
        self.skipped: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.bytes_in = 0
        self.bytes_out = 0
        self.codec_seconds = 0.0
        self.offloaded = 0
        self.level_steps = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self.cache_upgrades = 0
        self.cache_bytes = 0
        self.dictionary = 0
        live_stats.add(self)

    def count(self, coding: str, size_in: int, size_out: int) -> None:
        """Count one response in ``coding``: ``size_in`` bytes of body, ``size_out`` bytes sent for it (both >= 0)."""
        self.encoded[coding] = self.encoded.get(coding, 0) + 1
        self.saved[coding] = self.saved.get(coding, 0) + size_in - size_out
        self.bytes_in += size_in
        self.bytes_out += size_out

    @property
    def total_requests(self) -> int:
        """Coded responses; requests seen are these plus the sum of ``skipped``."""
        return sum(self.encoded.values())

    @property
    def total_bytes_saved(self) -> int:
        """Bytes that did not have to be sent."""
        return sum(self.saved.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready values; sizes in bytes, times in seconds.

        ``total_requests``, ``total_bytes_saved``, ``total_bytes_saved_mb`` (MiB, one decimal) and ``by_encoding``
        come first; ``brotli`` and ``gzip`` are always there, the other codings once used.
        """
        saved = self.total_bytes_saved
        return {
            "total_requests": self.total_requests,
            "total_bytes_saved": saved,
            "total_bytes_saved_mb": round(saved / _MIB, 1),
            "by_encoding": {
                _NAMES.get(coding, coding): {"requests": requests, "bytes_saved": self.saved[coding]}
                for coding, requests in self.encoded.items()
            },
            "skipped": {reason: number for reason, number in self.skipped.items() if number},
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "codec_seconds": round(self.codec_seconds, 6),
            "offloaded": self.offloaded,
            "level_steps": self.level_steps,
            "dictionary": self.dictionary,
            "cache": {
                "hits": self.cache_hits,
                "misses": self.cache_misses,
                "upgrades": self.cache_upgrades,
                "bytes": self.cache_bytes,
            },
        }
