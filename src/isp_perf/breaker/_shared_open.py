"""Open in a fleet: when the break is over, one arrival of this process asks for the fleet's right to probe.

The others are rejected meanwhile. The one that asks waits, a task without blocking its loop, for at most
``PATIENCE`` seconds: a store that does not answer in that time, or is known to be away, has no say, and the process
probes for itself.
"""

import threading
from asyncio import Future, get_running_loop, timeout
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Final

from isp_perf.breaker._eras import OpenEra, Owner
from isp_perf.errors import CircuitOpenError

__all__ = ["PATIENCE", "WAIT", "SharedOpenEra", "waker"]

PATIENCE: Final = 0.25
"""Seconds that the store has for its answer."""

_GIVEN_UP = 2.0
"""Seconds after which a question is asked again, whatever became of it: its asker may be gone, in a forked child."""

WAIT: Final = False
"""What a coroutine is told that has to wait for the decision: go to ``turn``."""


def waker() -> "tuple[Callable[[], None], Future[None]]":
    """Return a function that may be called from any thread, and the future of the running loop that it finishes."""
    loop = get_running_loop()
    woken: Future[None] = loop.create_future()

    def finish() -> None:
        if not woken.done():
            woken.set_result(None)

    def wake() -> None:
        with suppress(RuntimeError):  # the waiter's loop is closed
            loop.call_soon_threadsafe(finish)

    return wake, woken


class SharedOpenEra(OpenEra):
    """Open: rejected until an instant; then the fleet says who probes.

    Attributes:
        asked: when the question that has no answer yet was asked; negative infinity: there is none.
        granted: until when the right to probe is ours; infinity: the store has no say.
    """

    __slots__ = ("asked", "granted")

    def __init__(self, breaker: Owner, until: float, *, cause: str | None, counts: tuple[int, int]) -> None:
        super().__init__(breaker, until, cause=cause, counts=counts)
        self.asked = self.granted = -inf

    def admit(self) -> Any:
        """Reject, or let one arrival after the break ask, and probe if it may."""
        left = self._closed_for()
        if left is None:
            return self.due().admit()
        if left or self._pending():
            return self._reject(left or PATIENCE)
        if self._elected():
            woken = threading.Event()
            self.breaker.fleet.ask(self, woken.set)
            woken.wait(PATIENCE)
            self._go_on_alone()
        return self.breaker.era.admit()

    def aadmit(self) -> Any:
        """Do the same for a coroutine; ``WAIT``: it has to go through ``turn``."""
        left = self._closed_for()
        if left is None:
            return self.due().aadmit()
        return self._reject(left or PATIENCE) if left or self._pending() else WAIT

    async def decision(self) -> None:
        """Ask for the right to probe, unless another call does so already."""
        if not self._elected():
            return
        wake, woken = waker()
        self.breaker.fleet.ask(self, wake)
        with suppress(TimeoutError):
            async with timeout(PATIENCE):
                await woken
        self._go_on_alone()

    def due(self) -> Any:
        """Return the era that comes after the break; a caller that cannot wait probes for this process alone."""
        breaker = self.breaker
        with breaker.lock:
            if breaker.era is self:
                breaker.probe_locked(leased=-inf < self.granted < inf)
        breaker.announce()
        return breaker.era

    def answered(self, wait: float, lease: float) -> None:
        """Take the answer: probe within ``lease`` seconds, or ``wait``."""
        with self.breaker.lock:
            if self.granted == inf:
                return
            now = self.clock()
            self.asked = -inf
            if wait > 0.0:
                self.until = now + wait
            else:
                self.granted = now + lease

    def _closed_for(self) -> float | None:
        """Return the seconds left; 0.0: the fleet has to be asked; ``None``: the way is free."""
        now = self.clock()
        if self.until > now:
            return self.until - now
        fleet = self.breaker.fleet
        return None if fleet is None or not fleet.connected or self.granted > now else 0.0

    def _pending(self) -> bool:
        return self.clock() < self.asked + _GIVEN_UP

    def _elected(self) -> bool:
        """Tell whether this caller is the one of the process that asks."""
        with self.breaker.lock:
            if self.breaker.era is not self or self._pending():
                return False
            self.asked = self.clock()
            return True

    def _go_on_alone(self) -> None:
        """Probe for this process if there is still no answer."""
        with self.breaker.lock:
            if self.asked != -inf:
                self.asked, self.granted = -inf, inf
                self.breaker.fleet.doubt()

    def _reject(self, left: float) -> Any:
        breaker = self.breaker
        breaker.rejected += 1
        if breaker.special and breaker.refuse():
            return None
        raise CircuitOpenError(breaker.name, left, self.cause)
