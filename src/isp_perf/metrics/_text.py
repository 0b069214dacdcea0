"""The text formats: Prometheus 0.0.4 and 1.0.0, OpenMetrics 1.0, in four escaping schemes.

Some series and their line ends are one template, which one formatting operation fills.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from isp_perf.metrics._buckets import edges, shown
from isp_perf.metrics._formats import Format, Rows
from isp_perf.metrics._names import ALLOW_UTF8, UNDERSCORES, escape_help, escape_name, is_classic, label_text
from isp_perf.metrics._snapshot import Exemplar, Key, Spec

__all__ = ["Text", "number"]

_UNITS: Final = ("seconds", "bytes", "ratio")


def number(value: float) -> str:
    """Return a number as both formats write it."""
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def _are_finite(values: Sequence[float]) -> bool:
    """Return whether no value is infinite or NaN, which the sum then is as well; ``False`` also for giants."""
    try:
        return math.isfinite(sum(values))
    except OverflowError:
        return False


class _Frame(NamedTuple):
    """The starts of some lines, and the template of them all."""

    starts: list[str]
    template: str


class Text:
    """The style of both text formats.

    Args:
        openmetrics: OpenMetrics, with units and exemplars, instead of the Prometheus text format.
    """

    def __init__(self, *, openmetrics: bool) -> None:
        self._openmetrics = openmetrics

    def header(self, spec: Spec, chosen: Format) -> bytes:
        """Return the lines about a family."""
        name = escape_name(spec.base if self._openmetrics else spec.name, chosen.escaping)
        text = f"# HELP {name} {escape_help(spec.help, quotes=self._openmetrics)}\n# TYPE {name} {spec.kind}\n"
        unit = spec.base.rpartition("_")[2]
        if self._openmetrics and unit in _UNITS and spec.base != unit:
            text += f"# UNIT {name} {unit}\n"
        return text.encode()

    def frame(self, spec: Spec, keys: Sequence[Key], chosen: Format) -> _Frame:
        """Return the starts of the lines of some series."""
        write = _histogram_starts if spec.kind == "histogram" else _plain_starts
        starts = [start for key in keys for start in write(spec, key, chosen.escaping)]
        return _Frame(starts, "".join([start.replace("%", "%%") + "%s\n" for start in starts]))

    def fill(self, spec: Spec, frame: _Frame, rows: Rows) -> bytes:
        """Return the lines of some series."""
        if spec.kind == "histogram":
            pairs = zip(rows.values, rows.examples, strict=True)
            ends = [end for value, own in pairs for end in _histogram(spec, value, own if self._openmetrics else {})]
            return (frame.template % tuple(ends)).encode()
        if _are_finite(rows.values):
            return (frame.template % tuple(rows.values)).encode()
        lines = zip(frame.starts, rows.values, strict=True)
        return "".join([_line(start, value, gauge=spec.kind == "gauge") for start, value in lines]).encode()

    def family(self, header: bytes, blocks: Sequence[bytes]) -> bytes:
        """Return the lines of a family."""
        return header + b"".join(blocks)


def _sample(name: str, labels: str, scheme: str) -> str:
    """Return ``name{labels} ``; under ``allow-utf-8`` a quoted name stands inside the braces."""
    written = escape_name(name, scheme)
    if scheme == ALLOW_UTF8 and not is_classic(name):
        return f"{{{written}{',' if labels else ''}{labels}}} "
    return f"{written}{{{labels}}} " if labels else f"{written} "


def _line(start: str, value: float, *, gauge: bool) -> str:
    """Return one line; a gauge of NaN has none."""
    return "" if gauge and math.isnan(value) else f"{start}{number(value)}\n"


def _plain_starts(spec: Spec, key: Key, scheme: str) -> list[str]:
    return [_sample(spec.name, label_text(spec.labels, key, scheme), scheme)]


def _histogram_starts(spec: Spec, key: Key, scheme: str) -> list[str]:
    """Return the starts of the bucket lines, then of ``_count`` and ``_sum``."""
    labels = label_text(spec.labels, key, scheme)
    comma = "," if labels else ""
    bounds = [*(number(bound) for _, bound in edges(spec)), "+Inf"]
    lines = [_sample(f"{spec.name}_bucket", f'{labels}{comma}le="{bound}"', scheme) for bound in bounds]
    return [*lines, _sample(f"{spec.name}_count", labels, scheme), _sample(f"{spec.name}_sum", labels, scheme)]


def _histogram(spec: Spec, value: list[int], exemplars: Mapping[int, Exemplar]) -> list[Any]:
    """Return what stands behind the starts of a histogram's lines."""
    buckets = shown(spec, value[:-1], exemplars)
    ends = [total if example is None else f"{total}{_exemplar(example)}" for _, total, example in buckets]
    return [*ends, buckets[-1].total, number(value[-1] if spec.whole else value[-1] / spec.scale)]


def _exemplar(exemplar: Exemplar) -> str:
    labels, value, moment = exemplar
    text = label_text(labels.keys(), labels.values(), UNDERSCORES)
    return f" # {{{text}}} {number(value)} {moment:.3f}"
