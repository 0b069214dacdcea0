"""Bulkhead: no more than so many calls at a time, with a queue that has a limit."""

import threading
from asyncio import Future, get_running_loop
from asyncio import timeout as atimeout
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from isp_perf._core.ranges import Seconds, seconds, whole
from isp_perf.breaker._wrapping import FREE_THREADED, Site, build, indented
from isp_perf.errors import BulkheadFullError

__all__ = ["Bulkhead", "bulkhead"]

F = TypeVar("F", bound=Callable[..., Any])

_serial = count(1)


class Place:
    """A caller in the queue: of a thread, or of a task and its loop."""

    __slots__ = ("given", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.given = False
        self.wake = wake


class Bulkhead:
    """The strategy that ``bulkhead`` returns, with its ``limit``, ``wait`` (seconds) and ``name``.

    One may serve threads and several loops at a time. A place that becomes free is handed to the first in the queue,
    never to a caller who came later.
    """

    __slots__ = ("free", "limit", "lock", "name", "queue", "rejected", "wait")

    free: int
    limit: int
    lock: threading.Lock
    name: str
    rejected: int
    wait: float

    def __init__(self, limit: int, wait: float, name: str) -> None:
        self.limit = self.free = limit
        self.wait = wait
        self.name = name
        self.rejected = 0
        self.queue: deque[Place] = deque()
        self.lock = threading.Lock()

    def __call__(self, function: F, /) -> F:
        """Decorate ``function`` with this strategy alone."""
        return build(function, (self,))

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        held = site.bind("bulkhead", self)
        enter = f"await {held}.aenter()" if site.asynchronous else f"{held}.enter()"
        if FREE_THREADED:
            return [
                f"if not {held}.take():",
                f"    {enter}",
                "try:",
                *indented(inner),
                "finally:",
                f"    {held}.leave()",
            ]
        # Under the GIL a thread never stops between the test and the change, so that neither needs the lock.
        return [
            f"if {held}.free > 0:",
            f"    {held}.free -= 1",
            "else:",
            f"    {enter}",
            "try:",
            *indented(inner),
            "finally:",
            f"    if {held}.queue:",
            f"        {held}.leave()",
            "    else:",
            f"        {held}.free += 1",
        ]

    def take(self) -> bool:
        """Take a free place, if there is one and nobody waits for it."""
        with self.lock:
            if self.free <= 0:
                return False
            self.free -= 1
            return True

    def leave(self) -> None:
        """Give the place to the first in the queue, or free it."""
        with self.lock:
            if not self.queue:
                self.free += 1
                return
            place = self.queue.popleft()
            place.given = True
        with suppress(RuntimeError):  # the waiter's loop is closed: its place is found in ``_stop_waiting``
            place.wake()

    def enter(self) -> None:
        """Wait for a place in a thread; raise ``BulkheadFullError`` after the wait limit."""
        woken = threading.Event()
        place = self._queue(woken.set)
        if place is None:
            return
        woken.wait(self.wait)
        if not self._stop_waiting(place):
            self._reject()

    async def aenter(self) -> None:
        """Wait for a place in a task; raise ``BulkheadFullError`` after the wait limit."""
        loop = get_running_loop()
        woken: Future[None] = loop.create_future()
        place = self._queue(lambda: loop.call_soon_threadsafe(_finish, woken))
        if place is None:
            return
        try:
            async with atimeout(self.wait):
                await woken
        except TimeoutError:
            pass
        except BaseException:
            # Cancelled while waiting: a place that was given in the meantime is passed on, never lost.
            if self._stop_waiting(place):
                self.leave()
            raise
        if not self._stop_waiting(place):
            self._reject()

    def _queue(self, wake: Callable[[], object]) -> Place | None:
        """Join the queue; ``None``: a place has become free just now and is taken."""
        with self.lock:
            if self.free > 0:
                self.free -= 1
                return None
            if not self.wait:
                self.rejected += 1
                raise BulkheadFullError(self.name, None)
            place = Place(wake)
            self.queue.append(place)
            if self.free <= 0:
                return place
            # A place became free after the first look and before the queue was seen.
            self.free -= 1
            self.queue.remove(place)
            return None

    def _stop_waiting(self, place: Place) -> bool:
        """Leave the queue; true if a place was given."""
        with self.lock:
            if not place.given:
                self.queue.remove(place)
            return place.given

    def _reject(self) -> None:
        self.rejected += 1
        raise BulkheadFullError(self.name, self.wait)


def _finish(woken: "Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)


def bulkhead(limit: int, wait: Seconds = 0, *, name: str | None = None) -> Bulkhead:
    """Make at most ``limit`` calls at a time; further ones wait up to ``wait`` seconds and are then rejected.

    Args:
        limit: calls at a time; >= 1.
        wait: seconds to wait for a place, first come, first served; >= 0, default 0: reject at once.
        name: for errors; default ``bulkhead-<n>``.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    whole("limit", limit)
    return Bulkhead(limit, seconds("wait", wait, zero=True), f"bulkhead-{next(_serial)}" if name is None else name)
