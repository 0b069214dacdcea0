"""What one process has counted at one moment, and how the snapshots of several processes become one.

A snapshot holds columns, not objects: per family one list of keys (label values) and one list of values, in the same
order. Workers of one program mostly hold the same keys, so merging is one pass of ``map(sum, zip(...))`` per family;
where the keys differ they are matched by a dictionary. Counters and histogram cells are integers and their sums are
exact, so the order of merging cannot change a total.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter, sub
from typing import Any, Literal, TypeAlias

__all__ = [
    "Column",
    "Exemplar",
    "Key",
    "Kind",
    "Merge",
    "Merger",
    "Readings",
    "Snapshot",
    "Spec",
    "Steady",
    "labelled",
    "merge_snapshots",
    "without",
]

Key: TypeAlias = tuple[str, ...]
Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Merge: TypeAlias = Literal["sum", "min", "max", "mean", "latest"]
# labels, observed value in the family's unit, unix time in seconds
Exemplar: TypeAlias = tuple[Mapping[str, str], float, float]
# family name -> key -> cell -> exemplar
Exemplars: TypeAlias = dict[str, dict[Key, dict[int, Exemplar]]]

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric family: everything about it but its series.

    Args:
        name: full name; a counter's ends in ``_total``.
        kind: counter, gauge or histogram.
        help: one sentence for people.
        labels: label names in the order in which keys hold their values.
        merge: how the gauge of several workers becomes one; counters and histograms are always summed.
        bounds: inclusive upper bounds of the cells in whole units, or ``None`` for the log-linear layout.
        whole: histogram values are whole numbers (bytes, rows); ``False``: seconds, kept as whole nanoseconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"
    bounds: tuple[int, ...] | None = None
    whole: bool = False

    @property
    def scale(self) -> int:
        """Units per one of the family's base unit: 1e9 where seconds are kept as nanoseconds, 1 for whole numbers."""
        return 1 if self.whole else _NANOSECONDS

    @property
    def base(self) -> str:
        """The name without ``_total``, as OpenMetrics names a counter's family."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name


@dataclass(slots=True)
class Column:
    """The series of one family: keys, and beside them values.

    Attributes:
        spec: the family.
        keys: label values per series.
        values: an int or float per series; for histograms a list of the cells followed by the sum, in whole units.
    """

    spec: Spec
    keys: list[Key]
    values: list[Any]

    def by_key(self) -> dict[Key, Any]:
        """Return the values by key."""
        return dict(zip(self.keys, self.values, strict=True))

    def total(self) -> Any:
        """Return the sum over all series of a counter, 0 without series."""
        return sum(self.values)

    def grouped(self, label: str) -> dict[str, Any]:
        """Return a counter's sums per value of ``label``."""
        place = self.spec.labels.index(label)
        sums: dict[str, Any] = {}
        for key, value in zip(self.keys, self.values, strict=True):
            sums[key[place]] = sums.get(key[place], 0) + value
        return sums


@dataclass(slots=True)
class Snapshot:
    """All families at one moment, with the moment (unix nanoseconds) and the exemplars."""

    columns: dict[str, Column]
    time_ns: int = 0
    exemplars: Exemplars = field(default_factory=dict[str, dict[Key, dict[int, Exemplar]]])

    def get(self, name: str) -> Column:
        """Return the family ``name``; an empty counter if nothing by that name was counted."""
        return self.columns.get(name) or Column(Spec(name, "counter", ""), [], [])


class Readings:
    """Collects what adapters read from the features' records; equal keys of one family add up."""

    __slots__ = ("_data", "_specs")

    def __init__(self) -> None:
        self._specs: dict[str, Spec] = {}
        self._data: dict[str, dict[Key, Any]] = {}

    def declare(self, specs: Iterable[Spec]) -> None:
        """Make families appear even when they have no series."""
        for spec in specs:
            self._series(spec)

    def add(self, spec: Spec, value: float, *key: str) -> None:
        """Add a counter or gauge reading; gauges of equal key join by the family's rule."""
        series = self._series(spec)
        old = series.get(key)
        series[key] = value if old is None else _joined(spec, [old, value])

    def add_histogram(self, spec: Spec, cells: Sequence[int], total: int, *key: str) -> None:
        """Add a histogram reading: a copy of its cells is taken once, so that all figures derived from it agree."""
        copy = [*cells, total]
        series = self._series(spec)
        old = series.get(key)
        series[key] = copy if old is None else _joined(spec, [old, copy])

    def include(self, snapshot: Snapshot) -> None:
        """Add everything in ``snapshot``."""
        for column in snapshot.columns.values():
            series = self._series(column.spec)
            for key, value in zip(column.keys, column.values, strict=True):
                old = series.get(key)
                series[key] = value if old is None else _joined(column.spec, [old, value])

    def columns(self) -> dict[str, Column]:
        """Return what was collected, sorted by key."""
        columns: dict[str, Column] = {}
        for name, series in self._data.items():
            rows = sorted(series.items(), key=itemgetter(0))
            columns[name] = Column(self._specs[name], [key for key, _ in rows], [value for _, value in rows])
        return columns

    def _series(self, spec: Spec) -> dict[Key, Any]:
        self._specs[spec.name] = spec
        return self._data.setdefault(spec.name, {})


class Steady:
    """Gives the same column again as long as nothing in it has changed, so that others can tell by identity."""

    def __init__(self) -> None:
        self._last: dict[str, Column] = {}

    def columns(self, new: dict[str, Column]) -> dict[str, Column]:
        """Return ``new`` with every column, or at least its keys, replaced by the last equal one."""
        self._last = {name: _as_before(column, self._last.get(name)) for name, column in new.items()}
        return self._last


