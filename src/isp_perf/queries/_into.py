"""Preloading onto objects that are already there."""

from collections import defaultdict
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import select
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import InstanceState, Mapper, Session, load_only, scoped_session

from isp_perf.errors import ConfigurationError
from isp_perf.queries._colours import run
from isp_perf.queries._facts import among
from isp_perf.queries._kinds import is_state
from isp_perf.queries._paths import Path
from isp_perf.queries._plan import preload

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["preload_into"]

_CHUNK = 1000


@overload
def preload_into(session: "Session | scoped_session[Any]", objects: Iterable[Any], *paths: Path) -> None: ...
@overload
def preload_into(session: "AsyncSession", objects: Iterable[Any], *paths: Path) -> Awaitable[None]: ...
def preload_into(
    session: "Session | scoped_session[Any] | AsyncSession", objects: Iterable[Any], *paths: Path
) -> Awaitable[None] | None:
    """Load relationships onto objects that the session already holds.

    Attributes that are loaded, changed or appended to keep what they have; only what is missing is filled in. Costs
    one statement for the objects themselves (their keys only; joined paths come with it) and one for each further
    path, for each 1,000 objects. Objects of several classes are loaded class by class.

    Args:
        session: the ``Session`` or ``AsyncSession`` that the objects belong to.
        objects: any iterable of persistent objects; repeats do not matter, an empty one costs nothing.
        paths: as for ``preload``, checked against the class of the objects before any statement is sent.

    Returns:
        Nothing for a ``Session``; an awaitable for an ``AsyncSession``.

    Raises:
        ConfigurationError: an object is not persistent in this session, or a path is wrong.
    """
    found = list(objects)
    return run(session, lambda plain: _load(plain, found, paths), name="preload_into")


def _load(session: Session, objects: list[Any], paths: tuple[Path, ...]) -> None:
    by_mapper: dict[Mapper[Any], list[Any]] = defaultdict(list)
    for state in dict.fromkeys(_state(session, item) for item in objects):
        by_mapper[state.mapper].append(state.identity)
    plans = [(mapper, keys, preload(mapper.class_, *paths)) for mapper, keys in by_mapper.items()]
    for mapper, keys, options in plans if paths else ():
        names = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
        statement = select(mapper.class_).options(load_only(*names), *options)
        for start in range(0, len(keys), _CHUNK):
            session.scalars(statement.where(among(names, keys[start : start + _CHUNK]))).all()


def _state(session: Session, item: Any) -> InstanceState[Any]:
    state = inspect(item, raiseerr=False)
    if is_state(state) and state.persistent and state.session is session:
        return state
    raise ConfigurationError(
        "objects",
        type(item).__name__,
        "each object must be persistent in the session it is preloaded in",
        "load it, merge it or flush it in this session first",
    )
