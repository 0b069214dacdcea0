"""What the mapping and the tables promise about a relationship: how many rows it can find, and by which index."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, cast

from sqlalchemy import BooleanClauseList, Index, Table, UniqueConstraint, tuple_
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ColumnElement, UnaryExpression

from isp_perf.queries._kinds import is_column

__all__ = [
    "among",
    "are_unique",
    "equalities",
    "finds_one",
    "key_attributes",
    "leading_index",
    "order_of",
    "pairs_once",
    "self_referencing",
    "unique_sets",
]

_ORDERING = {operators.asc_op, operators.desc_op, operators.nulls_first_op, operators.nulls_last_op}
_JOINED = {"joined", False}


def equalities(clause: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs that a join condition surely sets equal: the equalities of its topmost AND."""
    if isinstance(clause, BinaryExpression) and clause.operator is operators.eq:
        yield clause.left, clause.right
    elif isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from equalities(part)


def unique_sets(table: Any) -> Iterator[frozenset[str]]:
    """Yield each set of columns (by name) of which the table holds any combination at most once."""
    if not isinstance(table, Table):
        return
    if table.primary_key.columns:
        yield frozenset(table.primary_key.columns.keys())
    yield from (frozenset(names) for names in _constraints(table))
    yield from (frozenset(names) for index in table.indexes if _is_whole(index) and (names := _plain_columns(index)))


def _constraints(table: Any) -> list[list[str]]:
    """Return the columns of each unique constraint in order."""
    return [[c.key for c in unique.columns] for unique in table.constraints if isinstance(unique, UniqueConstraint)]


def _is_whole(index: Index) -> bool:
    """Whether a unique index covers every row."""
    return bool(index.unique) and all(options.get("where") is None for options in index.dialect_options.values())


def _plain_columns(index: Index) -> list[str]:
    """Return the index's columns in order; an empty list if it holds an expression."""
    parts = [order_of(part)[0] for part in index.expressions]
    names = [part.key for part in parts if is_column(part)]
    return names if len(names) == len(parts) else []


def finds_one(relation: RelationshipProperty[Any]) -> bool:
    """Whether the tables guarantee that ``relation`` finds at most one row for each parent."""
    if relation.secondary is not None or relation.entity.is_aliased_class or _multiplies(relation.mapper, set()):
        return False
    return are_unique(relation, relation.remote_side)


def are_unique(relation: RelationshipProperty[Any], columns: Iterable[Any]) -> bool:
    """Whether those of ``columns`` that the join condition surely sets equal hold any combination at most once."""
    sides = [side for pair in equalities(relation.primaryjoin) for side in pair]
    by_table: dict[Any, set[str]] = {}
    for column in filter(is_column, columns):
        if any(column.compare(side) for side in sides):
            by_table.setdefault(column.table, set()).add(column.key)
    return any(unique <= names for table, names in by_table.items() for unique in unique_sets(table))


def _multiplies(mapper: Mapper[Any], seen: set[Mapper[Any]]) -> bool:
    """Whether loading ``mapper`` joins a collection, because the mapping itself says so."""
    if mapper in seen:
        return False
    seen.add(mapper)
    return any(
        relation.lazy in _JOINED and (relation.uselist or _multiplies(relation.mapper, seen))
        for kind in mapper.self_and_descendants
        for relation in kind.relationships
    )


def pairs_once(relation: RelationshipProperty[Any]) -> bool:
    """Whether one parent meets one target at most once, so that no list needs its repeats removed."""
    if relation.secondary is None:
        return True
    used = {
        column.key
        for pair in relation.local_remote_pairs or ()
        for column in pair
        if column.table is relation.secondary
    }
    return any(unique <= used for unique in unique_sets(relation.secondary))


def self_referencing(relation: RelationshipProperty[Any]) -> bool:
    """Whether parent and target are mapped to one hierarchy."""
    return relation.parent.base_mapper is relation.mapper.base_mapper


def order_of(clause: Any) -> tuple[Any, bool, bool | None]:
    """Take an ORDER BY element apart.

    Returns:
        The expression, whether it is descending, and whether NULLs come first (``None``: as the database likes).
    """
    descending, nulls_first = False, None
    element: Any = clause
    while isinstance(element, UnaryExpression) and (modifier := element.modifier) in _ORDERING:
        if modifier is operators.desc_op:
            descending = True
        elif modifier is not operators.asc_op:
            nulls_first = modifier is operators.nulls_first_op
        element = cast("Any", element.element)
    return cast("Any", element), descending, nulls_first


def key_attributes(mapper: Mapper[Any], columns: Iterable[ColumnElement[Any]]) -> set[str]:
    """Return the names of the attributes that hold ``columns``, as far as ``mapper`` maps them."""
    names: dict[Any, str] = {column: attribute.key for attribute in mapper.column_attrs for column in attribute.columns}
    return {names[column] for column in columns if column in names}


def leading_index(first: Collection[Any], then: Sequence[Any] = ()) -> bool:
    """Whether some index begins with the columns ``first`` (in any order) and goes on with ``then`` (in this order)."""
    tables = {getattr(column, "table", None) for column in (*first, *then)}
    if len(tables) != 1 or not isinstance(table := tables.pop(), Table):
        return True  # not a plain table: nothing is known, so nothing is said
    wanted, tail = {column.key for column in first}, [column.key for column in then]
    primary = list(table.primary_key.columns.keys())
    return any(
        set(names[: len(wanted)]) == wanted and (names + primary)[len(wanted) : len(wanted) + len(tail)] == tail
        for names in [*map(_plain_columns, table.indexes), *_constraints(table), primary]
    )


def among(attributes: Sequence[Any], keys: Sequence[Any]) -> Any:
    """Return the condition that a key, which ``attributes`` hold, is one of ``keys`` (tuples)."""
    if len(attributes) == 1:
        return attributes[0].in_([key[0] for key in keys])
    return tuple_(*attributes).in_(keys)
