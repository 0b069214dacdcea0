"""Index advice for every engine that is watched, for tools that have no session of their own."""

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from isp_perf.queries._advice import IndexAdvice, suggest_indexes
from isp_perf.queries._watch import WATCHES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["advise_watched"]

_ADVISED: Final = frozenset({"postgresql", "sqlite"})


async def advise_watched() -> list[IndexAdvice]:
    """Return what ``suggest_indexes`` says of each engine of this process that it can say something of."""
    engines: Iterable[Any] = [watch.engine for watch in list(WATCHES)]
    return [one for engine in engines if engine.dialect.name in _ADVISED for one in await _advise(engine)]


async def _advise(engine: Engine) -> list[IndexAdvice]:
    if not engine.dialect.is_async:
        with Session(engine) as session:
            return suggest_indexes(session)
    async with AsyncSession(AsyncEngine(engine)) as session:
        return await suggest_indexes(session)
