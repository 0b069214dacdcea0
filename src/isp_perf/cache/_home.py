"""The home of a manager's channel: the event loop, or the thread, on which it hears of changes and stays alive."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from isp_perf._runtime.drive import adrive, drive
from isp_perf._runtime.flights import running_loop
from isp_perf.typing import BlockingChannel, Channel

__all__ = ["Home"]

Upkeep = Generator[Callable[[], Any], Any, None]


class Home:
    """Where one channel lives.

    Args:
        channel: made for the running loop, or for threads.
        tasks: whether it belongs to the running loop.
    """

    __slots__ = ("_pid", "_task", "_thread", "channel", "closed", "loop")

    channel: Channel | BlockingChannel
    closed: bool
    loop: asyncio.AbstractEventLoop | None

    def __init__(self, channel: Channel | BlockingChannel, *, tasks: bool) -> None:
        self.channel = channel
        self.closed = False
        self.loop = asyncio.get_running_loop() if tasks else None
        self._pid = os.getpid()
        self._task: asyncio.Task[Any] | None = None
        self._thread: threading.Thread | None = None

    def start(self, upkeep: Upkeep) -> None:
        """Run ``upkeep`` beside the callers until it ends."""
        if self.loop is None:
            self._thread = threading.Thread(target=drive, args=(upkeep,), name="isp_perf channel", daemon=True)
            self._thread.start()
        else:
            self._task = self.loop.create_task(adrive(upkeep))

    @property
    def forked(self) -> bool:
        """Whether it belongs to the parent of this process."""
        return self._pid != os.getpid()

    @property
    def gone(self) -> bool:
        """Whether nothing can be heard here any more."""
        ended = self.closed or self.forked or self.channel.closed
        return ended or (self.loop is not None and self.loop.is_closed())

    def serves(self, *, tasks: bool) -> bool:
        """Return whether the running task or thread may use the channel itself."""
        return self.loop is None if not tasks else self.loop is not None and running_loop() is self.loop

    def pause(self, seconds: float) -> Any:
        """Wait, as a step of the upkeep."""
        return time.sleep(seconds) if self.loop is None else asyncio.sleep(seconds)

    def close(self) -> None:
        """End the channel and its upkeep."""
        self.closed = True
        if self.forked:
            return
        if self._task is not None and self.loop is not None and not self.loop.is_closed():
            self._task.cancel()
        self.channel.close()
