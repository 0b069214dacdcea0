"""One implementation for both colours: work is written against ``Session``, an ``AsyncSession`` runs it aside."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.orm import Session, scoped_session

from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["run"]

T = TypeVar("T")


def run(
    session: "Session | scoped_session[Any] | AsyncSession", work: Callable[[Session], T], *, name: str
) -> T | Awaitable[T]:
    """Run ``work`` on the plain session behind ``session``.

    Returns:
        What ``work`` returns for a ``Session``; an awaitable of it for an ``AsyncSession``.

    Raises:
        ConfigurationError: ``session`` is neither; ``name`` is the function the user called.
    """
    if isinstance(session, Session):
        return work(session)
    if isinstance(session, scoped_session):
        return work(session())
    run_sync = getattr(session, "run_sync", None)
    if run_sync is None or not isinstance(getattr(session, "sync_session", None), Session):
        raise ConfigurationError(
            "session",
            type(session).__name__,
            f"{name} works on a SQLAlchemy Session or AsyncSession",
            "pass the session itself, not its factory or engine",
        )
    answer: Awaitable[T] = run_sync(work)
    return answer
