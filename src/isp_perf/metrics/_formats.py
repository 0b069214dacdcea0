"""In which format a scrape is written: chosen by the ``Accept`` header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from isp_perf.metrics._names import SCHEMES, UNDERSCORES
from isp_perf.metrics._snapshot import Exemplar

__all__ = ["Format", "Rows", "Syntax", "negotiate"]

Syntax: TypeAlias = Literal["text", "openmetrics", "protobuf"]

_ANY_TEXT: Final = frozenset({"text/plain", "text/*", "*/*"})
_PROTOBUF: Final = "application/vnd.google.protobuf"
_PROTOBUF_OPTIONS: Final = {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"}


class Rows(NamedTuple):
    """The values of some series; of histograms also each one's exemplars by cell."""

    values: Sequence[Any]
    examples: Sequence[Mapping[int, Exemplar]] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing a scrape.

    Args:
        syntax: the Prometheus text format, OpenMetrics, or delimited protobuf messages with native histograms.
        version: version of a text format, as it stands in the content type.
        escaping: how names outside the classic alphabet are written.
    """

    syntax: Syntax = "text"
    version: str = "0.0.4"
    escaping: str = UNDERSCORES

    @property
    def content_type(self) -> str:
        """The ``Content-Type`` of the answer."""
        escaping = "" if self.version == "0.0.4" else f"; escaping={self.escaping}"
        if self.syntax == "protobuf":
            options = "".join(f"; {name}={value}" for name, value in _PROTOBUF_OPTIONS.items())
            return f"{_PROTOBUF}{options}{escaping}"
        kind = "application/openmetrics-text" if self.syntax == "openmetrics" else "text/plain"
        return f"{kind}; version={self.version}; charset=utf-8{escaping}"


def negotiate(accept: str, *, protobuf: bool = True) -> Format:
    """Return the format that the ``Accept`` header likes best (highest q, then first); text 0.0.4 if it knows none.

    Args:
        accept: the header.
        protobuf: whether protobuf can be had.
    """
    best, best_quality = Format(), 0.0
    for part in accept.split(","):
        media, options = _read(part)
        offered = _offered(media, options)
        quality = _quality(options.get("q", "1"))
        if offered is not None and quality > best_quality and (protobuf or offered.syntax != "protobuf"):
            best, best_quality = offered, quality
    return best


def _read(part: str) -> tuple[str, dict[str, str]]:
    """Return the media type and the parameters of one part of the header."""
    media, *parameters = (piece.strip() for piece in part.split(";"))
    pairs = (item.partition("=") for item in parameters)
    return media.lower(), {name.strip().lower(): text.strip(' "') for name, _, text in pairs}


def _offered(media: str, options: Mapping[str, str]) -> Format | None:
    version = options.get("version", "").partition(".")[0]
    escaping = _escaping(options)
    if media == _PROTOBUF:
        return _protobuf(options, escaping)
    if media == "application/openmetrics-text":
        return Format("openmetrics", "1.0.0", escaping) if version in {"", "0", "1"} else None
    if media == "text/plain" and version == "1":
        return Format("text", "1.0.0", escaping)
    return Format() if media in _ANY_TEXT and version in {"", "0"} else None


def _protobuf(options: Mapping[str, str], escaping: str) -> Format | None:
    if not _PROTOBUF_OPTIONS.items() <= options.items():
        return None
    # Who does not say ``escaping`` knows classic names only, and no such parameter either.
    return Format("protobuf", "1.0.0" if "escaping" in options else "0.0.4", escaping)


def _escaping(options: Mapping[str, str]) -> str:
    asked = options.get("escaping", UNDERSCORES)
    return asked if asked in SCHEMES else UNDERSCORES


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0
