"""Work that goes on without its caller: refreshes of stale values, loads that outlived a timeout."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

from isp_perf._runtime.drive import adrive, drive

__all__ = ["Background", "end"]


async def end(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and wait until it has ended; an error of its own is raised.

    Awaiting the task itself, one would take a cancellation of the caller for that of the task, and swallow it.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


class Background:
    """Starts flows in tasks or threads of their own and keeps them until they end."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(
        self, flow: Generator[Callable[[], Any], Any, Any], context: Context, *, tasks: bool
    ) -> asyncio.Task[Any] | None:
        """Run ``flow`` in a copy of ``context``.

        Args:
            flow: what to run; it handles its errors itself.
            context: the context to run in, not that of a request.
            tasks: in a task of the running loop, which is returned; otherwise in a daemon thread.
        """
        if not tasks:
            threading.Thread(target=context.copy().run, args=(drive, flow), name="isp_perf load", daemon=True).start()
            return None
        task = asyncio.get_running_loop().create_task(adrive(flow), context=context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task
