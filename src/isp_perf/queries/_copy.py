"""Rows into a PostgreSQL table by COPY, with the driver that the connection has, in the connection's transaction."""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import Any

from sqlalchemy import Connection, Dialect, TableClause, column, select

from isp_perf.queries._compat_rows import driver_errors
from isp_perf.queries._watch import noted
from isp_perf.queries._writes import wrote

__all__ = ["copy_in", "driver_of"]

_BINARY = {16, 17, 20, 21, 23, 25, 701, 1043, 1082, 1114, 1184, 2950}
"""Types whose binary form psycopg makes of exactly the values that SQLAlchemy accepts for them: boolean, bytea, whole
numbers, text, varchar, double precision, date, timestamps, uuid."""


def driver_of(dialect: Dialect) -> str | None:
    """Return the name of a driver that can COPY, ``psycopg_async`` for psycopg under asyncio; ``None`` for others."""
    name = f"{dialect.driver}_async" if dialect.driver == "psycopg" and dialect.is_async else dialect.driver
    return name if dialect.name == "postgresql" and name in _WAYS else None


def copy_in(
    connection: Connection, place: tuple[str | None, str, Sequence[str]], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Append rows to a table.

    Args:
        connection: the connection; its transaction has begun.
        place: schema, if any, name of the table, and names of the columns that the rows have values for.
        rows: the rows, with values as the driver takes them.

    Raises:
        DBAPIError: what the database or driver says about a row, as SQLAlchemy raises it.
    """
    schema, table, columns = place
    quote: Callable[[str], str] = connection.dialect.identifier_preparer.quote
    where = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
    text = f"COPY {where} ({', '.join(map(quote, columns))}) FROM STDIN"
    # The statement also begins the transaction: asyncpg's is begun by the first one that SQLAlchemy sends.
    source = TableClause(table, *map(column, columns), schema=schema)
    probe: Any = connection.execute(select(source).limit(0), execution_options={"isp_part": True})
    types = [described[1] for described in probe.cursor.description]
    probe.close()
    work = _Copying(text, types, rows)
    wrote(connection, table)
    started = perf_counter_ns()
    try:
        with driver_errors(connection, text):
            _WAYS[driver_of(connection.dialect) or ""](connection, work, (schema, table, list(columns)))
    finally:
        noted(connection.dialect, text, perf_counter_ns() - started)


class _Copying:
    """One COPY: its text, the types of its columns, and its rows."""

    __slots__ = ("rows", "text", "types")

    def __init__(self, text: str, types: Sequence[int], rows: Iterable[tuple[Any, ...]]) -> None:
        self.types = types if set(types) <= _BINARY else None
        self.text = text if self.types is None else f"{text} (FORMAT BINARY)"
        self.rows = rows


def _by_asyncpg(connection: Connection, work: _Copying, place: tuple[str | None, str, list[str]]) -> None:
    schema, table, names = place
    adapted: Any = connection.connection.dbapi_connection

    async def copy(driver: Any) -> None:
        await driver.copy_records_to_table(table, records=work.rows, columns=names, schema_name=schema)

    adapted.run_async(copy)


def _by_psycopg(connection: Connection, work: _Copying, _place: Any) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(work.text) as copy:
        if work.types is not None:
            copy.set_types(work.types)
        write = copy.write_row
        for row in work.rows:
            write(row)


def _by_psycopg_async(connection: Connection, work: _Copying, _place: Any) -> None:
    adapted: Any = connection.connection.dbapi_connection

    async def copy_rows(driver: Any) -> None:
        async with driver.cursor() as cursor, cursor.copy(work.text) as copy:
            if work.types is not None:
                copy.set_types(work.types)
            for row in work.rows:
                await copy.write_row(row)

    adapted.run_async(copy_rows)


_WAYS: dict[str, Callable[..., None]] = {
    "asyncpg": _by_asyncpg,
    "psycopg": _by_psycopg,
    "psycopg_async": _by_psycopg_async,
}
