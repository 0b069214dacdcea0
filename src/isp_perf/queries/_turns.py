"""One batch at a time on a session, whoever of many tasks asks first, and whoever of them is cancelled.

Under asyncio several tasks may touch attributes of one session's objects at once. The first starts the batch as a task
of its own and everybody, itself included, waits for that task behind a shield: a cancelled caller leaves, the batch
goes on and the others get their values.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from sqlalchemy.orm import Session

from isp_perf.queries._compat import in_greenlet, spawned, wait_for

__all__ = ["in_turn", "plainly"]

_TURNS = "isp_perf.queries.turns"


class _Turns:
    """The batches that are running or waiting on one session."""

    __slots__ = ("lock", "tasks")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(self, work: Callable[[], None]) -> None:
        async with self.lock:
            await spawned(work)


def in_turn(session: Session, key: Hashable, work: Callable[[], None]) -> None:
    """Run ``work`` now; under asyncio once for all that ask for ``key`` at the same time, and after what is running.

    Raises:
        BaseException: whatever ``work`` raised, to every caller that waited for it.
    """
    if not in_greenlet():
        work()
        return
    turns: _Turns = session.info.setdefault(_TURNS, _Turns())
    task = turns.tasks.get(key)
    if task is None:
        task = turns.tasks[key] = asyncio.ensure_future(turns.run(work))
        task.add_done_callback(lambda done: _forget(turns, key, done))
    wait_for(asyncio.shield(task))


def plainly(execution: Any) -> Any:
    """Let a load go its plain way, after the batch that is running on its session.

    Returns:
        The result, or ``None`` where nothing runs and SQLAlchemy may simply go on.
    """
    turns: _Turns | None = execution.session.info.get(_TURNS)
    if turns is None or not turns.lock.locked() or not in_greenlet():
        return None
    results: list[Any] = []
    wait_for(turns.run(lambda: results.append(execution.invoke_statement())))
    return results[0]


def _forget(turns: _Turns, key: Hashable, task: asyncio.Task[Any]) -> None:
    turns.tasks.pop(key, None)
    if not task.cancelled():
        task.exception()  # seen, also when every caller has left
