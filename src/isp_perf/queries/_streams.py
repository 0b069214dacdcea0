"""Many objects in windows: a result of any size, with its relationships, in the memory of one window."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy import Select
from sqlalchemy.orm import Session, scoped_session

from isp_perf.errors import ConfigurationError
from isp_perf.queries._kinds import is_select
from isp_perf.queries._paths import Path
from isp_perf.queries._plan import preload as planned

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["stream"]

T = TypeVar("T")


@overload
def stream(
    session: "Session | scoped_session[Any]",
    statement: Select[tuple[T]],
    *,
    window: int = 1000,
    preload: Sequence[Path] = (),
) -> Iterator[list[T]]: ...
@overload
def stream(
    session: "AsyncSession", statement: Select[tuple[T]], *, window: int = 1000, preload: Sequence[Path] = ()
) -> AsyncIterator[list[T]]: ...
def stream(
    session: "Session | scoped_session[Any] | AsyncSession",
    statement: Select[tuple[T]],
    *,
    window: int = 1000,
    preload: Sequence[Path] = (),
) -> Iterator[list[T]] | AsyncIterator[list[T]]:
    """Read the objects of a statement window by window, each with what is preloaded, through a server-side cursor.

    Memory holds one window as long as you keep no object of the others; a forgotten relationship is loaded for the
    window that is alive. The cursor belongs to the session's transaction: a commit between two windows ends it.

    Args:
        session: a ``Session`` or ``AsyncSession``.
        statement: ``select(Model)``.
        window: objects read at once; >= 1, default 1,000.
        preload: relationships to bring along, as for ``preload``.

    Returns:
        An iterator of lists; an async iterator for an ``AsyncSession``.

    Raises:
        ConfigurationError: the statement selects no mapped class, a path is wrong, or the window is below 1.
    """
    _refuse_window(window)
    described: list[Any] = statement.column_descriptions if is_select(statement) else []
    if len(described) != 1 or described[0]["entity"] is None:
        rule, fix = "a stream is made of select() of one mapped class", "write select(Model)"
        raise ConfigurationError("statement", type(statement).__name__, rule, fix)
    paths = (preload,) if isinstance(preload, str) else preload
    prepared = statement.options(*planned(described[0]["entity"], *paths)) if paths else statement
    prepared = prepared.execution_options(yield_per=window)
    if isinstance(session, Session | scoped_session):
        return _windows(session, prepared)
    return _async_windows(session, prepared)


def _refuse_window(window: object) -> None:
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ConfigurationError("window", window, "a window is a whole number of objects >= 1", "leave it out")


def _windows(session: Any, statement: Any) -> Iterator[list[Any]]:
    with session.scalars(statement) as result:
        for part in result.partitions():
            yield list(part)


async def _async_windows(session: Any, statement: Any) -> AsyncIterator[list[Any]]:
    result = await session.stream_scalars(statement)
    try:
        async for part in result.partitions():
            yield list(part)
    finally:
        await result.close()
