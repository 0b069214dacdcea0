"""Plain records: rows read straight into classes of the user's, without any ORM object."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from sqlalchemy import Dialect, Select
from sqlalchemy.orm import Session, scoped_session

from isp_perf._core.preload_plan import merge, nearest
from isp_perf.errors import ConfigurationError
from isp_perf.queries._colours import run
from isp_perf.queries._compat_rows import is_joinable, is_loading, options_on, statement_key
from isp_perf.queries._growth import Draft, Place, grow
from isp_perf.queries._kinds import Entity, is_select
from isp_perf.queries._levels import Level, Part, Plain, collector_paused
from isp_perf.queries._paths import Path, entity_of, resolve
from isp_perf.queries._shapes import fields_of, maker_of
from isp_perf.queries._statements import Prepared, Run

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["read_records"]

R = TypeVar("R")

_OF_ROWS = {"yield_per", "stream_results", "max_row_buffer"}
_MANY = 100  # rows from which on the collector is paused while records are made of them


@overload
def read_records(
    session: "Session | scoped_session[Any]", statement: Select[Any], *, into: Callable[..., R], preload: Any = ()
) -> list[R]: ...
@overload
def read_records(
    session: "AsyncSession", statement: Select[Any], *, into: Callable[..., R], preload: Any = ()
) -> Awaitable[list[R]]: ...
def read_records(
    session: "Session | scoped_session[Any] | AsyncSession",
    statement: Select[Any],
    *,
    into: Callable[..., R],
    preload: Path | Sequence[Path] = (),
) -> list[R] | Awaitable[list[R]]:
    """Read rows straight into records of your own class, at little more than the price of the driver.

    The statement selects one mapped class, or columns. Each field of the record is filled from the attribute or column
    of its name; a field for a relationship holds further records, of the class its annotation names. Values are those
    of ORM objects: types, decorators, ``with_loader_criteria`` and the order of relationships are honoured. No ORM
    object is made, so there is no identity map, no event per object, and nothing to change or lazy load.

    To-one paths that find at most one row are joined, every other path costs one statement for all rows of its level.
    Runs on the session's own connection, within its transaction, after a flush.

    Args:
        session: a ``Session`` or ``AsyncSession``.
        statement: ``select(Model)`` with any criteria, joins, order and limit; or ``select(column, ...)``.
        into: a dataclass, NamedTuple or msgspec.Struct, or any class whose constructor takes its fields.
        preload: relationships to read, as for ``preload``; each needs a field of its name. Relationship fields that
            are not read must have a default.

    Returns:
        A list of records in the order of the statement, repeats included; an awaitable of it for an ``AsyncSession``.
        Records of rows that several parents share may be shared as well.

    Raises:
        ConfigurationError: the statement selects something else, a path or field has no counterpart, or an annotation
            names no record class.
    """
    asked = _Asked(statement, into, _as_paths(preload))
    kept = None if asked.extracted is None else _kept_outline(asked)
    return run(session, lambda plain: _read(plain, asked, kept or _outline(asked)), name="read_records")


def _as_paths(preload: Any) -> tuple[Any, ...]:
    if isinstance(preload, tuple | list):
        return tuple(cast("list[Any]", preload))
    several = hasattr(preload, "__iter__") and not isinstance(preload, str)
    return tuple(preload) if several else (preload,)


def _source_of(statement: Any, paths: tuple[Any, ...]) -> Entity | None:
    """Return the one entity that a statement selects; ``None`` if it selects columns.

    Raises:
        ConfigurationError: it selects something else.
    """
    _refuse_loading(statement)
    described: list[Any] = statement.column_descriptions if is_select(statement) else []
    entities = list(filter(_is_whole, described))
    if described and not entities and not paths:
        return None
    if len(described) == len(entities) == 1:
        return entity_of(entities[0]["entity"])
    raise ConfigurationError(
        "statement",
        type(statement).__name__,
        "records are read from select() of one mapped class, or of columns without preload paths",
        "write select(Model), and name what belongs to it in preload",
    )


def _is_whole(column: Any) -> bool:
    """Whether what a statement selects is a mapped class, not a column of one."""
    return column["entity"] is not None and column["expr"] is column["entity"]


def _refuse_loading(statement: Any) -> None:
    if is_select(statement) and any(map(is_loading, options_on(statement))):
        raise ConfigurationError(
            "statement",
            "loader options",
            "records are no objects, so there is nothing for loader options to load",
            "name the paths in preload, and leave the options out",
        )


class _Asked:
    """A statement with what is made of it, equal to others that differ in values only."""

    __slots__ = ("_same", "extracted", "into", "paths", "statement")

    def __init__(self, statement: Any, into: Any, paths: tuple[Any, ...]) -> None:
        self.statement = statement
        self.into = into
        self.paths = paths
        key = statement_key(statement) if _is_bare(statement) else None
        self.extracted = None if key is None else key[1]
        self._same = (None if key is None else key[0], into, paths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._same == other._same

    def __hash__(self) -> int:
        return hash(self._same)


def _is_bare(statement: Any) -> bool:
    """Whether a statement is a SELECT without options and settings."""
    return is_select(statement) and not options_on(statement) and not statement.get_execution_options()


class _Recipe:
    """How one statement is read: the statement made of it, and the records made of its rows."""

    __slots__ = ("_level", "_root")

    def __init__(self, root: Prepared, level: Level) -> None:
        self._root = root
        self._level = level

    def records(self, run: Run) -> list[Any]:
        columns = self._root.columns(run)
        fetched = self._level.fetch(columns, run)
        if len(columns[0] if columns else ()) < _MANY:
            return list(self._level.records(columns, fetched))
        with collector_paused():
            return list(self._level.records(columns, fetched))


class _Outline:
    """What a statement selects, and how it is read in each dialect it was asked in."""

    __slots__ = ("recipes", "source")

    def __init__(self, source: Entity | None) -> None:
        self.source = source
        self.recipes: dict[Dialect, _Recipe] = {}


def _outline(asked: _Asked) -> _Outline:
    return _Outline(_source_of(asked.statement, asked.paths))


_kept_outline = lru_cache(maxsize=256)(_outline)


def _read(session: Session, asked: _Asked, outline: _Outline) -> list[Any]:
    source, recipes = outline.source, outline.recipes
    mapper = None if source is None else source.mapper
    reading = Run(session, asked.statement, mapper=mapper, extracted=asked.extracted)
    dialect = reading.connection.dialect
    if reading.extracted is None:
        return _recipe(asked, source, dialect).records(reading)
    recipe = recipes.get(dialect)
    if recipe is None:
        recipe = recipes[dialect] = _recipe(asked, source, dialect)
    return recipe.records(reading)


def _recipe(asked: _Asked, source: Entity | None, dialect: Dialect) -> _Recipe:
    if source is None:
        return _Recipe(Prepared(_unchanged), _level_of_columns(asked))
    settings = {k: v for k, v in asked.statement.get_execution_options().items() if k not in _OF_ROWS}
    draft = Draft(dialect, options_on(asked.statement), settings, joinable=is_joinable(asked.statement))
    level = grow(draft, Place(source, asked.into), merge(resolve(source, path) for path in asked.paths))
    return _Recipe(Prepared(draft.applied), level)


def _unchanged(statement: Any) -> Any:
    return statement


def _level_of_columns(asked: _Asked) -> Level:
    places = {column["name"]: place for place, column in enumerate(asked.statement.column_descriptions)}
    names: list[str] = []
    for field in fields_of(asked.into):
        if field.name in places:
            names.append(field.name)
        elif not field.optional:
            close = nearest(field.name, places)
            fix = f"did you mean {close!r}?" if close else f"select it, or label a column {field.name!r}"
            rule = "a field without a default is filled from the column of its name"
            raise ConfigurationError("into", f"{asked.into.__name__}.{field.name}", rule, fix)
    parts: list[Part] = [Plain(places[name]) for name in names]
    return Level(maker_of(asked.into, tuple(names)), parts)
