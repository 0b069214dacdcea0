"""The text formats: Prometheus 0.0.4 and 1.0.0, OpenMetrics 1.0, in four escaping schemes, chosen by ``Accept``.

The part of a line before its value is made once per series and kept as long as the family's keys stay the same list;
a scrape is then one join of prefix and number per series.

Writing happens in a thread beside an event loop, and a thread that computes gives the interpreter up only every 5 ms
(``sys.getswitchinterval``). So it pauses by itself several times a millisecond: no loop waits longer for a scrape.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import sleep
from typing import Any, Final

from isp_perf._core.histogram import cumulative, octave_edges
from isp_perf.metrics._names import ALLOW_UTF8, SCHEMES, UNDERSCORES, escape_help, escape_name, is_classic, label_text
from isp_perf.metrics._snapshot import Column, Exemplar, Key, Snapshot, Spec

__all__ = ["Format", "Renderer", "edges", "negotiate", "number"]

_ANY_TEXT: Final = frozenset({"text/plain", "text/*", "*/*"})
_UNITS: Final = ("seconds", "bytes", "ratio")
# Exponents of the first and last octave edge shown of the log-linear layout.
_SECONDS_OCTAVES: Final = (10, 36)  # 1 us to 69 s
_WHOLE_OCTAVES: Final = (0, 30)  # 0 to 1 GiB
_ROWS_AT_ONCE: Final = 2000  # less than half a millisecond
_HISTOGRAM_ROWS: Final = 120  # what one histogram takes, in rows of a counter
_PREFIX_ROWS: Final = 20
_NONE: Final[Mapping[int, Exemplar]] = {}
_NO_SERIES: Final[Mapping[Key, Mapping[int, Exemplar]]] = {}


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing a scrape.

    Args:
        openmetrics: OpenMetrics instead of the Prometheus text format.
        version: version of the format, as it stands in the content type.
        escaping: how names outside the classic alphabet are written.
    """

    openmetrics: bool = False
    version: str = "0.0.4"
    escaping: str = UNDERSCORES

    @property
    def content_type(self) -> str:
        """The ``Content-Type`` of the answer."""
        kind = "application/openmetrics-text" if self.openmetrics else "text/plain"
        escaping = "" if self.version == "0.0.4" else f"; escaping={self.escaping}"
        return f"{kind}; version={self.version}; charset=utf-8{escaping}"


def negotiate(accept: str) -> Format:
    """Return the format that the ``Accept`` header likes best (highest q, then first); text 0.0.4 if it knows none."""
    best, best_quality = Format(), 0.0
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        options = {
            name.strip().lower(): text.strip(' "') for name, _, text in (item.partition("=") for item in parameters)
        }
        offered = _offered(media.lower(), options)
        quality = _quality(options.get("q", "1"))
        if offered is not None and quality > best_quality:
            best, best_quality = offered, quality
    return best


def _offered(media: str, options: Mapping[str, str]) -> Format | None:
    version = options.get("version", "").partition(".")[0]
    asked = options.get("escaping", UNDERSCORES)
    escaping = asked if asked in SCHEMES else UNDERSCORES
    if media == "application/openmetrics-text":
        return Format(openmetrics=True, version="1.0.0", escaping=escaping) if version in {"", "0", "1"} else None
    if media == "text/plain" and version == "1":
        return Format(version="1.0.0", escaping=escaping)
    return Format() if media in _ANY_TEXT and version in {"", "0"} else None


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0


def number(value: float) -> str:
    """Return a number as both formats write it."""
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


@lru_cache(maxsize=256)
def edges(spec: Spec) -> tuple[tuple[int, float], ...]:
    """Return the buckets a histogram shows: how many cells each takes in, and its inclusive bound in base units."""
    if spec.bounds is not None:
        return tuple((index + 1, bound / spec.scale) for index, bound in enumerate(spec.bounds))
    shown = octave_edges(*(_WHOLE_OCTAVES if spec.whole else _SECONDS_OCTAVES))
    return tuple((below, edge / spec.scale) for below, edge in shown)


