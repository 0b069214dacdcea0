"""One worker's figures in one shared file: written without a lock, read without disturbing the writer.

::

    header   magic 8 | epoch 16 | generation 8 | schema length 8 | slot size 8 | schema digest 16
    schema   JSON: the families, their keys, and how their values are stored
    slot 0   started 8 | unix time 8 | notes length 8 | int64 values | float64 values | notes (JSON: exemplars)
    slot 1   the same

The writer fills the slot that is not current and then moves the generation on, so a writer killed at any instruction
leaves a whole slot behind. A reader takes the slot of the generation it saw and keeps the copy only if the generation
has not moved. When the schema changes, a new file takes the old one's name in one rename. The writer holds a
``flock`` on its file for as long as it lives; the kernel drops it with the process, whatever ended that.
"""

import fcntl
import json
import os
import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from isp_perf._core.histogram import CELLS
from isp_perf.metrics._snapshot import Column, Exemplars, Key, Snapshot, Spec

__all__ = ["Encoder", "Layout", "Reading", "SegmentReader", "SegmentWriter", "decode", "is_alive", "read_schema"]

_MAGIC: Final = b"ISPMTRC1"
_HEADER: Final = struct.Struct("<8s16sQQQ16s")
_GENERATION_AT: Final = 24
_SLOT: Final = struct.Struct("<QQQ")
_NOTES_BYTES: Final = 8192  # room for exemplars; what does not fit is left out
_ATTEMPTS: Final = 50
_LAYOUTS_KEPT: Final = 64
_WORD: Final = 8


class Layout(NamedTuple):
    """What a schema says: per family its definition, keys, type code and numbers per series."""

    families: tuple[tuple[Spec, list[Key], str, int], ...]
    integers: int
    floats: int


class Reading(NamedTuple):
    """What one file said: whose figures, since when they were being read (monotonic ns), and the figures.

    ``layout`` and ``values`` are what they were read from.
    """

    epoch: str
    started: int
    snapshot: Snapshot
    layout: Layout
    values: bytes


class _Packed(NamedTuple):
    """A column's values as bytes, and their type code."""

    column: Column
    code: str
    values: bytes


class Encoder:
    """Turns snapshots into bytes; the schema is written anew only when families or keys have changed."""

    def __init__(self) -> None:
        self._kept: list[tuple[Spec, list[Key], str]] = []
        self._packed: dict[str, _Packed] = {}
        self.schema = _dump([])

    def encode(self, snapshot: Snapshot) -> bytes:
        """Return the values of ``snapshot``; ``schema`` then says what they are.

        A column that is the very one of the last time is not packed again.
        """
        self._packed = {name: self._pack(column) for name, column in snapshot.columns.items()}
        packed = self._packed.values()
        shape = [(one.column.spec, one.column.keys, one.code) for one in packed]
        if shape != self._kept:
            self._kept = shape
            self.schema = _dump([[*_definition(spec), code, keys] for spec, keys, code in shape])
        return b"".join([one.values for code in "qd" for one in packed if one.code == code])

    def layout(self) -> Layout:
        """Return the layout of what was encoded last, with the very lists of keys it came with."""
        families = [(spec, keys, code, _width(spec)) for spec, keys, code in self._kept]
        return _measured(families)

    def _pack(self, column: Column) -> _Packed:
        last = self._packed.get(column.spec.name)
        return last if last is not None and last.column is column else _Packed(column, *_numbers(column))


def _numbers(column: Column) -> tuple[str, bytes]:
    """Return a column's values as whole numbers, or as floats for gauges and for counters that need them."""
    values = list(chain.from_iterable(column.values)) if column.spec.kind == "histogram" else column.values
    if column.spec.kind != "gauge":
        try:
            return "q", struct.pack(f"={len(values)}q", *values)  # half the time of an array
        except struct.error:  # a counter that was given fractions, or outgrew 64 bits
            pass
    return "d", struct.pack(f"={len(values)}d", *values)


