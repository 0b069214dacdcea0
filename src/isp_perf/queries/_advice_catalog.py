"""Asks the database which indexes its tables have, and which it has never used."""

from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.inspection import inspect

from isp_perf._core.index_rules import Existing

__all__ = ["indexes_of", "unused_names"]

_READS_AT_LEAST = 100  # of the table, before an index counts as unused
_UNUSED = text(
    "SELECT i.indexrelname FROM pg_stat_user_indexes i JOIN pg_stat_user_tables t ON t.relid = i.relid "
    "JOIN pg_index x ON x.indexrelid = i.indexrelid WHERE t.relname = :name "
    "AND t.schemaname = coalesce(:schema, current_schema()) AND i.idx_scan = 0 AND NOT x.indisunique "
    "AND t.seq_scan + coalesce(t.idx_scan, 0) >= :reads ORDER BY 1"
)


def indexes_of(connection: Connection, table: tuple[str | None, str]) -> list[Existing] | None:
    """Return the indexes, keys and unique constraints of a table; ``None`` if there is no such table."""
    schema, name = table
    catalog = inspect(connection)
    try:
        primary: Any = catalog.get_pk_constraint(name, schema=schema)
        indexes: list[Any] = list(catalog.get_indexes(name, schema=schema))
        unique: list[Any] = list(catalog.get_unique_constraints(name, schema=schema))
    except NoSuchTableError:
        return None
    keys = [_key(columns) for columns in [primary["constrained_columns"], *(each["column_names"] for each in unique)]]
    plain = [_existing(connection, each) for each in indexes if not each.get("duplicates_constraint")]
    return [*keys, *plain]


def _key(columns: list[str]) -> Existing:
    return Existing("", tuple((column, False) for column in columns), unique=True)


def _existing(connection: Connection, index: dict[str, Any]) -> Existing:
    names: list[Any] = index["column_names"]
    options: dict[str, Any] = index.get("dialect_options", {})
    dialect = connection.dialect.name
    down = _descending(connection, index)
    kind = str(options.get(f"{dialect}_using") or "")
    return Existing(
        index["name"],
        () if None in names else tuple((name, name in down) for name in names),
        unique=bool(index["unique"]),
        where=str(options.get(f"{dialect}_where") or ""),
        include=tuple(options.get(f"{dialect}_include") or ()),
        kind="" if kind == "btree" else kind,
    )


def _descending(connection: Connection, index: dict[str, Any]) -> set[str]:
    """Return the columns that an index holds in descending order."""
    if connection.dialect.name != "sqlite":
        return {name for name, order in index.get("column_sorting", {}).items() if "desc" in order}
    quoted = connection.dialect.identifier_preparer.quote_identifier(index["name"])
    return {row[2] for row in connection.exec_driver_sql(f"PRAGMA index_xinfo({quoted})") if row[3]}


def unused_names(connection: Connection, table: tuple[str | None, str]) -> list[str]:
    """Return the indexes that PostgreSQL has not read once, though the table was read a hundred times."""
    if connection.dialect.name != "postgresql":
        return []
    schema, name = table
    asked = {"name": name, "schema": schema, "reads": _READS_AT_LEAST}
    return list(connection.execute(_UNUSED, asked).scalars())
