"""Every name of SQLAlchemy that its documentation does not promise, in one place.

The rest of the package goes through the functions below, so that a new SQLAlchemy is judged by reading one file.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from itertools import chain, count
from operator import attrgetter, methodcaller
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import QueryableAttribute, UserDefinedOption, context, selectinload, strategies
from sqlalchemy.util import concurrency

__all__ = [
    "CHUNKS",
    "PEER_MARK",
    "SELECTIN_KEYS",
    "LoaderContext",
    "Origin",
    "PeerMark",
    "adapted",
    "autoflush",
    "can_batch",
    "criteria_of",
    "eager_paths",
    "flushes",
    "go_first",
    "handshake",
    "has_pending",
    "in_greenlet",
    "is_flushing",
    "is_part",
    "is_post_load",
    "lazy_loader",
    "load_relationship",
    "marked",
    "narrowed_to",
    "origin_of",
    "owner_of",
    "refresh_only",
    "refreshing",
    "result_of",
    "spawned",
    "target_keys",
    "uses_identity",
    "wait_for",
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
_OF_LOADERS = {"sa_top_level_orm_context", _LOAD_OPTIONS, "isp_part"}
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


def handshake(running: Any) -> bool:
    """Whether the statement belongs to the first connect of an engine, where the dialect asks for versions."""
    return not _autobegin(running.root_connection)


def lazy_loader(running: Any) -> Any | None:
    """Return the state of the object whose attribute is being loaded; ``None`` for any other statement."""
    options = running.execution_options.get(_LOAD_OPTIONS)
    if options is None:
        return None
    return _loaded_from(options) or _refreshed(options)


def origin_of(running: Any, state: Any) -> Origin:
    """Return what the statement that ``lazy_loader`` recognised is loading."""
    statement = running.invoked_statement
    options = running.execution_options[_LOAD_OPTIONS]
    if _loaded_from(options) is not None:
        return Origin(state, tuple(_path(statement).path), frozenset())
    return Origin(state, (), frozenset(_only(statement) or ()))


def is_part(running: Any) -> bool:
    """Whether the statement is one part of a larger whole: a select-in load, a batch of rows, a chunk or page."""
    options = running.execution_options
    if "sa_top_level_orm_context" in options or "isp_part" in options or running.executemany:
        return True
    if any(len(names) > 1 for names in _expanded(running).values()):
        return True
    return getattr(running.invoked_statement, "_offset_clause", None) is not None


_EAGER = {"joined", "selectin", "subquery", "immediate"}


def eager_paths(running: Any) -> Iterator[tuple[str, tuple[str, ...], Any, str]]:
    """Yield what the options of a user's statement load along.

    Returns:
        Name of the class the path begins at, the names on it, the relationship it ends with, and the strategy; nothing
        for statements that loaders send.
    """
    statement: Any = running.invoked_statement
    given: Any = getattr(statement, "_with_options", ())
    if given and running.execution_options.keys().isdisjoint(_OF_LOADERS):
        subject: Any = getattr(statement, "_propagate_attrs", {}).get("plugin_subject")
        for element in chain.from_iterable(getattr(option, "context", ()) for option in given):
            strategy = _eager_strategy(element)
            path: list[Any] = list(element.path.path)
            if strategy in _EAGER and path[0] is subject:
                names = tuple(each.key for each in path[1::2])
                yield subject.mapper.class_.__name__, names, path[1::2][-1], strategy


def _eager_strategy(element: Any) -> str:
    """Return how a loader option loads a relationship; empty if the query itself joins it."""
    how: dict[str, Any] = dict(element.strategy or ())
    return "" if "eager_from_alias" in element.local_opts else str(how.get("lazy"))


def owner_of(running: Any) -> int:
    """Return a number that the statements of one transaction share, and no later connection gets again."""
    root: Any = running.root_connection
    connection: dict[str, Any] = root.__dict__
    number: int | None = connection.get(_OWNER)
    if number is None:
        number = connection[_OWNER] = next(_numbers)
    return number


# ---- loading one attribute for many objects -------------------------------------------------------------------------


class PeerMark(UserDefinedOption):
    """An option without meaning of its own: every object of one execution gets the same tuple of options with it in.

    That tuple is made anew for each execution, and its identity is what makes objects peers.
    """

    __slots__ = ()
    propagate_to_loaders = True
    _is_user_defined = False  # listeners that look through the user's options are not to meet it

    def __init__(self) -> None:
        super().__init__(None)

    def __reduce__(self) -> str:
        """Pickle by name: objects carry the mark, and there is only one."""
        return "PEER_MARK"


PEER_MARK: Any = PeerMark()


def marked(statement: Any) -> Any:
    """Put the mark on a statement and return it.

    The statement itself is marked, not a copy: a copy for each execution costs more than the rest of the hook, and the
    mark means nothing, is no part of the statement's cache key, and is put on once.
    """
    options = getattr(statement, "_with_options", None)
    if options is None:
        return statement.options(PEER_MARK)
    if PEER_MARK not in options:
        vars(statement)["_with_options"] = (*options, PEER_MARK)
    return statement


_LOADER_PARAMETERS = [
    "self",
    "context",
    "path",
    "states",
    "load_only",
    "effective_entity",
    "loadopt",
    "recursion_depth",
    "execution_options",
]
_STATE = "_ORMCompileState" if hasattr(context, "_ORMCompileState") else "ORMCompileState"  # 2.1, 2.0
_SELECTIN = (("lazy", "selectin"),)
_LAZY = (("lazy", "select"),)
_MOST_KEYS = 5000
_pending = attrgetter("_pending_mutations")
_options_of = attrgetter("_with_options")
_flushing = attrgetter("_flushing")
_state_strategy = methodcaller("_get_strategy", _SELECTIN)
_lazy_strategy = methodcaller("_get_strategy", _LAZY)


def can_batch() -> bool:
    """Whether this SQLAlchemy has the loader that batches are run by, in the shape they know."""
    loader = getattr(strategies, "_SelectInLoader", None) or getattr(strategies, "SelectInLoader", None)
    method = getattr(loader, "_load_for_path", None)
    return hasattr(context, _STATE) and method is not None and list(signature(method).parameters) == _LOADER_PARAMETERS


@dataclass(frozen=True, slots=True)
class LoaderContext:
    """As much of a running query as the select-in loader asks for."""

    session: Any
    options: tuple[Any, ...]
    populate_existing: bool = False

    def __getattr__(self, name: str) -> Any:
        """Answer for the one private method the loader calls."""
        if name == "_loader_strategy_options":
            return lambda: self.options
        raise AttributeError(name)


def load_relationship(execution: Any, relation: Any, states: list[Any]) -> None:
    """Load ``relation`` for all ``states``, by SQLAlchemy's own select-in loader."""
    strategy = _state_strategy(relation)
    loader = LoaderContext(execution.session, tuple(_options_of(execution.statement)))
    settings = SimpleNamespace(local_opts={"chunksize": _MOST_KEYS}, _extra_criteria=())
    loads = [(state, False) for state in states]
    path, entity = states[0].load_path, relation.entity
    options = {"isp_part": True, "autoflush": False}
    methodcaller("_load_for_path", loader, path, loads, None, entity, settings, None, options)(strategy)


