"""Every name of SQLAlchemy that its documentation does not promise, in one place.

The rest of the package goes through the functions below, so that a new SQLAlchemy is judged by reading one file.
"""

from dataclasses import dataclass
from inspect import signature
from itertools import count
from operator import attrgetter, methodcaller
from typing import Any

from sqlalchemy.inspection import inspect
from sqlalchemy.orm import QueryableAttribute, selectinload

__all__ = [
    "CHUNKS",
    "SELECTIN_KEYS",
    "Origin",
    "adapted",
    "criteria_of",
    "go_first",
    "handshake",
    "is_part",
    "lazy_loader",
    "narrowed_to",
    "origin_of",
    "owner_of",
]

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


# ---- what an executing statement came from ---------------------------------------------------------------------------

_LOAD_OPTIONS = "_sa_orm_load_options"
_OWNER = "isp_perf_owner"
_numbers = count(1)
_loaded_from = attrgetter("_lazy_loaded_from")
_refreshed = attrgetter("_refresh_state")
_autobegin = attrgetter("_allow_autobegin")
_expanded = attrgetter("_expanded_parameters")
_path = attrgetter("_compile_options._current_path")
_only = attrgetter("_compile_options._only_load_props")


@dataclass(frozen=True, slots=True)
class Origin:
    """The object and attributes that an ORM statement was sent for.

    Args:
        state: state of the object.
        path: the way to the relationship from the root of the statement that loaded the object: mappers and
            relationships in turn; empty for columns.
        columns: the columns that are loaded; empty for a relationship.
    """

    state: Any
    path: tuple[Any, ...]
    columns: frozenset[str]


def go_first(dialect: Any, name: str, hook: Any) -> None:
    """Put a dialect event's listener before those of others; ``event.listen(insert=True)`` is ignored for dialects."""
    listeners = getattr(dialect.dispatch, name).listeners
    listeners.remove(hook)
    listeners.appendleft(hook)


def handshake(context: Any) -> bool:
    """Whether the statement belongs to the first connect of an engine, where the dialect asks for versions."""
    return not _autobegin(context.root_connection)


def lazy_loader(context: Any) -> Any | None:
    """Return the state of the object whose attribute is being loaded; ``None`` for any other statement."""
    options = context.execution_options.get(_LOAD_OPTIONS)
    if options is None:
        return None
    return _loaded_from(options) or _refreshed(options)


def origin_of(context: Any, state: Any) -> Origin:
    """Return what the statement that ``lazy_loader`` recognised is loading."""
    statement = context.invoked_statement
    options = context.execution_options[_LOAD_OPTIONS]
    if _loaded_from(options) is not None:
        return Origin(state, tuple(_path(statement).path), frozenset())
    return Origin(state, (), frozenset(_only(statement) or ()))


def is_part(context: Any) -> bool:
    """Whether the statement is one part of a larger whole: a select-in load, a batch of rows, a chunk or page."""
    options = context.execution_options
    if "sa_top_level_orm_context" in options or "isp_part" in options or context.executemany:
        return True
    if any(len(names) > 1 for names in _expanded(context).values()):
        return True
    return getattr(context.invoked_statement, "_offset_clause", None) is not None


def owner_of(context: Any) -> int:
    """Return a number that the statements of one transaction share, and no later connection gets again."""
    root: Any = context.root_connection
    connection: dict[str, Any] = root.__dict__
    number: int | None = connection.get(_OWNER)
    if number is None:
        number = connection[_OWNER] = next(_numbers)
    return number
