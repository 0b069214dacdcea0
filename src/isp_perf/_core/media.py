"""Which media types are worth compressing, and how their streams behave."""

from collections.abc import Iterable
from typing import Final

__all__ = ["BODY", "DEFAULT_TYPES", "EVENTS", "LINES", "OPAQUE", "MediaTypes"]

OPAQUE: Final = 0
"""Not compressible: packed already, not known, or forbidden."""
BODY: Final = 1
"""Compressible, an ordinary body."""
LINES: Final = 2
"""Compressible, and its streams are records that readers wait for (NDJSON and its kin)."""
EVENTS: Final = 3
"""Compressible Server-Sent Events: the head must leave at once, and every event too."""

DEFAULT_TYPES: Final[frozenset[str]] = frozenset(
    {
        "text/*",
        "*+json",
        "*+xml",
        "*+text",
        "*+yaml",
        "*+json-seq",
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/json-seq",
        "application/json5",
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/rtf",
        "application/sql",
        "application/toml",
        "application/typescript",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-www-form-urlencoded",
        "application/x-yaml",
        "application/xml",
        "application/xml-dtd",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/vnd.microsoft.icon",
        "image/x-icon",
    }
)
"""Media types that are compressed by default: exact names, ``type/*``, and structured suffixes as ``*+json``."""

_LINES = frozenset(
    {
        "application/json-seq",
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/x-jsonlines",
        "application/x-ndjson",
    }
)
# gRPC frames carry their own compression flag; the multipart streams are cut by their boundaries, byte for byte.
_NEVER = ("application/grpc", "multipart/")


class MediaTypes:
    """A set of media type patterns, answered with the kind of the type.

    Args:
        patterns: ``"type/subtype"``, ``"type/*"`` or ``"*+suffix"``, case-insensitive.
    """

    __slots__ = ("_exact", "_prefixes", "_suffixes")

    def __init__(self, patterns: Iterable[str] = DEFAULT_TYPES) -> None:
        names = [pattern.lower() for pattern in patterns]
        self._exact = frozenset(name for name in names if "*" not in name)
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("/*"))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*+"))

    def classify(self, content_type: bytes) -> int:
        """Return ``OPAQUE``, ``BODY``, ``LINES`` or ``EVENTS`` for a ``Content-Type`` value; never raises."""
        name = content_type.split(b";", 1)[0].strip(b" \t").lower().decode("latin-1")
        if name.startswith(_NEVER) or not self._listed(name):
            return OPAQUE
        if name == "text/event-stream":
            return EVENTS
        return LINES if name in _LINES else BODY

    def _listed(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._prefixes) or name.endswith(self._suffixes)