def uses_identity(relation: Any) -> bool:
    """Whether ``relation`` finds its target by primary key, so that the identity map may already have it."""
    return bool(_lazy_strategy(relation).use_get)


def target_keys(relation: Any, state: Any) -> tuple[Any, ...] | None:
    """Return the primary key of a to-one's target as far as it is loaded; ``None`` if it is not, or is NULL."""
    columns = attrgetter("_equated_columns")(_lazy_strategy(relation))
    mapper = state.manager.mapper
    key: list[Any] = []
    for column in relation.mapper.primary_key:
        name = mapper.get_property_by_column(columns[column]).key
        if state.dict.get(name) is None:
            return None
        key.append(state.dict[name])
    return tuple(key)


def has_pending(state: Any, key: str) -> bool:
    """Whether objects were appended to, or removed from, a list that is not loaded."""
    return key in _pending(state)


def is_post_load(execution: Any) -> bool:
    """Whether a load is a step of an eager strategy, which carries options of its query that a batch would lose."""
    return "sa_top_level_orm_context" in execution.execution_options


def is_flushing(session: Any) -> bool:
    """Whether the session is writing right now."""
    return bool(_flushing(session))


def autoflush(session: Any) -> None:
    """Flush, if the session flushes by itself."""
    methodcaller("_autoflush")(session)


def refreshing(execution: Any) -> tuple[Any, frozenset[str]] | None:
    """Return state and attribute names of a load of expired or deferred columns; ``None`` for anything else."""
    options = execution.load_options
    state = _refreshed(options)
    names = _only(execution.statement)
    if state is None or not names or attrgetter("_is_user_refresh")(options):
        return None
    return state, frozenset(names)


def refresh_only(statement: Any, names: frozenset[str] | set[str]) -> Any:
    """Return a query that fills ``names`` of objects where they are missing, as SQLAlchemy refreshes one object."""
    defaults: Any = attrgetter(_STATE)(context).default_compile_options
    copy: Any = statement.options()
    vars(copy)["_compile_options"] = defaults + {"_only_load_props": frozenset(names), "_for_refresh_state": True}
    return copy


def flushes(execution: Any) -> bool:
    """Whether a load may flush first."""
    wish = execution.execution_options.get("autoflush", True)
    own = attrgetter("_execution_options")(execution.statement).get("autoflush", True)
    return bool(wish and own and attrgetter("_autoflush")(execution.load_options))


def _by_identity(*_: Any) -> list[Any]:
    """Tell objects apart as the ORM does: by identity, whatever their __eq__ says."""
    return [id]


_NEWER = "_create_unique_filters" in signature(SimpleResultMetaData).parameters  # than SQLAlchemy 2.0
_UNIQUE: dict[str, Any] = {"_create_unique_filters": _by_identity} if _NEWER else {"_unique_filters": [id]}


def result_of(objects: Any) -> Any:
    """Return objects as the result of a statement."""
    metadata = SimpleResultMetaData(["object"], **_UNIQUE)
    return cast("Any", IteratorResult(metadata, ((item,) for item in objects)))


_names: Any = concurrency  # SQLAlchemy 2.0 calls one of them otherwise, and has none without greenlet
_in_greenlet: Callable[[], Any] = getattr(_names, "in_greenlet", bool)
_await: Any = getattr(_names, "await_", None) or getattr(_names, "await_only", None)


def in_greenlet() -> bool:
    """Whether this code runs in a greenlet of SQLAlchemy's asyncio layer."""
    return bool(_in_greenlet())


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait, within such a greenlet, for something of the event loop."""
    return _await(awaitable)


async def spawned(work: Callable[[], None]) -> None:
    """Run plain code in such a greenlet."""
    await concurrency.greenlet_spawn(work)
