"""How a statement is asked for the rows of many keys, with one text whatever their number."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Integer, String, any_, bindparam, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

__all__ = ["Keys", "asked_for"]

_NAME = "isp_perf_keys"
_ALL_AT_ONCE = 1_000_000
_LISTED = 500


@dataclass(frozen=True, slots=True)
class Keys:
    """A condition on columns, and how keys are given to it.

    Args:
        condition: the condition.
        encode: turns a list of keys into the value of its parameter.
        chunk: how many keys it takes at once.
        name: name of the parameter.
    """

    condition: Any
    encode: Callable[[list[Any]], Any]
    chunk: int = _ALL_AT_ONCE
    name: str = _NAME


def asked_for(columns: Sequence[Any], dialect: Dialect) -> Keys:
    """Return the condition that ``columns`` hold one of many keys, in the form that suits the database.

    One array on PostgreSQL (as text for psycopg, which is slow with lists), one JSON text on SQLite for whole numbers,
    and a list of parameters everywhere else.
    """
    if len(columns) > 1:
        return Keys(tuple_(*columns).in_(bindparam(_NAME, expanding=True)), list, _LISTED)
    (column,) = columns
    whole = isinstance(column.type, Integer)
    if dialect.name == "postgresql":
        kind: Any = ARRAY(column.type)
        if whole and dialect.driver.startswith("psycopg"):
            return Keys(column == any_(cast(bindparam(_NAME, type_=String()), kind)), _as_array_text)
        return Keys(column == any_(bindparam(_NAME, type_=kind)), list)
    if whole and dialect.name == "sqlite":
        values = func.json_each(bindparam(_NAME, type_=String())).table_valued("value")
        return Keys(column.in_(select(values.c.value)), json.dumps)
    return Keys(column.in_(bindparam(_NAME, expanding=True)), list, _LISTED)


def _as_array_text(keys: list[Any]) -> str:
    return f"{{{','.join(map(str, keys))}}}"
