"""Finds out what a statement reads, and whether its rows may be kept."""

from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, cast

from sqlalchemy import CompoundSelect, MetaData, Select, TableClause, TextClause
from sqlalchemy.inspection import inspect
from sqlalchemy.sql import visitors

from isp_perf._core.sql_tables import volatile_name
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat_cached import core_statement, is_temporary, loading_options
from isp_perf.queries._compat_rows import is_loading, locks_rows, statement_key
from isp_perf.queries._writes import ALL_TABLES, Writes, tag_of

__all__ = ["Asked", "Shape", "asked_of"]

_SHAPES_KEPT = 1000
_shapes: dict[Any, "Shape"] = {}


@dataclass(frozen=True, slots=True)
class Shape:
    """What statements have in common that differ in their values only.

    Args:
        digest: of the SQL text and the names of its columns.
        text: the SQL.
        tags: of the tables it reads.
        locks: whether it locks what it reads.
        hidden: whether it holds text in which tables may hide.
    """

    digest: str
    text: str
    tags: frozenset[str]
    locks: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """One statement to be answered.

    Args:
        statement: what is run: columns in the place of mapped classes.
        shape: what it shares with others.
        values: its bound values.
    """

    statement: Any
    shape: Shape
    values: tuple[Any, ...]


def asked_of(statement: Any, writes: Writes, dialect: Any, *, volatile: bool, tagged: bool) -> Asked:
    """Return what is known of ``statement``.

    Args:
        statement: the user's.
        writes: who learns of its tables.
        dialect: of the database that is asked.
        volatile: its volatile functions are meant.
        tagged: its tags were given, so that it may hold text in which tables hide.

    Raises:
        ConfigurationError: it is no SELECT, loads objects, is volatile, reads a temporary table or one hidden in text.
    """
    if not isinstance(statement, Select | CompoundSelect):
        rule = "a cached query is a select(), or a union of some"
        raise ConfigurationError("statement", type(statement).__name__, rule, "build it with select()")
    key = statement_key(statement)
    columns = _columns_only(statement)
    shape = _known_shape(columns, writes, dialect, place=None if key is None else (id(dialect), key[0]))
    values = tuple(each.effective_value for each in key[1]) if key else _bound(columns, dialect)
    if not volatile:
        _require_steady(shape, values)
    if not tagged:
        _require_plain(shape)
    translated = statement.get_execution_options().get("schema_translate_map")
    return Asked(columns, shape, (*values, repr(sorted(translated.items(), key=str))) if translated else values)


def _known_shape(statement: Any, writes: Writes, dialect: Any, *, place: Any) -> Shape:
    """Return the shape of a statement, which is kept under ``place`` if it has one."""
    shape = None if place is None else _shapes.get(place)
    if shape is None:
        shape = _shape_of(statement, writes, dialect)
        if place is not None:
            if len(_shapes) >= _SHAPES_KEPT:
                _shapes.clear()
            _shapes[place] = shape
    return shape


def _bound(statement: Any, dialect: Any) -> tuple[Any, ...]:
    return tuple(statement.compile(dialect=dialect).params.values())


def _require_plain(shape: Shape) -> None:
    if shape.hidden:
        raise ConfigurationError(
            "statement", "text()", "the tables it reads cannot be told from text", 'pass tags=("table:name",)'
        )


def _require_steady(shape: Shape, values: tuple[Any, ...]) -> None:
    word = volatile_name(shape.text, values)
    if word is not None:
        raise ConfigurationError(
            "statement", word, "its answer changes without a write", "pass a value for it, or volatile=True"
        )


def _columns_only(statement: Any) -> Any:
    """Return ``statement`` with columns in the place of mapped classes: rows are kept, objects are not."""
    if any(is_loading(option) for option in loading_options(statement)):
        rule = "cached queries give rows, so there are no objects to load anything for"
        raise ConfigurationError("statement", "loader options", rule, "select the columns you need, with joins")
    described: list[Any] = statement.column_descriptions if isinstance(statement, Select) else []
    if not any(map(_is_class, described)):
        return cast("Any", statement)
    columns = chain.from_iterable(map(_columns_of, described))
    return cast("Any", statement.with_only_columns(*columns, maintain_column_froms=True))


def _is_class(described: Any) -> bool:
    """Whether a column of a SELECT is a mapped class or an alias of one."""
    entity = described.get("entity")
    return entity is not None and described["expr"] is entity


def _columns_of(described: Any) -> list[Any]:
    entity = described["expr"]
    if not _is_class(described):
        return [entity]
    return [getattr(entity, each.key) for each in inspect(entity).mapper.column_attrs if not each.deferred]


def _shape_of(statement: Any, writes: Writes, dialect: Any) -> Shape:
    compiled = statement.compile(dialect=dialect)
    text = str(compiled)
    tables, fragments = _parts(statement, core_statement(compiled))
    tags = {ALL_TABLES}
    for table in tables:
        if is_temporary(table):
            rule = "a temporary table is another one for each connection"
            raise ConfigurationError("statement", table.name, rule, "read it without a cache")
        if isinstance(getattr(table, "metadata", None), MetaData):
            writes.learn(table.metadata)
        tags.update(map(tag_of, (table.name, *getattr(table, "info", {}).get("isp_tables", ()))))
    hidden = any(_may_hide(str(getattr(each, "text", each))) for each in fragments)
    names = repr([str(column.key) for column in statement.selected_columns])
    digest = blake2b(f"{dialect.name}\0{text}\0{names}".encode(), digest_size=10).hexdigest()
    return Shape(digest, text, frozenset(tags), isinstance(statement, Select) and locks_rows(statement), hidden)


def _parts(*roots: Any) -> tuple[set[Any], list[Any]]:
    """Return the tables in a statement, and what was written as text."""
    elements = list(chain.from_iterable(visitors.iterate(root) for root in roots if root is not None))
    tables: set[Any] = {each for each in elements if isinstance(each, TableClause)}
    return tables, list(filter(_is_text, elements))


def _is_text(element: Any) -> bool:
    return isinstance(element, TextClause) or bool(getattr(element, "is_literal", False))


def _may_hide(text: str) -> bool:
    words = set(text.upper().replace("(", " ").split())
    return bool(words & {"SELECT", "FROM", "JOIN", "TABLE"}) or "(" in text
