"""Writes the DDL and the Alembic line of an index that is advised."""

from hashlib import blake2b
from typing import Any

from sqlalchemy import Column, Index, Integer, MetaData, Table, text
from sqlalchemy.schema import CreateIndex, DropIndex

from isp_perf._core.index_rules import Candidate

__all__ = ["create_texts", "drop_texts", "name_for"]

_LONGEST_NAME = 63
_NULL = {True: "NOT NULL", False: "NULL"}


def name_for(candidate: Candidate, taken: set[str]) -> str:
    """Return a name that no index of the table has."""
    columns = "_".join(name for name, _ in candidate.columns)
    ending = ("_part" if candidate.nulls else "") + (
        "_with_" + "_".join(candidate.include) if candidate.include else ""
    )
    name = f"ix_{candidate.table[1]}_{columns}{ending}"
    if len(name) <= _LONGEST_NAME and name not in taken:
        return name
    digest = blake2b(repr(candidate).encode(), digest_size=4).hexdigest()
    return f"{name[: _LONGEST_NAME - 9]}_{digest}"


def create_texts(candidate: Candidate, name: str, dialect: Any) -> tuple[str, str]:
    """Return ``CREATE INDEX`` and the Alembic line that does the same."""
    schema, table = candidate.table
    dialect = _as_written(dialect)
    quote = dialect.identifier_preparer.quote
    options: dict[str, Any] = {}
    said = _in_schema(schema)
    if candidate.nulls:
        where = " AND ".join(f"{quote(name)} IS {_NULL[there]}" for name, there in candidate.nulls)
        options[f"{dialect.name}_where"] = text(where)
        said += f", {dialect.name}_where=sa.text({where!r})"
    if candidate.include:
        options["postgresql_include"] = list(candidate.include)
        said += f", postgresql_include={list(candidate.include)!r}"
    ddl = str(CreateIndex(Index(name, *_expressions(candidate), **options)).compile(dialect=dialect))
    columns = ", ".join(
        f"sa.text({quote(each) + ' DESC'!r})" if down else repr(each) for each, down in candidate.columns
    )
    return ddl, f"op.create_index({name!r}, {table!r}, [{columns}]{said})"


def _as_written(dialect: Any) -> Any:
    """Return a dialect that writes a percent sign as one: drivers that format their statements have it doubled."""
    return type(dialect)(paramstyle="named")


def _in_schema(schema: str | None) -> str:
    return "" if schema is None else f", schema={schema!r}"


def _expressions(candidate: Candidate) -> list[Any]:
    made = _table(candidate)
    return [made.c[name].desc() if down else made.c[name] for name, down in candidate.columns]


def _table(candidate: Candidate) -> Table:
    schema, table = candidate.table
    names = dict.fromkeys((*(name for name, _ in candidate.columns), *candidate.include))
    columns: list[Column[Any]] = [Column(name, Integer) for name in names]
    return Table(table, MetaData(), *columns, schema=schema)


def drop_texts(table: tuple[str | None, str], name: str, dialect: Any) -> tuple[str, str]:
    """Return ``DROP INDEX`` and the Alembic line that does the same."""
    schema, plain = table
    dialect = _as_written(dialect)
    made = Table(plain, MetaData(), Column("x", Integer), schema=schema)
    ddl = str(DropIndex(Index(name, made.c.x)).compile(dialect=dialect)).strip()
    said = _in_schema(schema)
    return ddl, f"op.drop_index({name!r}, table_name={plain!r}{said})"
