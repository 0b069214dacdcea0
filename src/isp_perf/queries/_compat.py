"""Every name of SQLAlchemy that its documentation does not promise, in one place.

The rest of the package goes through the functions below, so that a new SQLAlchemy is judged by reading one file.
"""

from inspect import signature
from operator import methodcaller
from typing import Any

from sqlalchemy.inspection import inspect
from sqlalchemy.orm import QueryableAttribute, selectinload

__all__ = ["CHUNKS", "SELECTIN_KEYS", "adapted", "criteria_of", "narrowed_to"]

SELECTIN_KEYS = "primary_keys"
"""Name of the bound parameter in which a select-in load carries the keys of its parents."""

CHUNKS: dict[str, int] = {"chunksize": 1000} if "chunksize" in signature(selectinload).parameters else {}
"""How many parents one select-in load covers: SQLAlchemy 2.1 can be told, 2.0 stays at its own 500."""


def narrowed_to(attribute: QueryableAttribute[Any]) -> Any | None:
    """Return what ``attribute.of_type(...)`` was given, inspected; ``None`` for a plain attribute."""
    return getattr(attribute, "_of_type", None)


def criteria_of(attribute: QueryableAttribute[Any]) -> tuple[Any, ...]:
    """Return the criteria that ``attribute.and_(...)`` added."""
    return tuple(getattr(attribute, "_extra_criteria", ()))


def adapted(alias: Any, element: Any) -> Any:
    """Return a column expression of a mapped class, rewritten to speak of ``alias`` of that class."""
    return methodcaller("_adapt_element", element)(inspect(alias))