def _as_before(new: Column, last: Column | None) -> Column:
    if last is None or new.spec != last.spec or not _has_keys(last.keys)(new):
        return new
    return last if new.values == last.values else Column(last.spec, last.keys, new.values)


class Merger:
    """Merges again and again, and does nothing for a family whose columns are the very ones of the last time."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[list[int], list[Column], Column]] = {}

    def __call__(self, parts: Sequence[Snapshot]) -> Snapshot:
        """Return the totals; see ``merge_snapshots``."""
        return _merged(parts, self._column)

    def _column(self, columns: list[Column]) -> Column:
        spec = columns[0].spec
        identities = list(map(id, columns))  # of columns that are kept here, so no other has the same
        if spec.merge != "latest":
            identities.sort()  # whose figures are newer changes all the time, and here it makes no difference
        last = self._last.get(spec.name)
        if last is not None and last[0] == identities:
            return last[2]
        merged = _merge_columns(columns)
        self._last[spec.name] = identities, columns, merged
        return merged


def merge_snapshots(parts: Sequence[Snapshot]) -> Snapshot:
    """Return the totals of several processes.

    A gauge reading of NaN means "not there": it never counts. Families that disagree about kind, labels or bounds
    (two versions of a program during a rolling restart) are not added up; the newest definition wins.
    """
    return _merged(parts, _merge_columns)


def _merged(parts: Sequence[Snapshot], merge: Callable[[list[Column]], Column]) -> Snapshot:
    if len(parts) == 1:
        return parts[0]
    ordered = sorted(parts, key=lambda part: part.time_ns)
    gathered: dict[str, list[Column]] = {}
    for part in ordered:
        for name, column in part.columns.items():
            gathered.setdefault(name, []).append(column)
    columns = {name: merge(same) for name, same in gathered.items()}
    newest = ordered[-1].time_ns if ordered else 0
    return Snapshot(columns, newest, _merge_exemplars(ordered))


def without(snapshot: Snapshot, baseline: Snapshot) -> Snapshot:
    """Return what was counted since ``baseline``; gauges are as they are now."""
    columns = {
        name: _since(column, baseline.columns[name]) if name in baseline.columns else column
        for name, column in snapshot.columns.items()
    }
    return Snapshot(columns, snapshot.time_ns, snapshot.exemplars)


def labelled(snapshot: Snapshot, label: str, value: str) -> Snapshot:
    """Return the snapshot with one more label on every series."""
    columns = {
        name: Column(
            replace(column.spec, labels=(*column.spec.labels, label)),
            [(*key, value) for key in column.keys],
            column.values,
        )
        for name, column in snapshot.columns.items()
        if label not in column.spec.labels
    }
    return Snapshot(snapshot.columns | columns, snapshot.time_ns)


def _since(column: Column, before: Column) -> Column:
    if column.spec.kind == "gauge":
        return column
    old = before.by_key()
    less = _less_cells if column.spec.kind == "histogram" else sub
    pairs = [(value, old.get(key)) for key, value in zip(column.keys, column.values, strict=True)]
    return Column(column.spec, column.keys, [value if was is None else less(value, was) for value, was in pairs])


def _less_cells(value: list[int], before: list[int]) -> list[int]:
    return list(map(sub, value, before))


def _shape(spec: Spec) -> tuple[object, ...]:
    return spec.kind, spec.labels, spec.bounds, spec.whole


def _merge_columns(columns: list[Column]) -> Column:
    spec = columns[-1].spec
    shape = _shape(spec)
    alike = [column for column in columns if column.keys and _shape(column.spec) == shape]
    if not alike:
        return columns[-1]
    first = alike[0].keys
    if all(map(_has_keys(first), alike)):
        return Column(spec, first, _rows(spec, [column.values for column in alike]))
    return _match(spec, alike)


def _has_keys(keys: list[Key]) -> Callable[[Column], bool]:
    return lambda column: column.keys is keys or column.keys == keys


def _match(spec: Spec, columns: list[Column]) -> Column:
    """Return the merged column of columns with different keys."""
    rows: dict[Key, list[Any]] = {}
    for column in columns:
        for key, value in zip(column.keys, column.values, strict=True):
            rows.setdefault(key, []).append(value)
    keys = sorted(rows)
    return Column(spec, keys, [_joined(spec, rows[key]) for key in keys])


def _rows(spec: Spec, matrix: list[list[Any]]) -> list[Any]:
    if spec.kind == "counter":
        return list(map(sum, zip(*matrix, strict=True)))
    return [_joined(spec, list(row)) for row in zip(*matrix, strict=True)]


def _joined(spec: Spec, values: list[Any]) -> Any:
    """Return one value for one series of several processes, given in order of time."""
    if spec.kind == "histogram":
        return list(map(sum, zip(*values, strict=True)))
    if spec.kind == "counter":
        return sum(values)
    return _join_gauges(spec.merge, [value for value in values if not math.isnan(value)])


def _join_gauges(rule: Merge, present: list[Any]) -> Any:
    return _RULES[rule](present) if present else math.nan


def _mean(values: list[Any]) -> float:
    return math.fsum(values) / len(values)


_RULES: Mapping[Merge, Callable[[list[Any]], Any]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "mean": _mean,
    "latest": itemgetter(-1),
}


def _merge_exemplars(ordered: Sequence[Snapshot]) -> Exemplars:
    """Return, per cell, the exemplar seen last."""
    merged: Exemplars = {}
    for part in ordered:
        for name, series in part.exemplars.items():
            for key, cells in series.items():
                mine = merged.setdefault(name, {}).setdefault(key, {})
                mine.update({cell: new for cell, new in cells.items() if cell not in mine or mine[cell][2] <= new[2]})
    return merged
