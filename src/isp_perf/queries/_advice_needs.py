"""Reads off the statements that were sent what they ask of each table, without their values."""

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import Alias, BooleanClauseList, Column, Join, Select, Table
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, Grouping, Null

from isp_perf._core.index_rules import Need
from isp_perf.queries._compat_cached import core_statement
from isp_perf.queries._compat_rows import cut_clauses, order_clauses
from isp_perf.queries._facts import order_of

__all__ = ["needs_of"]

_CATALOGS = {"pg_catalog", "information_schema"}
_RANGES = {operators.lt, operators.le, operators.gt, operators.ge, operators.between_op, operators.in_op}

Place = tuple[str | None, str, str | None]


def needs_of(compiled: Any) -> list[Need]:
    """Return what a statement's SELECTs, those within others too, ask of each table."""
    root: Any = core_statement(compiled)
    root = getattr(compiled, "statement", None) if root is None else root
    if root is None or not getattr(root, "is_select", False):
        return []
    selects: list[Select[Any]] = [each for each in visitors.iterate(root) if isinstance(each, Select)]
    return list(dict.fromkeys(need for select in selects for need in _Reading(select).needs()))


class _Reading:
    """One SELECT, taken apart."""

    def __init__(self, select: Select[Any]) -> None:
        self.equal: dict[Place, list[str]] = {}
        self.joined: dict[Place, list[str]] = {}
        self.ranges: dict[Place, list[str]] = {}
        self.nulls: dict[Place, list[tuple[str, bool]]] = {}
        self.used: dict[Place, list[str]] = {}
        self.select = select
        conditions = list(_conditions(select))
        for condition in conditions:
            self._sort(condition)
        self.order = [order_of(clause) for clause in order_clauses(select)]
        parts: list[Any] = [*select.selected_columns, *conditions, *(part for part, _, _ in self.order)]
        for column in (each for part in parts for each in visitors.iterate(part)):
            place = _place(column)
            if place is not None:
                self.used.setdefault(place, []).append(cast("Any", column).name)

    def needs(self) -> Iterator[Need]:
        """Yield what is asked of each table."""
        ordered = self._ordered()
        for place in self.used:
            schema, table, _ = place
            if schema in _CATALOGS:
                continue
            yield Need(
                (schema, table),
                equal=_once(self.equal.get(place)),
                joined=_once(self.joined.get(place)),
                ranges=_once(self.ranges.get(place)),
                order=tuple(ordered) if ordered and self._order_place() == place else (),
                limited=cut_clauses(self.select),
                nulls=_once(self.nulls.get(place)),
                used=_once(self.used[place]),
            )

    def _ordered(self) -> list[tuple[str, bool]]:
        """Return the columns of ORDER BY; none if an index in its usual form does not have that order."""
        if self._order_place() is None or any(nulls is not None for _, _, nulls in self.order):
            return []
        return [(column.name, descending) for column, descending, _ in self.order]

    def _order_place(self) -> Place | None:
        places = {_place(part) for part, _, _ in self.order}
        return places.pop() if len(places) == 1 else None

    def _sort(self, condition: Any) -> None:
        if not isinstance(condition, BinaryExpression):
            return
        operator, left, right = condition.operator, cast("Any", condition.left), cast("Any", condition.right)
        if operator is operators.eq:
            self._equality(left, right)
            self._equality(right, left)
            return
        place = _place(left)
        if place is None:
            return
        if operator in {operators.is_, operators.is_not} and isinstance(right, Null):
            self.nulls.setdefault(place, []).append((left.name, operator is operators.is_not))
        elif operator in _RANGES and place not in _places(right):
            self.ranges.setdefault(place, []).append(left.name)

    def _equality(self, column: Any, other: Any) -> None:
        place = _place(column)
        places = _places(other)
        if place is not None and place not in places:
            (self.joined if places else self.equal).setdefault(place, []).append(column.name)


def _once(values: list[Any] | None) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values or ()))


def _places(clause: Any) -> set[Place]:
    return {place for each in visitors.iterate(clause) if (place := _place(each)) is not None}


def _place(column: Any) -> Place | None:
    """Return the table of a column, and the name by which the SELECT calls it."""
    if not isinstance(column, Column):
        return None
    table: Any = cast("Any", column).table
    alias: str | None = None
    if isinstance(table, Alias):
        alias, table = table.name, cast("Any", table).element
    return (table.schema, table.name, alias) if isinstance(table, Table) else None


def _conditions(select: Select[Any]) -> Iterator[Any]:
    """Yield the conditions that every row meets, those of its joins too."""
    if select.whereclause is not None:
        yield from _apart(select.whereclause)
    for source in select.get_final_froms():
        yield from _of_join(source)


def _of_join(source: Any) -> Iterator[Any]:
    if isinstance(source, Join):
        yield from _apart(source.onclause)
        yield from _of_join(source.left)
        yield from _of_join(source.right)


def _apart(clause: Any) -> Iterator[Any]:
    """Yield the members of the topmost AND."""
    if isinstance(clause, Grouping):
        yield from _apart(cast("Any", clause).element)
    elif isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _apart(part)
    else:
        yield clause
