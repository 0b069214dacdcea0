"""Declares indexes over several columns on a mapped class."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Index, Table
from sqlalchemy.inspection import inspect

from isp_perf.errors import ConfigurationError
from isp_perf.queries._facts import order_of

__all__ = ["composite_index"]

_LONGEST_NAME = 63


def composite_index(model: Any, *columns: Any, where: Any = None) -> Index:
    """Declare an index over several columns on the table of a mapped class, and return it.

    Equalities come first, then the range or the order of the list. ``create_all`` and Alembic's autogenerate see it;
    nothing is created here.

    Args:
        model: a mapped class.
        columns: names of attributes, attributes, or attributes with ``.desc()``; two or more, or one with ``where``.
        where: a condition that the indexed rows meet (a partial index, on PostgreSQL and SQLite); default: all rows.

    Raises:
        ConfigurationError: a name that is no column, too few columns, or an index that begins with the same columns.
    """
    mapper = inspect(model)
    table = mapper.local_table
    expressions = [_expression(mapper, each) for each in columns]
    if not isinstance(table, Table) or len(columns) < 1 + (where is None):
        rule = "a composite index has two or more columns of one table"
        raise ConfigurationError("columns", len(columns), rule, "use mapped_column(index=True) for one column")
    if where is None:
        _refuse_double(cast("Table", table), expressions)
    names = "_".join(order_of(each)[0].name for each in expressions)
    name = f"ix_{table.name}_{names}"[: _LONGEST_NAME - 5] + ("" if where is None else "_part")
    options = {} if where is None else {"postgresql_where": where, "sqlite_where": where}
    return Index(name, *expressions, **options)


def _refuse_double(table: Table, expressions: Sequence[Any]) -> None:
    """Raise ``ConfigurationError`` if an index of the table begins with the same columns."""
    wanted = [str(each) for each in expressions]
    for index in table.indexes:
        if [str(each) for each in index.expressions][: len(wanted)] == wanted:
            raise ConfigurationError("columns", index.name, "this index begins with the same columns", "drop this one")


def _expression(mapper: Any, column: Any) -> Any:
    """Return a column of the table, or its descending order."""
    attribute = column if not isinstance(column, str) else mapper.column_attrs.get(column)
    if attribute is None:
        raise ConfigurationError("columns", column, f"{mapper.class_.__name__} has no such column", "name an attribute")
    if isinstance(column, str):
        return attribute.columns[0]
    expression = attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else attribute
    plain, descending, _ = order_of(expression)
    found = mapper.local_table.c.get(getattr(plain, "key", None))
    if found is None:
        raise ConfigurationError("columns", str(plain), "it is no column of the table", "name an attribute")
    return found.desc() if descending else found
