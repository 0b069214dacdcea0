"""Bulk statements of PostgreSQL: rows go in as arrays or by COPY, and one statement does the work on all of them.

Which way is faster is a question of the number of rows and of the driver: arrays need one round trip, COPY into a
temporary table needs four and is faster from a few thousand rows on; psycopg takes long over lists. The thresholds
below are where the two met in `benchmarks/test_queries_bulk.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    JSON,
    Connection,
    TableClause,
    and_,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql

from isp_perf.queries._bulk_generic import PART, Generic, Outcome, set_of
from isp_perf.queries._bulk_rows import Group, Target
from isp_perf.queries._copy import copy_in, driver_of

__all__ = ["PostgreSQL"]

_NAME = "isp_v_"
_numbers = count(1)

_COPY_FROM = {"asyncpg": 100, "psycopg": 300, "psycopg_async": 300}
"""Rows from which on an INSERT is a COPY."""

_STAGE_FROM = {"asyncpg": 4000, "psycopg": 700, "psycopg_async": 2000}
"""Rows from which on other statements take their rows from a temporary table."""


class PostgreSQL(Generic):
    """Writes groups of rows with one statement for all of them.

    Args:
        connection: the session's connection.
        target: the table.
        key: attributes by which rows are found.
    """

    def __init__(self, connection: Connection, target: Target, key: Sequence[str]) -> None:
        super().__init__(connection, target, key)
        self._stages: dict[tuple[str, ...], TableClause] = {}
        self._driver = driver_of(connection.dialect) or ""

    def close(self) -> None:
        """Drop the temporary tables."""
        for stage in self._stages.values():
            self.connection.execute(text(f"DROP TABLE {stage.name}"), execution_options=PART)
        self._stages.clear()

    def insert(self, group: Group) -> Outcome:
        """Add the rows of a group."""
        layout = group.layout
        if not layout.plain:
            return super().insert(group)
        group.fill(layout.defaults)
        if len(group) >= _COPY_FROM[self._driver] and not layout.expressions:
            table = self.target.table
            names, rows = self._raw(group)
            copy_in(self.connection, (table.schema, table.name, names), rows)
        else:
            self._execute_on(self._inserting(insert(self.target.table), group), group)
        return Outcome(inserted=len(group))

    def keyed(self, group: Group) -> bool:
        """Whether keys are known; those of a sequence are drawn from it before the rows are added."""
        if super().keyed(group):
            return True
        table, counted = self.target.table, self.target.table.autoincrement_column
        if len(self.target.primary_key) != 1 or counted is None or not group.layout.plain:
            return False
        if counted.identity is not None and counted.identity.always:
            return False
        quote = self.connection.dialect.identifier_preparer.format_table
        names = {"isp_t": quote(table), "isp_c": counted.name, "isp_n": len(group)}
        drawn = list(self.connection.execute(_DRAWN, names, execution_options=PART).scalars())
        if None in drawn:
            return False
        group.columns[self.target.primary_key[0]] = drawn
        return True

    def upsert(self, group: Group) -> Outcome:
        """Add the rows of a group, or change those whose keys are there; no key comes twice in the group."""
        if not group.layout.plain:
            return super().upsert(group)
        group.fill(group.layout.defaults)
        statement: Any = self._inserting(postgresql.insert(self.target.table), group)
        changes = set_of(group.layout, self.key, statement.excluded)
        where = [self.target.columns[name] for name in self.key]
        if changes:
            statement = statement.on_conflict_do_update(index_elements=where, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=where)
        # A row version that was inserted was never deleted by another statement, and so has no xmax.
        done = statement.returning(_IS_NEW.label("fresh")).cte("isp_done")
        counted = select(func.count(), func.count().filter(done.c.fresh)).select_from(done)
        total, inserted = self.connection.execute(counted, self._given(group), execution_options=PART).one()
        return Outcome(inserted=inserted, updated=total - inserted)

    def update(self, group: Group) -> Outcome:
        """Change the rows of a group, found by their keys."""
        layout = group.layout
        if not layout.plain:
            return super().update(group)
        group.fill(layout.updates)
        source = self._source(group)
        columns = self.target.columns
        values = {columns[name].name: source[name] for name in group.columns if name not in self.key}
        values |= self._sql(layout.update_expressions)
        statement = update(self.target.table).where(self._same_key(source)).values(values)
        return Outcome(updated=self._execute_on(statement, group))

    def delete(self, group: Group) -> Outcome:
        """Remove the rows whose keys a group holds."""
        if not group.layout.plain:
            return super().delete(group)
        group.columns = {name: group.columns[name] for name in self.key}
        source = self._source(group)
        keys = [self.target.columns[name] for name in self.key]
        wanted = select(*(source[name] for name in self.key))
        condition = (tuple_(*keys) if len(keys) > 1 else keys[0]).in_(wanted)
        return Outcome(deleted=self._execute_on(delete(self.target.table).where(condition), group))

    # ---- where the rows are ------------------------------------------------------------------------------------------

    def _source(self, group: Group) -> dict[str, Any]:
        """Return the columns of the rows as SQL: of arrays in the parameters, or of a temporary table."""
        if self._is_staged(group):
            stage = self._stage(group)
            return {name: stage.c[self.target.columns[name].name] for name in group.columns}
        arrays = [
            bindparam(_NAME + name, type_=postgresql.ARRAY(self.target.columns[name].type)) for name in group.columns
        ]
        named = [column(f"c{place}", self.target.columns[name].type) for place, name in enumerate(group.columns)]
        rows = func.unnest(*arrays).table_valued(*named).render_derived(name="isp_rows")
        return {name: rows.c[f"c{place}"] for place, name in enumerate(group.columns)}

    def _is_staged(self, group: Group) -> bool:
        if len(group) >= _STAGE_FROM[self._driver]:
            return True
        return any(isinstance(self.target.columns[name].type, ARRAY | JSON) for name in group.columns)

    def _stage(self, group: Group) -> TableClause:
        """Return a temporary table that holds the rows of the group and no others."""
        names = tuple(group.columns)
        stage = self._stages.get(names)
        columns = [self.target.columns[name] for name in names]
        if stage is None:
            title = f"isp_perf_stage_{next(_numbers)}"
            stage = TableClause(title, *(column(found.name, found.type) for found in columns))
            empty = select(*columns).limit(0).compile(dialect=self.connection.dialect, compile_kwargs=_WRITTEN)
            create = f"CREATE TEMPORARY TABLE {title} ON COMMIT DROP AS {empty}"
            self.connection.exec_driver_sql(create, execution_options=PART)
            self._stages[names] = stage
        else:
            self.connection.exec_driver_sql(f"TRUNCATE {stage.name}", execution_options=PART)
        raw, rows = self._raw(group)
        copy_in(self.connection, (None, stage.name, raw), rows)
        return stage

    def _raw(self, group: Group) -> tuple[list[str], Iterable[tuple[Any, ...]]]:
        """Return the names of a group's columns in the table, and its rows with values as the driver takes them."""
        names = group.names
        columns = [self.target.columns[name] for name in names]
        dialect = self.connection.dialect
        found = ((name, kind.type.dialect_impl(dialect)) for name, kind in zip(names, columns, strict=True))
        works = {name: work for name, kind in found if (work := kind.bind_processor(dialect)) is not None}
        return [known.name for known in columns], group.tuples(names, works)

    # ---- what is done with them --------------------------------------------------------------------------------------

    def _inserting(self, statement: Any, group: Group) -> Any:
        source, expressions = self._source(group), group.layout.expressions
        columns = self.target.columns
        names = [columns[name].name for name in (*group.columns, *expressions)]
        values = [*(source[name] for name in group.columns), *expressions.values()]
        return statement.from_select(names, select(*values), include_defaults=False)

    def _same_key(self, source: Mapping[str, Any]) -> Any:
        return and_(*(self.target.columns[name] == source[name] for name in self.key))

    def _given(self, group: Group) -> dict[str, Any]:
        if self._is_staged(group):
            return {}
        return {_NAME + name: values for name, values in group.columns.items()}

    def _execute_on(self, statement: Any, group: Group) -> int:
        return self.connection.execute(statement, self._given(group), execution_options=PART).rowcount


_IS_NEW: Any = cast("Any", literal_column("xmax = 0"))
_DRAWN = text(
    "SELECT nextval(CAST(pg_get_serial_sequence(CAST(:isp_t AS TEXT), CAST(:isp_c AS TEXT)) AS regclass))"
    " FROM generate_series(1, :isp_n)"
)
_WRITTEN = {"literal_binds": True}
