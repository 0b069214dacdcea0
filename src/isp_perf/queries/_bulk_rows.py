"""Rows of many shapes, turned into columns of values that are ready to be stored.

A chunk of rows is sorted by which attributes the rows name. Within such a group everything goes column by column, so
that defaults and type conversions cost nothing where there are none.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import Column, Table
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import Mapper

from isp_perf._core.preload_plan import nearest
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat_rows import has_bind_expression
from isp_perf.queries._kinds import is_column, is_state
from isp_perf.queries._paths import entity_of

__all__ = ["Group", "Layout", "Target", "as_mapping", "groups_of", "target_of_model"]


_FEWEST_TAKEN = 2  # of fewer names, itemgetter gives no tuple


class Target:
    """The table behind a model.

    Args:
        mapper: the model's mapper.
        table: its one table.
    """

    def __init__(self, mapper: Mapper[Any], table: Table) -> None:
        self.mapper = mapper
        self.table = table
        self.columns: dict[str, Column[Any]] = {
            name: column
            for name, attribute in mapper.column_attrs.items()
            if is_column(column := attribute.columns[0]) and column.table is table
        }
        self.optional = {name for name, column in self.columns.items() if _has_default(column)}
        self.primary_key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
        self._layouts: dict[tuple[str, ...], Layout] = {}

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.mapper.class_.__name__

    def named(self, setting: str, names: Iterable[Any]) -> tuple[str, ...]:
        """Return attribute names for what the user gave as names or attributes.

        Raises:
            ConfigurationError: one of them is no column of the model.
        """
        found = tuple(name if isinstance(name, str) else str(name.key) for name in names)
        for name in found:
            if name not in self.columns:
                raise ConfigurationError(setting, f"{self.name}.{name}", "there is no such column", self.hint(name))
        return found

    def hint(self, name: str) -> str:
        """Say which column may have been meant by ``name``."""
        close = nearest(name, self.columns)
        return f"did you mean {close!r}?" if close else f"{self.name} has {', '.join(self.columns)}"

    def layout(self, names: tuple[str, ...], row: int) -> "Layout":
        """Return how rows with these attributes are stored; ``row`` is the number of one of them, for messages."""
        layout = self._layouts.get(names)
        if layout is None:
            for name in names:
                if name not in self.columns:
                    rule = f"row {row} names an attribute that is no column of the model"
                    raise ConfigurationError("rows", f"{self.name}.{name}", rule, self.hint(name))
            layout = self._layouts[names] = Layout(self, names)
        return layout


def _has_default(column: Column[Any]) -> bool:
    """Whether NULL for a column means "not given", as it does when an object is flushed."""
    if column.type.should_evaluate_none:
        return False
    return (
        column.default is not None or column.server_default is not None or column.table.autoincrement_column is column
    )


@lru_cache(maxsize=256)
def target_of_model(model: Any) -> Target:
    """Return the table behind ``model``.

    Raises:
        ConfigurationError: it is no mapped class, or is mapped to more than one table.
    """
    entity = entity_of(model)
    mapper = entity.mapper
    table = mapper.local_table
    if entity.is_aliased_class or not isinstance(table, Table) or len(mapper.tables) != 1:
        raise ConfigurationError(
            "Model",
            mapper.class_.__name__,
            "bulk statements write one table, and this model is an alias or is mapped to several",
            "write table by table, or use session.add_all()",
        )
    return Target(mapper, cast("Table", table))


class _Context:
    """What a default with a parameter is called with."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, *, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        """Return the other values of the row."""
        return self.current_parameters if isolate_multiinsert_groups else dict(self.current_parameters)


class Layout:
    """How rows that name the same attributes are stored.

    Args:
        target: the table.
        names: the attributes that the rows name.
    """

    def __init__(self, target: Target, names: tuple[str, ...]) -> None:
        self.target = target
        self.names = names
        self.optional = target.optional.intersection(names)

    @cached_property
    def plain(self) -> bool:
        """Whether values go to the database as they are, without SQL around them."""
        return not any(has_bind_expression(column.type) for column in self.target.columns.values())

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Attributes that the rows do not name and that Python has a default for, as it is for one row."""
        found = self._filled("default", callables=True)
        mapper = self.target.mapper
        kind = mapper.polymorphic_on
        for name, column in self.target.columns.items():
            if column is kind and name not in self.names and mapper.polymorphic_identity is not None:
                found[name] = mapper.polymorphic_identity
        return found

    @cached_property
    def expressions(self) -> dict[str, Any]:
        """Attributes that the rows do not name and that SQL has a default for, sent with the statement."""
        return self._filled("default", callables=False)

    @cached_property
    def updates(self) -> dict[str, Any]:
        """As ``defaults``, for rows that are changed."""
        return self._filled("onupdate", callables=True)

    @cached_property
    def update_expressions(self) -> dict[str, Any]:
        """As ``expressions``, for rows that are changed."""
        return self._filled("onupdate", callables=False)

    def _filled(self, kind: str, *, callables: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, column in self.target.columns.items():
            default: Any = getattr(column, kind)
            if name not in self.names and default is not None and _is_pythons(default) is callables:
                found[name] = default if callables or default.is_sequence else default.arg
        return found

    def changes(self, key: Sequence[str]) -> bool:
        """Whether an update by ``key`` has anything to set."""
        return not set(self.names) <= set(key) or bool(self.updates) or bool(self.update_expressions)

    def refuse_gaps(self, row: int) -> None:
        """Check that every column that must have a value gets one.

        Raises:
            ConfigurationError: one does not; the message names it and the row.
        """
        filled = {*self.names, *self.defaults, *self.expressions}
        for name, column in self.target.columns.items():
            needed = not column.nullable and column.server_default is None and column.computed is None
            if needed and name not in filled and column.identity is None and not _counts(column):
                rule = f"row {row} has no value for a column that needs one and has no default"
                raise ConfigurationError("rows", f"{self.target.name}.{name}", rule, f"give {name!r} in every row")


def _is_pythons(default: Any) -> bool:
    """Whether a default is made by Python, not by the database."""
    return bool(default.is_callable or default.is_scalar)


def _counts(column: Column[Any]) -> bool:
    return column.table.autoincrement_column is column


class Group:
    """Rows of one chunk that name the same attributes, as columns.

    Args:
        layout: how they are stored.
        rows: the rows as mappings.
        places: their numbers within the chunk.
    """

    layout: Layout
    places: Sequence[int]
    rows: Sequence[Mapping[str, Any]]

    def __init__(self, layout: Layout, rows: Sequence[Mapping[str, Any]], places: Sequence[int]) -> None:
        self.layout = layout
        self.rows = rows
        self.places = places

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The values of each attribute, in the order of the rows."""
        return {name: list(map(itemgetter(name), self.rows)) for name in self.layout.names}

    def __len__(self) -> int:
        return len(self.places)

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that the rows have values for, defaults included."""
        return tuple(self.columns) if "columns" in vars(self) else self.layout.names

    def tuples(
        self, names: Sequence[str], works: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the values of each row in the order of ``names``, converted by ``works``; no column is held for it."""
        if not works and "columns" not in vars(self) and len(names) >= _FEWEST_TAKEN:
            return map(itemgetter(*names), self.rows)
        return zip(*(self._values(name, (works or {}).get(name)) for name in names), strict=True)

    def _values(self, name: str, work: Callable[[Any], Any] | None) -> Iterable[Any]:
        values = self.columns[name] if "columns" in vars(self) else map(itemgetter(name), self.rows)
        return values if work is None else map(work, values)

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Add the columns that Python has defaults for."""
        for name, default in defaults.items():
            if getattr(default, "is_callable", False):
                self.columns[name] = [default.arg(_Context(dict(row))) for row in self.rows]
            else:
                self.columns[name] = [getattr(default, "arg", default)] * len(self)

    def keys(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the key of each row."""
        return list(self.tuples(names))

    def only(self, kept: Sequence[int]) -> "Group":
        """Return the rows at ``kept``, which are numbers within the group."""
        return Group(self.layout, [self.rows[index] for index in kept], [self.places[index] for index in kept])


def _are_alike(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all rows have the same names: as many in each as there are in all together."""
    return {len(set[str]().union(*rows))} == set(map(len, rows))


def groups_of(target: Target, chunk: Sequence[Any], start: int, *, nulls: bool) -> list[Group]:
    """Return the rows of a chunk by the attributes they name.

    Args:
        target: the table.
        chunk: rows in any of the accepted shapes.
        start: number of the first row, for messages.
        nulls: a None is a value even where the column has a default (rows that are changed, not added).

    Raises:
        ConfigurationError: a row is none, or names what is no column.
    """
    rows: list[Any] = list(chunk)
    if set(map(type, rows)) != {dict}:
        make = as_mapping(target)
        rows = [make(row, start + place) for place, row in enumerate(rows)]
    if _are_alike(rows):
        group = Group(target.layout(tuple(rows[0]), start), rows, range(len(rows)))
        if nulls or not any(None in map(itemgetter(name), rows) for name in group.layout.optional):
            return [group]
    return _sorted(target, rows, start, nulls=nulls)


def _sorted(target: Target, rows: Sequence[Mapping[str, Any]], start: int, *, nulls: bool) -> list[Group]:
    """Return groups of rows that name different attributes, in the order of their first rows."""
    found: dict[tuple[str, ...], tuple[list[Any], list[int]]] = {}
    for place, row in enumerate(rows):
        layout = target.layout(tuple(row), start + place)
        left_out = () if nulls else [name for name in layout.optional if row[name] is None]
        names = tuple(sorted(set(layout.names).difference(left_out)))
        members, places = found.setdefault(names, ([], []))
        members.append(row)
        places.append(place)
    return [
        Group(target.layout(names, start + places[0]), members, places) for names, (members, places) in found.items()
    ]


def as_mapping(target: Target) -> Callable[[Any, int], Mapping[str, Any]]:
    """Return what turns a row of any accepted shape into a mapping of attribute names to values."""
    model = target.mapper.class_

    def convert(row: Any, number: int) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            return dict(cast("Mapping[str, Any]", row))
        if isinstance(row, model):
            state = inspect(row)
            loaded: dict[str, Any] = state.dict if is_state(state) else {}
            return {name: loaded[name] for name in target.columns if name in loaded}
        names = _field_names(row)
        if names:
            return {name: getattr(row, name) for name in names}
        raise ConfigurationError(
            "rows",
            f"row {number}: {type(row).__name__}",
            f"a row is a mapping, a {target.name}, a dataclass, a NamedTuple or a struct with named fields",
            "give each row as {name: value}",
        )

    return convert


def _field_names(row: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(row))
    found: Any = getattr(row, "_fields", None) or getattr(row, "__struct_fields__", ())
    return tuple(found)
