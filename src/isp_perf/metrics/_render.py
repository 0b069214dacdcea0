"""Writing a scrape: what has not changed since the last one is not written again.

The part of a line before its value is made once per series and kept as long as the family's keys stay the same list.
What was written is kept beside the values it was written from, a block of series at a time, and a column that is the
very one of the last scrape is not even looked at.

Writing happens in a thread beside an event loop, and a thread that computes gives the interpreter up only every 5 ms
(``sys.getswitchinterval``). So it pauses by itself several times a millisecond: no loop waits longer for a scrape.
"""

from collections.abc import Mapping, Sequence
from time import sleep
from typing import Any, Final, Protocol

from isp_perf.metrics._formats import Format, Rows, Syntax
from isp_perf.metrics._protobuf import Protobuf
from isp_perf.metrics._snapshot import Column, Exemplar, Key, Snapshot, Spec
from isp_perf.metrics._text import Text

__all__ = ["Renderer"]

_ROWS_AT_ONCE: Final = 2000  # less than half a millisecond
_BLOCK_ROWS: Final = 500
_HISTOGRAM_ROWS: Final = 60  # what one histogram takes, in rows of a counter
_FRAME_ROWS: Final = 20
_NONE: Final[Mapping[int, Exemplar]] = {}


class Style(Protocol):
    """How one syntax writes a family."""

    def header(self, spec: Spec, chosen: Format) -> bytes:
        """Return what stands before a family's series."""
        ...

    def frame(self, spec: Spec, keys: Sequence[Key], chosen: Format) -> Any:
        """Return what of some series does not change: everything but the values."""
        ...

    def fill(self, spec: Spec, frame: Any, rows: Rows) -> bytes:
        """Return some series with their values."""
        ...

    def family(self, header: bytes, blocks: Sequence[bytes]) -> bytes:
        """Return a whole family."""
        ...


_STYLES: Final[Mapping[Syntax, Style]] = {
    "text": Text(openmetrics=False),
    "openmetrics": Text(openmetrics=True),
    "protobuf": Protobuf(),
}


class _Block:
    """Some series of a family, as they were written last."""

    __slots__ = ("end", "frame", "seen", "start", "written")

    def __init__(self, start: int, end: int, frame: Any) -> None:
        self.start = start
        self.end = end
        self.frame = frame
        self.seen: Rows | None = None
        self.written = b""


class _Kept:
    """A family as it was written last."""

    __slots__ = ("blocks", "column", "header", "keys", "spec", "style", "written")

    def __init__(self, column: Column, chosen: Format) -> None:
        self.spec = column.spec
        self.keys = column.keys
        self.style = _STYLES[chosen.syntax]
        self.header = self.style.header(column.spec, chosen)
        self.blocks: list[_Block] = []
        self.column: Column | None = None
        self.written = b""


class Renderer:
    """Writes snapshots; keeps what it wrote between scrapes. One per reader thread or under a lock."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Format], _Kept] = {}
        self._rows = 0

    def render(self, snapshot: Snapshot, chosen: Format, names: frozenset[str] = frozenset()) -> bytes:
        """Return the body of a scrape.

        Args:
            snapshot: what to write.
            chosen: the format.
            names: if not empty, only these sample or family names.
        """
        pieces = [
            self._family(column, chosen, snapshot.exemplars.get(column.spec.name, {}))
            for column in snapshot.columns.values()
            if not names or _asked_for(column.spec, names)
        ]
        if chosen.syntax == "openmetrics":
            pieces.append(b"# EOF\n")
        return b"".join(pieces)

    def _family(self, column: Column, chosen: Format, exemplars: Mapping[Key, Mapping[int, Exemplar]]) -> bytes:
        place = (column.spec.name, chosen)
        kept = self._kept.get(place)
        if kept is None or kept.keys is not column.keys:
            kept = self._kept[place] = self._begun(column, chosen)
        elif kept.column is column and not exemplars:
            return kept.written
        for block in kept.blocks:
            self._update(kept, block, _rows(column, block, exemplars))
        kept.written = kept.style.family(kept.header, [block.written for block in kept.blocks])
        kept.column = None if exemplars else column
        return kept.written

    def _begun(self, column: Column, chosen: Format) -> _Kept:
        """Return the parts of a family that stay as long as its keys do."""
        kept = _Kept(column, chosen)
        spec, keys = column.spec, column.keys
        rows = 1 if spec.kind == "histogram" else _BLOCK_ROWS
        for start in range(0, len(keys), rows):
            some = keys[start : start + rows]
            self._pause(_FRAME_ROWS * len(some))
            kept.blocks.append(_Block(start, start + rows, kept.style.frame(spec, some, chosen)))
        return kept

    def _update(self, kept: _Kept, block: _Block, rows: Rows) -> None:
        """Write a block anew if its values have changed."""
        if block.seen != rows:
            self._pause(len(rows.values) * (_HISTOGRAM_ROWS if rows.examples else 1))
            block.written = kept.style.fill(kept.spec, block.frame, rows)
            block.seen = rows

    def _pause(self, rows: int) -> None:
        """Let other threads run before so many rows are written, if enough were written since the last time."""
        self._rows += rows
        if self._rows > _ROWS_AT_ONCE:
            self._rows = rows
            sleep(0)


def _rows(column: Column, block: _Block, exemplars: Mapping[Key, Mapping[int, Exemplar]]) -> Rows:
    values = column.values[block.start : block.end]
    if column.spec.kind != "histogram":
        return Rows(values)
    return Rows(values, [exemplars.get(key, _NONE) for key in column.keys[block.start : block.end]])


def _asked_for(spec: Spec, names: frozenset[str]) -> bool:
    suffixes = ("_bucket", "_count", "_sum") if spec.kind == "histogram" else ()
    return not names.isdisjoint({spec.name, spec.base, *(spec.name + suffix for suffix in suffixes)})
