"""How rows, handed over as columns, become records: level by level, each made by one ``map`` over its columns."""

import gc
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from threading import Lock
from typing import Any, Protocol

from isp_perf.queries._keys import Keys
from isp_perf.queries._statements import Columns, Prepared, Run

_append: Any = vars(list)["append"]

__all__ = ["Joined", "Level", "Linked", "Part", "Plain", "collector_paused"]


class _Pause:
    """How many ask for a pause of the cyclic garbage collector, and whether it ran before the first of them did."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.depth = 0
        self.ran = False

    def enter(self) -> None:
        with self.lock:
            if not self.depth:
                self.ran = gc.isenabled()
                gc.disable()
            self.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            if not self.depth and self.ran:
                gc.enable()


_PAUSE = _Pause()


@contextmanager
def collector_paused() -> Generator[None]:
    """Keep the cyclic collector from searching records that are just being made; one the user disabled stays so."""
    _PAUSE.enter()
    try:
        yield
    finally:
        _PAUSE.leave()


class Part(Protocol):
    """Where the values of one field come from."""

    def fetch(self, columns: Columns, run: Run, /) -> Any:
        """Ask the database for what the field needs beside the rows of ``columns``, and return it."""
        ...

    def values(self, columns: Columns, fetched: Any, /) -> Iterable[Any]:
        """Return the field's value for each row of ``columns``; no more is asked of the database."""
        ...


class Level:
    """Records of one class, made from some columns of a statement.

    Args:
        make: makes one of the values of its fields.
        parts: where these come from, in order.
    """

    __slots__ = ("make", "parts")

    make: Callable[..., Any]
    parts: list[Part]

    def __init__(self, make: Callable[..., Any], parts: list[Part]) -> None:
        self.make = make
        self.parts = parts

    def fetch(self, columns: Columns, run: Run) -> list[Any]:
        """Ask for everything that hangs below these rows, so that making records is work for one processor only."""
        return [part.fetch(columns, run) for part in self.parts] if columns else []

    def records(self, columns: Columns, fetched: list[Any]) -> Iterator[Any]:
        """Return one record for each row."""
        if not columns:
            return iter(())
        return map(self.make, *(part.values(columns, below) for part, below in zip(self.parts, fetched, strict=True)))


class Plain:
    """A column."""

    __slots__ = ("_index",)

    def __init__(self, index: int) -> None:
        self._index = index

    def fetch(self, _columns: Columns, _run: Run) -> None:
        """Ask for nothing: the column is there."""

    def values(self, columns: Columns, _fetched: None) -> Iterable[Any]:
        """Return the column."""
        return columns[self._index]


class Joined:
    """A record, or none, from columns of the same rows.

    Args:
        level: what is made of them.
        presence: a column that is NULL where there is none.
    """

    __slots__ = ("_level", "_presence")

    def __init__(self, level: Level, presence: int) -> None:
        self._level = level
        self._presence = presence

    def fetch(self, columns: Columns, run: Run) -> tuple[list[bool] | None, Columns, list[Any]]:
        """Ask for what hangs below, of those rows that have a record."""
        keys = columns[self._presence]
        there = [key is not None for key in keys] if None in keys else None
        if there is not None:
            columns = [tuple(compress(column, there)) for column in columns] if any(there) else []
        return there, columns, self._level.fetch(columns, run)

    def values(self, _columns: Columns, fetched: tuple[list[bool] | None, Columns, list[Any]]) -> Iterable[Any]:
        """Return one record for each row that has one, else ``None``."""
        there, columns, below = fetched
        found = self._level.records(columns, below)
        return found if there is None else [next(found) if present else None for present in there]


class Linked:
    """Records of a statement of its own, which is asked with the keys of these rows.

    Args:
        statement: the statement; its first columns hold the key of the row that a row of its belongs to.
        keys: how the keys are put into it.
        level: what is made of its rows.

    Attributes:
        local: the columns that hold the key.
        many: a row may have several records.
        collect: what the list of them is turned into; ``None``: it stays a list.
        once: columns by which repeats among the records of one row are known; none if there are none.
    """

    __slots__ = ("_keys", "_level", "_statement", "collect", "local", "many", "once")

    local: list[int]
    many: bool
    collect: Callable[[list[Any]], Any] | None
    once: list[int]

    def __init__(self, statement: Prepared, keys: Keys, level: Level) -> None:
        self._statement = statement
        self._keys = keys
        self._level = level
        self.local = []
        self.many = False
        self.collect = None
        self.once = []

    def fetch(self, columns: Columns, run: Run) -> list[tuple[Columns, list[Any]]]:
        """Ask with the keys of all rows, as many at once as the database takes."""
        asked = _asked_keys(_key_of([columns[index] for index in self.local]))
        fetched: list[tuple[Columns, list[Any]]] = []
        for start in range(0, len(asked), self._keys.chunk):
            values = {self._keys.name: self._keys.encode(asked[start : start + self._keys.chunk])}
            found = self._statement.columns(run, values)
            if self.once and found:
                found = _without_repeats(found, [*range(len(self.local)), *self.once])
            fetched.append((found, self._level.fetch(found, run)))
        return fetched

    def values(self, columns: Columns, fetched: list[tuple[Columns, list[Any]]]) -> Iterable[Any]:
        """Return for each row its records, or its one record or ``None``."""
        groups: defaultdict[Any, list[Any]] = defaultdict(list)
        for found, below in fetched:
            if found:
                lists = map(groups.__getitem__, _key_of(found[: len(self.local)]))
                appending: Iterator[Any] = map(_append, lists, self._level.records(found, below))
                deque(appending, maxlen=0)
        keys = _key_of([columns[index] for index in self.local])
        if self.many:
            lists = map(groups.__getitem__, keys)
            return lists if self.collect is None else map(self.collect, lists)
        firsts = {key: records[0] for key, records in groups.items()}
        return map(firsts.get, keys)


def _key_of(columns: Columns) -> Sequence[Any]:
    """Return the keys that some columns hold: values, or tuples if there are several columns."""
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _asked_keys(keys: Sequence[Any]) -> list[Any]:
    """Return each key once, without those that are NULL as a whole or in part."""
    asked = dict.fromkeys(keys)
    asked.pop(None, None)
    return [key for key in asked if not (isinstance(key, tuple) and None in key)]


def _without_repeats(columns: Columns, by: Sequence[int]) -> Columns:
    """Return the columns without rows that repeat an earlier one in the columns ``by``."""
    seen: set[Any] = set()
    first: list[bool] = []
    for key in zip(*(columns[index] for index in by), strict=True):
        first.append(key not in seen)
        seen.add(key)
    return [tuple(compress(column, first)) for column in columns]