def _width(spec: Spec) -> int:
    """Return how many numbers one series takes."""
    if spec.kind != "histogram":
        return 1
    return (CELLS if spec.bounds is None else len(spec.bounds) + 1) + 1


def _measured(families: Iterable[tuple[Spec, list[Key], str, int]]) -> Layout:
    listed = tuple(families)
    sizes = {"q": 0, "d": 0}
    for _, keys, code, width in listed:
        count = width * len(keys)
        sizes[code] += count
    return Layout(listed, sizes["q"], sizes["d"])


def _definition(spec: Spec) -> list[Any]:
    return [spec.name, spec.kind, spec.help, spec.labels, spec.merge, spec.bounds, spec.whole]


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _notes(snapshot: Snapshot) -> bytes:
    """Return as many exemplars as there is room for, the newest first."""
    notes = sorted(
        (
            [name, key, cell, dict(labels), value, moment]
            for name, series in snapshot.exemplars.items()
            for key, cells in series.items()
            for cell, (labels, value, moment) in cells.items()
        ),
        key=_moment,
        reverse=True,
    )
    while notes:
        written = _dump(notes)
        if len(written) <= _NOTES_BYTES:
            return written
        notes = notes[: len(notes) // 2]
    return b""


def _moment(note: list[Any]) -> float:
    return float(note[5])


def read_schema(schema: bytes) -> Layout:
    """Return the layout that a schema describes."""
    families: list[tuple[Spec, list[Key], str, int]] = []
    for name, kind, text, labels, merge, bounds, whole, code, keys in json.loads(schema):
        spec = Spec(name, kind, text, tuple(labels), merge, None if bounds is None else tuple(bounds), whole)
        families.append((spec, [tuple(key) for key in keys], code, _width(spec)))
    return _measured(families)


def decode(
    layout: Layout, values: bytes, notes: bytes = b"", *, time_ns: int = 0, before: Reading | None = None
) -> Snapshot:
    """Return the snapshot that was encoded; a column whose bytes are those of ``before`` is the very one of then."""
    known = before if before is not None and before.layout is layout else None
    places = {"q": 0, "d": layout.integers * _WORD}
    columns: dict[str, Column] = {}
    for spec, keys, code, width in layout.families:
        start = places[code]
        end = places[code] = start + width * len(keys) * _WORD
        part = values[start:end]
        if known is not None and part == known.values[start:end]:
            columns[spec.name] = known.snapshot.columns[spec.name]
            continue
        row = list(struct.unpack(f"={len(part) // _WORD}{code}", part))
        columns[spec.name] = Column(spec, keys, row if spec.kind != "histogram" else list(_chunks(row, width)))
    return Snapshot(columns, time_ns, _exemplars(notes))


def _chunks(row: list[Any], width: int) -> Iterator[list[Any]]:
    return (row[start : start + width] for start in range(0, len(row), width))


def _exemplars(notes: bytes) -> Exemplars:
    found: Exemplars = {}
    for name, key, cell, labels, value, moment in json.loads(notes) if notes else ():
        found.setdefault(name, {}).setdefault(tuple(key), {})[cell] = (labels, value, moment)
    return found


class SegmentWriter:
    """Writes one process's snapshots.

    Args:
        path: the file; created at the first ``publish``.
        epoch: 32 hex digits that name this life of this process.

    Raises:
        OSError: from ``publish``, when the file system refuses.
    """

    def __init__(self, path: Path, epoch: str) -> None:
        self.path = path
        self.epoch = epoch
        self.encoder = Encoder()
        self._fd = -1
        self._schema = b""
        self._generation = 0
        self._slots = 0
        self._slot_size = 0

    def publish(self, snapshot: Snapshot, started: int) -> None:
        """Write ``snapshot``, whose reading began at ``started`` (monotonic ns)."""
        values = self.encoder.encode(snapshot)
        notes = _notes(snapshot)
        slot = _SLOT.pack(started, snapshot.time_ns, len(notes)) + values + notes
        schema = self.encoder.schema
        if self._fd < 0 or schema is not self._schema:
            self._replace(schema, slot, room=_SLOT.size + len(values) + _NOTES_BYTES)
            return
        following = self._generation + 1
        os.pwrite(self._fd, slot, self._slots + (following & 1) * self._slot_size)
        os.pwrite(self._fd, following.to_bytes(_WORD, "little"), _GENERATION_AT)
        self._generation = following

    def missing(self) -> bool:
        """Return whether the file's name no longer leads to it, as after a cleaner of temporary folders."""
        try:
            return self._fd >= 0 and self.path.stat().st_ino != os.fstat(self._fd).st_ino
        except OSError:
            return True

    def close(self) -> None:
        """Let go of the file; from now on everybody sees that its writer is gone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _replace(self, schema: bytes, slot: bytes, *, room: int) -> None:
        """Put a new file with a new schema in the place of the old one, locked before anybody can see it."""
        aside = self.path.with_suffix(".new")
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            slots = -(-(_HEADER.size + len(schema)) // _WORD) * _WORD
            digest = blake2b(schema, digest_size=16).digest()
            header = _HEADER.pack(_MAGIC, bytes.fromhex(self.epoch), 0, len(schema), room, digest)
            os.pwrite(fd, header + schema, 0)
            os.pwrite(fd, slot, slots)
            os.ftruncate(fd, slots + 2 * room)
            aside.rename(self.path)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd, self._schema, self._generation, self._slots, self._slot_size = fd, schema, 0, slots, room


class SegmentReader:
    """Reads files of workers; keeps the layouts it has met, so that workers with equal schemas share their keys."""

    def __init__(self) -> None:
        self._layouts: dict[bytes, Layout] = {}

    def adopt(self, schema: bytes, layout: Layout) -> None:
        """Use ``layout`` for every file with this schema."""
        if len(self._layouts) >= _LAYOUTS_KEPT:
            self._layouts.clear()
        self._layouts[blake2b(schema, digest_size=16).digest()] = layout

    def read(self, fd: int, before: Reading | None = None) -> Reading | None:
        """Return what the open file says, or ``None`` if it is none of this version or its writer was too quick.

        Args:
            fd: the file.
            before: what it said the last time; what has not changed is taken from there.
        """
        for _ in range(_ATTEMPTS):
            header = os.pread(fd, _HEADER.size, 0)
            if len(header) < _HEADER.size or not header.startswith(_MAGIC):
                return None
            _, epoch, generation, length, size, digest = _HEADER.unpack(header)
            slots = -(-(_HEADER.size + length) // _WORD) * _WORD
            raw = os.pread(fd, size, slots + (generation & 1) * size)
            if os.pread(fd, _WORD, _GENERATION_AT) == header[_GENERATION_AT : _GENERATION_AT + _WORD]:
                layout = self._layout(fd, digest, length)
                return _reading(epoch.hex(), layout, raw, before=before)
        return None

    def started(self, fd: int) -> int:
        """Return when the reading of the current figures began (monotonic ns), cheaply."""
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return 0
        _, _, generation, length, size, _ = _HEADER.unpack(header)
        slots = -(-(_HEADER.size + length) // _WORD) * _WORD
        return int.from_bytes(os.pread(fd, _WORD, slots + (generation & 1) * size), "little")

    def _layout(self, fd: int, digest: bytes, length: int) -> Layout:
        known = self._layouts.get(digest)
        if known is None:
            schema = os.pread(fd, length, _HEADER.size)
            known = read_schema(schema)
            self.adopt(schema, known)
        return known


def _reading(epoch: str, layout: Layout, raw: bytes, *, before: Reading | None) -> Reading:
    started, time_ns, notes = _SLOT.unpack_from(raw)
    end = _SLOT.size + (layout.integers + layout.floats) * _WORD
    values = raw[_SLOT.size : end]
    snapshot = decode(layout, values, raw[end : end + notes], time_ns=time_ns, before=before)
    return Reading(epoch, started, snapshot, layout, values)


def is_alive(fd: int) -> bool:
    """Return whether the writer of the open file still holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
