"""Bulk statements by executemany, which is the fastest way of SQLite and a right way everywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import not_
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update
from sqlalchemy.dialects import sqlite

from isp_perf.queries._bulk_rows import Group, Layout, Target
from isp_perf.queries._compat_rows import many_call, positions
from isp_perf.queries._keys import asked_for

__all__ = ["PART", "Generic", "Outcome", "found_rows", "set_of"]

PART = {"isp_part": True}
_NAME = "isp_v_"
_FEW = 20  # rows up to which SQLAlchemy's own cache of compiled statements beats compiling one here


@dataclass(slots=True)
class Outcome:
    """What statements did.

    Args:
        inserted: rows added.
        updated: rows changed.
        deleted: rows removed.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def add(self, other: "Outcome") -> None:
        """Count what other statements did as well."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.deleted += other.deleted


class Generic:
    """Writes groups of rows with one statement per row, sent as one batch.

    Args:
        connection: the session's connection.
        target: the table.
        key: attributes by which rows are found.
    """

    def __init__(self, connection: Connection, target: Target, key: Sequence[str]) -> None:
        self.connection = connection
        self.target = target
        self.key = key

    def close(self) -> None:
        """Leave nothing behind."""

    def insert(self, group: Group) -> Outcome:
        """Add the rows of a group."""
        if not group.layout.defaults and self._insert_as_given(group):
            return Outcome(inserted=len(group))
        group.fill(group.layout.defaults)
        statement = insert(self.target.table).values(self._values(group.columns) | self._sql(group.layout.expressions))
        self._execute(statement, group.columns)
        return Outcome(inserted=len(group))

    def _insert_as_given(self, group: Group) -> bool:
        """Insert rows without taking them apart, where every parameter is one of their values; whether they were."""
        dialect, names = self.connection.dialect, group.layout.names
        if dialect.name != "sqlite" or len(group) <= _FEW:
            return False
        statement = insert(self.target.table).values(self._values(names) | self._sql(group.layout.expressions))
        compiled = statement.compile(dialect=dialect)
        order, works = positions(compiled)
        if set(order) != {_NAME + name for name in names}:
            return False
        converted = {name.removeprefix(_NAME): work for name, work in works.items()}
        rows = group.tuples([name.removeprefix(_NAME) for name in order], converted)
        self.connection.exec_driver_sql(str(compiled), list(rows), PART)
        return True

    def keyed(self, group: Group) -> bool:
        """Whether the keys of rows that are added are known, or made known, before they are."""
        return set(self.target.primary_key) <= set(group.layout.names)

    def update(self, group: Group) -> Outcome:
        """Change the rows of a group, found by their keys."""
        group.fill(group.layout.updates)
        statement = update(self.target.table).where(self._found_by_key())
        values = self._values(name for name in group.columns if name not in self.key)
        statement = statement.values(values | self._sql(group.layout.update_expressions))
        return Outcome(updated=self._execute(statement, group.columns))

    def delete(self, group: Group) -> Outcome:
        """Remove the rows whose keys a group holds."""
        statement = delete(self.target.table).where(self._found_by_key())
        return Outcome(deleted=self._execute(statement, {name: group.columns[name] for name in self.key}))

    def upsert(self, group: Group) -> Outcome:
        """Add the rows of a group, or change those whose keys are there; no key comes twice in the group."""
        keys = group.keys(self.key)
        there = found_rows(self.connection, self.target, self.key, wanted=keys)
        outcome = Outcome(len(group) - len(there), len(there) if group.layout.changes(self.key) else 0)
        if self.connection.dialect.name == "sqlite":
            self._upsert_in_place(group)
            return outcome
        new = [key not in there for key in keys]
        if any(new):
            self.insert(group.only(list(compress(count(), new))))
        if outcome.updated:
            self.update(group.only(list(compress(count(), map(not_, new)))))
        return outcome

    def _upsert_in_place(self, group: Group) -> None:
        group.fill(group.layout.defaults)
        statement: Any = sqlite.insert(self.target.table)
        statement = statement.values(self._values(group.columns) | self._sql(group.layout.expressions))
        changes = set_of(group.layout, self.key, statement.excluded)
        if changes:
            where = [self.target.columns[name] for name in self.key]
            statement = statement.on_conflict_do_update(index_elements=where, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing()
        self._execute(statement, group.columns)

    def _values(self, names: Any) -> dict[str, Any]:
        columns = self.target.columns
        return {columns[name].name: bindparam(_NAME + name, type_=columns[name].type) for name in names}

    def _sql(self, expressions: Mapping[str, Any]) -> dict[str, Any]:
        return {self.target.columns[name].name: expression for name, expression in expressions.items()}

    def _found_by_key(self) -> Any:
        columns = self.target.columns
        return and_(*(columns[name] == bindparam(_NAME + name, type_=columns[name].type) for name in self.key))

    def _execute(self, statement: Any, columns: Mapping[str, Sequence[Any]]) -> int:
        """Execute a statement once for each row and return how many rows of the table it met."""
        bound: dict[str, Sequence[Any]] = {_NAME + name: values for name, values in columns.items()}
        size = len(next(iter(columns.values())))
        if size > _FEW and self.connection.dialect.name == "sqlite":
            text, parameters = many_call(statement.compile(dialect=self.connection.dialect), bound)
            return self.connection.exec_driver_sql(text, parameters, PART).rowcount
        rows = [dict(zip(bound, row, strict=True)) for row in zip(*bound.values(), strict=True)]
        met = self.connection.execute(statement, rows, execution_options=PART).rowcount
        return met if met >= 0 else size


def set_of(layout: Layout, key: Sequence[str], excluded: Any) -> dict[str, Any]:
    """Return what an upsert changes in a row that is there: what was given, and what every change sets."""
    columns = layout.target.columns
    changes: dict[str, Any] = {}
    for name in layout.names:
        if name not in key:
            changes[columns[name].name] = excluded[columns[name].name]
    for name, default in layout.updates.items():
        if name not in key:
            value = default.arg(None) if default.is_callable else default.arg
            changes[columns[name].name] = bindparam(None, value, type_=columns[name].type)
    for name, expression in layout.update_expressions.items():
        changes[columns[name].name] = expression
    return changes


def found_rows(
    connection: Connection, target: Target, key: Sequence[str], *, wanted: Sequence[Any], names: Sequence[str] = ()
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return those of the ``wanted`` keys that the table has, each with the columns ``names``."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    columns = [target.columns[name] for name in key]
    keys = asked_for(columns, connection.dialect)
    statement = select(*columns, *(target.columns[name] for name in names)).where(keys.condition)
    for chunk in _chunks(list(dict.fromkeys(wanted)), keys.chunk):
        asked = keys.encode(chunk if len(key) > 1 else [value for (value,) in chunk])
        for row in connection.execute(statement, {keys.name: asked}, execution_options=PART):
            found[tuple(row[: len(key)])] = tuple(row[len(key) :])
    return found


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
