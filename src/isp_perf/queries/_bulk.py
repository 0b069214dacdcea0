"""Many rows at once: insert, upsert, update and delete in chunks, by the fastest right way of the database at hand."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from sqlalchemy.orm import Session, scoped_session

from isp_perf.errors import ConfigurationError
from isp_perf.queries._bulk_job import BulkResult, Job, Progress
from isp_perf.queries._bulk_rows import target_of_model
from isp_perf.queries._colours import run

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


__all__ = ["BulkResult", "bulk_delete", "bulk_insert", "bulk_update", "bulk_upsert"]

_CHUNK = 10_000


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


async def _awaited(session: Any, job: Job, chunks: AsyncIterator[list[Any]]) -> BulkResult:
    async for chunk in chunks:
        await session.run_sync(job.write, chunk)
    result: BulkResult = await session.run_sync(job.finish)
    return result


async def _async_chunks(rows: AsyncIterable[Any], size: int) -> AsyncIterator[list[Any]]:
    chunk: list[Any] = []
    async for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _size_of(chunk: Any) -> int:
    if chunk is None:
        return _CHUNK
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ConfigurationError("chunk", chunk, "a chunk is a whole number of rows >= 1", "leave it out")
    return chunk


def _start(job: Job, session: Any, rows: Any, *, chunk: int | None) -> Any:
    size = _size_of(chunk)
    job.total = len(rows) if hasattr(rows, "__len__") else None
    if hasattr(rows, "__aiter__"):
        if not hasattr(session, "run_sync"):
            rule = "an async iterable can only be awaited by an AsyncSession"
            raise ConfigurationError("rows", type(rows).__name__, rule, "pass a plain iterable, or an AsyncSession")
        return _awaited(session, job, _async_chunks(rows, size))

    def work(plain: Session) -> BulkResult:
        for some in _chunks(rows, size):
            job.write(plain, some)
        return job.finish()

    return run(session, work, name=f"bulk_{job.verb}")


class BulkFunction(Protocol):
    """What the ``bulk_*`` functions are: they return a result, or an awaitable of it for an ``AsyncSession``."""

    @overload
    def __call__(
        self,
        session: "Session | scoped_session[Any]",
        model: Any,
        rows: Iterable[Any],
        *,
        key: Any = None,
        chunk: int | None = None,
        returning: Any = None,
        progress: Progress | None = None,
    ) -> BulkResult: ...
    @overload
    def __call__(
        self,
        session: "AsyncSession",
        model: Any,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Any = None,
        chunk: int | None = None,
        returning: Any = None,
        progress: Progress | None = None,
    ) -> Awaitable[BulkResult]: ...


def _in_both_colours(function: Callable[..., Any]) -> BulkFunction:
    """Say of a function what type checkers cannot see: what it returns for which session."""
    return cast("BulkFunction", function)


@_in_both_colours
def bulk_insert(
    session: Any,
    model: Any,
    rows: Any,
    *,
    key: Any = None,
    chunk: int | None = None,
    returning: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Add many rows.

    Much faster than ``session.add_all``: COPY on PostgreSQL, one batch on SQLite. Python and SQL defaults apply, a None
    for a column with a default means "not given", as it does in a flush; types convert as they do there.

    Runs in the session's transaction, after a flush. Events of objects and cascades are not part of it.

    Args:
        session: a ``Session`` or ``AsyncSession``.
        model: a class mapped to one table.
        rows: mappings of attribute names, objects of the model, dataclasses, NamedTuples or structs; any iterable, read
            lazily, so that memory does not grow with it; an async one with an ``AsyncSession``.
        key: must be left out: an insert finds no rows.
        chunk: rows written at once; >= 1, default 10,000.
        returning: names or attributes to return of each row, in input order; default: none.
        progress: called after each chunk with the rows done and their number in all (``None`` if unknown).

    Returns:
        What was done; an awaitable of it for an ``AsyncSession``.

    Raises:
        ConfigurationError: a row names what is no column or lacks what it needs; the message has its number.
        DBAPIError: what the database says; a note on it tells among which rows.
    """
    job = Job("insert", target_of_model(model), key=key, returning=returning, progress=progress)
    return _start(job, session, rows, chunk=chunk)


@_in_both_colours
def bulk_upsert(
    session: Any,
    model: Any,
    rows: Any,
    *,
    key: Any = None,
    chunk: int | None = None,
    returning: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Add rows, or change those whose key is there.

    Changes what a row names, and what every change sets (``onupdate``). A key that comes twice in the rows counts once,
    and the last one wins. What a row does not name keeps its value, or gets its default in a new row.

    Runs in the session's transaction, after a flush; objects of these rows that the session holds are read again when
    they are touched. Events of objects, cascades and version counters are not part of it.

    ``key`` holds attributes with a unique constraint, by name; default: the primary key.
    ``session``, ``model``, ``rows``, ``chunk``, ``returning`` and ``progress``, the result and the errors are those of
    ``bulk_insert``.
    """
    job = Job("upsert", target_of_model(model), key=key, returning=returning, progress=progress)
    return _start(job, session, rows, chunk=chunk)


@_in_both_colours
def bulk_update(
    session: Any,
    model: Any,
    rows: Any,
    *,
    key: Any = None,
    chunk: int | None = None,
    returning: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Change many rows, found by their keys.

    Sets what each row names, and what every change sets (``onupdate``). A key that comes twice counts once, and the
    last one wins.

    Runs in the session's transaction, after a flush; objects of these rows that the session holds are read again when
    they are touched. Events of objects, cascades and version counters are not part of it.

    ``key`` holds attributes by which rows are found; default: the primary key.
    ``session``, ``model``, ``rows``, ``chunk``, ``returning`` and ``progress``, the result and the errors are those of
    ``bulk_insert``.
    """
    job = Job("update", target_of_model(model), key=key, returning=returning, progress=progress)
    return _start(job, session, rows, chunk=chunk)


@_in_both_colours
def bulk_delete(
    session: Any,
    model: Any,
    rows: Any,
    *,
    key: Any = None,
    chunk: int | None = None,
    returning: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Remove many rows, found by their keys.

    Only the attributes of the key are looked at.

    Runs in the session's transaction, after a flush; objects of these rows that the session holds are read again when
    they are touched. Events of objects, cascades and version counters are not part of it.

    ``key`` holds attributes by which rows are found; default: the primary key.
    ``session``, ``model``, ``rows``, ``chunk``, ``returning`` and ``progress``, the result and the errors are those of
    ``bulk_insert``.
    """
    job = Job("delete", target_of_model(model), key=key, returning=returning, progress=progress)
    return _start(job, session, rows, chunk=chunk)
