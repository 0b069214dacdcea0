"""One bulk statement under way: chunk after chunk, whatever it does and wherever it runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from sqlalchemy import insert
from sqlalchemy.engine import result_tuple
from sqlalchemy.orm import Session

from isp_perf.errors import ConfigurationError
from isp_perf.queries._bulk_generic import PART, Generic, Outcome, found_rows
from isp_perf.queries._bulk_postgresql import PostgreSQL
from isp_perf.queries._bulk_rows import Group, Target, as_mapping, groups_of
from isp_perf.queries._copy import driver_of

__all__ = ["BulkResult", "Job", "Progress"]

Progress: TypeAlias = Callable[[int, int | None], Any]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a bulk statement did.

    Args:
        rowcount: rows of the table that were added, changed or removed; >= 0.
        inserted: rows added.
        updated: rows changed; for an upsert, those whose key was there.
        rows: with ``returning``, one named tuple for each input row, in input order; ``None`` for a row that an
            update or delete did not find. Without, empty.
    """

    rowcount: int = 0
    inserted: int = 0
    updated: int = 0
    rows: list[Any] = field(default_factory=list[Any])


class Job:
    """One bulk statement under way.

    Args:
        verb: ``"insert"``, ``"upsert"``, ``"update"`` or ``"delete"``.
        target: the table.
        key: attributes by which rows are found.
        returning: attributes to return, or ``None``.
        progress: called after each chunk.
    """

    def __init__(
        self, verb: str, target: Target, *, key: Any = None, returning: Any = None, progress: Progress | None = None
    ) -> None:
        self.verb = verb
        self.target = target
        self.progress = progress
        self.total: int | None = None
        self.key = target.primary_key if key is None else target.named("key", _listed(key))
        self.returning = None if returning is None else target.named("returning", _listed(returning))
        if verb == "insert" and key is not None:
            raise ConfigurationError("key", "given", "an insert finds no rows, and needs no key", "leave it out")
        self.record: Callable[[Any], Any] = result_tuple(self.returning or ())
        self.done = 0
        self.outcome = Outcome()
        self.rows: list[Any] = []
        self.writer: Generic | None = None

    def write(self, session: Session, chunk: Sequence[Any]) -> None:
        """Write some rows."""
        if self.writer is None:
            session.flush()
            connection = session.connection(bind_arguments={"mapper": self.target.mapper})
            make = Generic if driver_of(connection.dialect) is None else PostgreSQL
            self.writer = make(connection, self.target, self.key)
        try:
            self._write(session, self.writer, chunk)
        except Exception as error:
            self._explain(error, chunk)
            raise
        self.done += len(chunk)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def finish(self, _session: Session | None = None) -> BulkResult:
        """Clean up and say what was done."""
        if self.writer is not None:
            self.writer.close()
        found = self.outcome
        return BulkResult(found.inserted + found.updated + found.deleted, found.inserted, found.updated, self.rows)

    def _write(self, session: Session, writer: Generic, chunk: Sequence[Any]) -> None:
        groups = groups_of(self.target, chunk, self.done, nulls=self.verb != "insert")
        for group in groups:
            self._refuse(group)
        if self.verb == "insert":
            self._insert(writer, groups, len(chunk))
            return
        keys: list[Any] = [None] * len(chunk)
        for group in groups:
            for place, key in zip(group.places, group.keys(self.key), strict=True):
                keys[place] = key
        gone = self._fetched(writer, keys) if self.verb == "delete" else []
        self._by_key(writer, groups, keys)
        self.rows += gone or self._fetched(writer, keys)
        self._expire(session, keys)

    def _by_key(self, writer: Generic, groups: list[Group], keys: list[Any]) -> None:
        """Write rows that are found by their keys; of those with one key the last."""
        work: Callable[[Group], Outcome] = getattr(writer, self.verb)
        last = {key: place for place, key in enumerate(keys)}
        for group in groups:
            kept = [index for index, place in enumerate(group.places) if last[keys[place]] == place]
            if kept:
                self.outcome.add(work(group if len(kept) == len(group) else group.only(kept)))

    def _insert(self, writer: Generic, groups: list[Group], size: int) -> None:
        if self.returning is None:
            for group in groups:
                self.outcome.add(writer.insert(group))
            return
        rows: list[Any] = [None] * size
        for group in groups:
            for place, row in zip(group.places, self._inserted(writer, group), strict=True):
                rows[place] = row
        self.rows += rows

    def _inserted(self, writer: Generic, group: Group) -> list[Any]:
        """Add the rows of a group and return what is asked for of each."""
        if writer.keyed(group):
            self.outcome.add(writer.insert(group))
            return self._fetched(writer, group.keys(self.target.primary_key))
        names = self.returning or ()
        columns = self.target.columns
        group.fill(group.layout.defaults)
        statement = insert(self.target.table)
        returning = statement.returning(*(columns[name] for name in names), sort_by_parameter_order=True)
        keys = [columns[name].key for name in group.columns]
        values = [dict(zip(keys, row, strict=True)) for row in zip(*group.columns.values(), strict=True)]
        found = writer.connection.execute(returning, values, execution_options=PART).all()
        self.outcome.inserted += len(group)
        return list(map(self.record, found))

    def _refuse(self, group: Group) -> None:
        """Check that rows have what the statement needs.

        Raises:
            ConfigurationError: a key is missing, a column without a default, or there is nothing to change.
        """
        row, names = self.done + group.places[0], group.layout.names
        if self.verb in {"insert", "upsert"}:
            group.layout.refuse_gaps(row)
        if self.verb == "insert":
            return
        for name in self.key:
            if name not in names:
                rule = f"row {row} lacks a part of the key that rows are found by"
                raise ConfigurationError("rows", f"{self.target.name}.{name}", rule, f"give {name!r}, or another key=")
        if self.verb == "update" and set(names) <= set(self.key):
            rule = f"row {row} names nothing but the key"
            raise ConfigurationError("rows", self.target.name, rule, "name what is to be changed")

    def _fetched(self, writer: Generic, keys: list[Any]) -> list[Any]:
        if self.returning is None:
            return []
        found = found_rows(writer.connection, self.target, self.key, wanted=keys, names=self.returning)
        return [self.record(found[key]) if key in found else None for key in keys]

    def _expire(self, session: Session, keys: list[Any]) -> None:
        """Let objects that the session holds be read again."""
        mapper, identities = self.target.mapper, session.identity_map
        if not identities:
            return
        if self.key == self.target.primary_key:
            found = [identities.get(mapper.identity_key_from_primary_key(key)) for key in keys]
        else:
            found = [item for item in identities.values() if isinstance(item, mapper.class_)]
        for item in found:
            if item is not None:
                session.expire(item)

    def _explain(self, error: Exception, chunk: Sequence[Any]) -> None:
        """Say where in the input an error of the database came from."""
        if isinstance(error, ConfigurationError):
            return
        if self.writer is not None and self.writer.connection.dialect.name == "postgresql":
            _refuse_nul(self.target, chunk, self.done)
        error.add_note(f"bulk_{self.verb}: while writing rows {self.done} to {self.done + len(chunk) - 1}")


def _listed(names: Any) -> tuple[Any, ...]:
    return (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(cast("Any", names))


def _refuse_nul(target: Target, chunk: Sequence[Any], start: int) -> None:
    """Name the row with a character that PostgreSQL cannot store, if that is what went wrong."""
    make = as_mapping(target)
    for place, row in enumerate(chunk):
        for name, value in make(row, start + place).items():
            if isinstance(value, str) and "\0" in value:
                rule = f"row {start + place} has a character U+0000, which PostgreSQL's text cannot hold"
                raise ConfigurationError("rows", f"{target.name}.{name}", rule, "remove it")
