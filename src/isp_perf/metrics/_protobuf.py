"""Delimited protobuf messages, the only format in which Prometheus takes native histograms.

The messages are ``io.prometheus.client.MetricFamily`` of Prometheus's ``client_model``; the few kinds of fields they
have are written by hand (https://protobuf.dev/programming-guides/encoding/). A log-linear histogram is sent with its
native buckets and its classic ones: a server takes the native ones if it keeps such, else the others.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from isp_perf.metrics._buckets import NATIVE_SCHEMA, native_places, shown
from isp_perf.metrics._formats import Format, Rows
from isp_perf.metrics._names import ALLOW_UTF8, clean, escape_name
from isp_perf.metrics._snapshot import Exemplar, Key, Kind, Spec

__all__ = ["Protobuf"]

_DOUBLE: Final = struct.Struct("<d")
_TYPES: Final[Mapping[Kind, int]] = {"counter": 0, "gauge": 1, "histogram": 4}
# Numbers of fields, as client_model's metrics.proto gives them.
_FAMILY_NAME, _FAMILY_HELP, _FAMILY_TYPE, _FAMILY_METRIC = 1, 2, 3, 4
_METRIC_LABEL, _METRIC_VALUE = 1, {"gauge": 2, "counter": 3, "histogram": 7}
_LABEL_NAME, _LABEL_VALUE, _PLAIN_VALUE = 1, 2, 1
_COUNT, _SUM, _BUCKET, _SCHEMA, _ZERO_THRESHOLD, _ZERO_COUNT, _SPAN, _DELTA = 1, 2, 3, 5, 6, 7, 12, 13
_BUCKET_COUNT, _BUCKET_BOUND, _BUCKET_EXEMPLAR = 1, 2, 3
_EXEMPLAR_LABEL, _EXEMPLAR_VALUE, _EXEMPLAR_TIME = 1, 2, 3
_SECONDS, _NANOS = 1, 2
_OFFSET, _LENGTH = 1, 2
_NANOS_PER_SECOND: Final = 1_000_000_000
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80
_ZERO_WIDTH: Final = 2.0**-128  # what lies below counts as zero; of ours only zero does


class Protobuf:
    """The style of delimited protobuf messages."""

    def header(self, spec: Spec, chosen: Format) -> bytes:
        """Return the fields about a family."""
        name = _name(spec.name, chosen)
        kind = _number(_FAMILY_TYPE, _TYPES[spec.kind])
        return _text(_FAMILY_NAME, name) + _text(_FAMILY_HELP, clean(spec.help)) + kind

    def frame(self, spec: Spec, keys: Sequence[Key], chosen: Format) -> list[bytes]:
        """Return the labels of some series."""
        names = [_name(label, chosen, label=True) for label in spec.labels]
        return [_labels(_METRIC_LABEL, zip(names, key, strict=True)) for key in keys]

    def fill(self, spec: Spec, frame: list[bytes], rows: Rows) -> bytes:
        """Return some series; a gauge of NaN is left out."""
        if spec.kind == "histogram":
            pairs = zip(rows.values, rows.examples, strict=True)
            written = [_histogram(spec, value, own) for value, own in pairs]
        else:
            written = [b"" if math.isnan(value) else _double(_PLAIN_VALUE, value) for value in rows.values]
        place = _METRIC_VALUE[spec.kind]
        series = [labels + _message(place, value) for labels, value in zip(frame, written, strict=True) if value]
        return b"".join([_message(_FAMILY_METRIC, one) for one in series])

    def family(self, header: bytes, blocks: Sequence[bytes]) -> bytes:
        """Return the message of a family behind its length."""
        message = header + b"".join(blocks)
        return _varint(len(message)) + message


def _name(name: str, chosen: Format, *, label: bool = False) -> str:
    """Return a name; where UTF-8 is known it stands as it is, without the quotes of the text formats."""
    return name if chosen.escaping == ALLOW_UTF8 else escape_name(name, chosen.escaping, label=label)


def _histogram(spec: Spec, value: list[int], exemplars: Mapping[int, Exemplar]) -> bytes:
    cells = value[:-1]
    buckets = shown(spec, cells, exemplars)
    fields = [_number(_COUNT, buckets[-1].total), _double(_SUM, value[-1] / spec.scale)]
    for bound, total, example in buckets:
        bucket = _number(_BUCKET_COUNT, total) + _double(_BUCKET_BOUND, bound)
        fields.append(_message(_BUCKET, bucket + (b"" if example is None else _exemplar(example))))
    if spec.bounds is None:
        fields += _native(cells, native_places(spec.scale))
    return b"".join(fields)


def _native(cells: Sequence[int], places: Sequence[int]) -> list[bytes]:
    """Return the native buckets: runs of filled ones, and each count's difference from the one before."""
    filled = [(place, count) for place, count in zip(places, cells[1:], strict=True) if count]
    counts = [0, *(count for _, count in filled)]
    deltas = b"".join([_varint(_zigzag(after - before)) for before, after in pairwise(counts)])
    return [
        _number(_SCHEMA, _zigzag(NATIVE_SCHEMA)),
        _double(_ZERO_THRESHOLD, _ZERO_WIDTH),
        _number(_ZERO_COUNT, cells[0]),
        *(_message(_SPAN, span) for span in _spans([place for place, _ in filled])),
        _message(_DELTA, deltas),
    ]


def _spans(places: Sequence[int]) -> list[bytes]:
    """Return the runs of adjacent places: how far each begins behind the end of the last, and how long it is."""
    spans: list[list[int]] = []
    end = 0
    for place in places:
        if spans and place == end:
            spans[-1][1] += 1
        else:
            spans.append([place - end, 1])
        end = place + 1
    return [_number(_OFFSET, _zigzag(offset)) + _number(_LENGTH, length) for offset, length in spans]


def _exemplar(exemplar: Exemplar) -> bytes:
    labels, value, moment = exemplar
    seconds, rest = divmod(round(moment * _NANOS_PER_SECOND), _NANOS_PER_SECOND)
    message = _labels(_EXEMPLAR_LABEL, labels.items()) + _double(_EXEMPLAR_VALUE, value)
    message += _message(_EXEMPLAR_TIME, _number(_SECONDS, seconds) + _number(_NANOS, rest))
    return _message(_BUCKET_EXEMPLAR, message)


def _labels(place: int, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return name and value pairs, sorted by name."""
    return b"".join(
        [_message(place, _text(_LABEL_NAME, name) + _text(_LABEL_VALUE, value)) for name, value in sorted(pairs)]
    )


def _varint(value: int) -> bytes:
    """Return a number >= 0, seven bits a byte, the lowest first."""
    pieces = bytearray()
    while value > _SEVEN_BITS:
        pieces.append(value & _SEVEN_BITS | _MORE)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _zigzag(value: int) -> int:
    """Return a number of either sign as one that is >= 0: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def _number(place: int, value: int) -> bytes:
    return _varint(place << 3) + _varint(value)


def _double(place: int, value: float) -> bytes:
    return _varint(place << 3 | 1) + _DOUBLE.pack(value)


def _message(place: int, content: bytes) -> bytes:
    return _varint(place << 3 | 2) + _varint(len(content)) + content


def _text(place: int, text: str) -> bytes:
    return _message(place, text.encode())