class Renderer:
    """Writes snapshots; keeps the text of series between scrapes. One per reader thread or under a lock."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, Format], tuple[list[Key], list[Any]]] = {}
        self._rows = 0

    def render(self, snapshot: Snapshot, chosen: Format, names: frozenset[str] = frozenset()) -> bytes:
        """Return the body of a scrape.

        Args:
            snapshot: what to write.
            chosen: the format.
            names: if not empty, only these sample or family names.
        """
        pieces: list[str] = []
        for column in snapshot.columns.values():
            if names and not _asked_for(column.spec, names):
                continue
            self._family(pieces, column, chosen=chosen, exemplars=snapshot.exemplars.get(column.spec.name, {}))
        if chosen.openmetrics:
            pieces.append("# EOF\n")
        return "".join(pieces).encode()

    def _family(
        self, pieces: list[str], column: Column, *, chosen: Format, exemplars: Mapping[Key, Mapping[int, Exemplar]]
    ) -> None:
        spec = column.spec
        pieces.append(_header(spec, chosen))
        texts = self._kept(column, chosen)
        if spec.kind == "histogram":
            shown = exemplars if chosen.openmetrics else _NO_SERIES
            for key, prefixes, value in zip(column.keys, texts, column.values, strict=True):
                self._pause(_HISTOGRAM_ROWS)
                pieces.extend(_histogram(spec, prefixes, value, exemplars=shown.get(key, _NONE)))
        else:
            for start in range(0, len(texts), _ROWS_AT_ONCE):
                end = start + _ROWS_AT_ONCE
                self._pause(len(texts[start:end]))
                pieces.append(_plain(column.spec, texts[start:end], column.values[start:end]))

    def _kept(self, column: Column, chosen: Format) -> list[Any]:
        """Return the text before the value (histograms: one per line) of each series."""
        place = (column.spec.name, chosen)
        kept = self._texts.get(place)
        if kept is not None and kept[0] is column.keys:
            return kept[1]
        write = _histogram_prefixes if column.spec.kind == "histogram" else _prefix
        texts: list[Any] = []
        for key in column.keys:
            self._pause(_PREFIX_ROWS)
            texts.append(write(column.spec, key, chosen.escaping))
        self._texts[place] = (column.keys, texts)
        return texts

    def _pause(self, rows: int) -> None:
        """Let other threads run before so many rows are written, if enough were written since the last time."""
        self._rows += rows
        if self._rows > _ROWS_AT_ONCE:
            self._rows = rows
            sleep(0)


def _plain(spec: Spec, texts: list[str], values: list[Any]) -> str:
    """Return the lines of some series of a counter or gauge; a gauge of NaN has none."""
    rows = zip(texts, values, strict=True)
    if spec.kind == "counter":
        return "".join([f"{text}{value if type(value) is int else number(value)}\n" for text, value in rows])
    return "".join([f"{text}{number(value)}\n" for text, value in rows if not math.isnan(value)])


def _asked_for(spec: Spec, names: frozenset[str]) -> bool:
    suffixes = ("_bucket", "_count", "_sum") if spec.kind == "histogram" else ()
    return not names.isdisjoint({spec.name, spec.base, *(spec.name + suffix for suffix in suffixes)})


def _header(spec: Spec, chosen: Format) -> str:
    name = escape_name(spec.base if chosen.openmetrics else spec.name, chosen.escaping)
    text = f"# HELP {name} {escape_help(spec.help, quotes=chosen.openmetrics)}\n# TYPE {name} {spec.kind}\n"
    unit = spec.base.rpartition("_")[2]
    if chosen.openmetrics and unit in _UNITS and spec.base != unit:
        text += f"# UNIT {name} {unit}\n"
    return text


def _sample(name: str, labels: str, scheme: str) -> str:
    """Return ``name{labels} ``; under ``allow-utf-8`` a quoted name stands inside the braces."""
    written = escape_name(name, scheme)
    if scheme == ALLOW_UTF8 and not is_classic(name):
        return f"{{{written}{',' if labels else ''}{labels}}} "
    return f"{written}{{{labels}}} " if labels else f"{written} "


def _prefix(spec: Spec, key: Key, scheme: str) -> str:
    return _sample(spec.name, label_text(spec.labels, key, scheme), scheme)


def _histogram_prefixes(spec: Spec, key: Key, scheme: str) -> list[str]:
    """Return the starts of the bucket lines, then of ``_count`` and ``_sum``."""
    labels = label_text(spec.labels, key, scheme)
    comma = "," if labels else ""
    bounds = [*(number(bound) for _, bound in edges(spec)), "+Inf"]
    lines = [_sample(f"{spec.name}_bucket", f'{labels}{comma}le="{bound}"', scheme) for bound in bounds]
    return [*lines, _sample(f"{spec.name}_count", labels, scheme), _sample(f"{spec.name}_sum", labels, scheme)]


def _histogram(
    spec: Spec, prefixes: list[str], value: list[int], *, exemplars: Mapping[int, Exemplar]
) -> Iterator[str]:
    cells = value[:-1]
    below = [count for count, _ in edges(spec)]
    counts = cumulative(cells, [*below, len(cells)])
    tails = _tails(below, exemplars, len(cells)) if exemplars else None
    for index, count in enumerate(counts):
        yield f"{prefixes[index]}{count}{tails[index] if tails else ''}\n"
    yield f"{prefixes[-2]}{counts[-1]}\n"
    yield f"{prefixes[-1]}{number(value[-1] if spec.whole else value[-1] / spec.scale)}\n"


def _tails(below: Iterable[int], exemplars: Mapping[int, Exemplar], cells: int) -> list[str]:
    """Return what follows each bucket's count: the newest exemplar of its cells, if there is one."""
    ends = [*below, cells]
    tails = [""] * len(ends)
    for cell, exemplar in sorted(exemplars.items(), key=_moment):
        tails[bisect_right(ends, cell)] = _exemplar(exemplar)
    return tails


def _moment(item: tuple[int, Exemplar]) -> float:
    return item[1][2]


def _exemplar(exemplar: Exemplar) -> str:
    labels, value, moment = exemplar
    text = label_text(labels.keys(), labels.values(), UNDERSCORES)
    return f" # {{{text}}} {number(value)} {moment:.3f}"
