"""Single-flight: concurrent loads of one key become one load.

The first caller, the leader, loads inline: in its own task or thread, context and traceback; nothing is created until
somebody joins. Everyone who joins gets a waiter of its own, so a cancelled waiter disturbs nobody. If the leader is
cancelled, one waiter takes over.

A table holds the *attached* flight of each key. ``detach`` is the fence: whatever a detached flight loads is given to
those who were already waiting, and is never stored; who comes later starts a new flight.

Re-entrance: a context variable names the innermost flight that is being led. Joining a flight that waits, directly or
through others, for one that this context leads can never end, and raises ``CacheRecursionError`` instead.
"""

import asyncio
import copy
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final, Protocol, Self, cast

from isp_perf._runtime.drive import Failure
from isp_perf.errors import CacheRecursionError

__all__ = ["LEADING", "TAKE_OVER", "TIMED_OUT", "Flight", "TaskWaiter", "ThreadWaiter", "Waiter", "leading", "own_copy"]

TAKE_OVER: Final = object()
TIMED_OUT: Final = object()
_PENDING: Final = object()


class Waiter(Protocol):
    """One caller that waits for a flight."""

    outcome: Any

    @property
    def wait(self) -> Callable[[], Any]:
        """The step to yield: it ends when ``wake`` was called."""
        ...

    def wait_for(self, seconds: float, /) -> Any:
        """As ``wait`` for ``seconds`` at most, then ``TIMED_OUT``."""
        ...

    def wake(self, outcome: Any, /) -> bool:
        """Hand over the outcome from any thread; ``False`` if nobody can receive it any more."""
        ...


class ThreadWaiter:
    """Waits in a thread."""

    __slots__ = ("_gate", "outcome")

    def __init__(self) -> None:
        self.outcome: Any = _PENDING
        self._gate = Lock()
        self._gate.acquire()

    def wait(self) -> Any:
        """Block until woken and return the outcome."""
        with self._gate:
            return self.outcome

    def wait_for(self, seconds: float) -> Any:
        """Block until woken, for ``seconds`` at most; return the outcome or ``TIMED_OUT``."""
        if not self._gate.acquire(timeout=seconds):
            return TIMED_OUT
        self._gate.release()
        return self.outcome

    def wake(self, outcome: Any) -> bool:
        """Set the outcome and let the thread go on."""
        self.outcome = outcome
        self._gate.release()
        return True


class TaskWaiter:
    """Waits in a task; may be woken from any thread and any loop."""

    __slots__ = ("_future", "_loop", "outcome")

    def __init__(self) -> None:
        self.outcome: Any = _PENDING
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    async def wait(self) -> Any:
        """Wait until woken and return the outcome."""
        await self._future
        return self.outcome

    async def wait_for(self, seconds: float) -> Any:
        """Wait until woken, for ``seconds`` at most; return the outcome or ``TIMED_OUT``."""
        done, _ = await asyncio.wait((self._future,), timeout=seconds)
        return self.outcome if done else TIMED_OUT

    def wake(self, outcome: Any) -> bool:
        """Set the outcome and schedule the task; ``False`` if its loop is closed."""
        if self._loop.is_closed() or self._future.cancelled():
            return False
        self.outcome = outcome
        if running_loop() is self._loop:
            self._release()
            return True
        try:
            self._loop.call_soon_threadsafe(self._release)
        except RuntimeError:  # closed between the question and the call
            return False
        return True

    def _release(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_NOBODY: Final = cast("list[Waiter]", ())


class Flight:
    """One load in progress. Every method needs the lock of the table it is in.

    What every load needs is a slot; what a load seldom needs is a class attribute until it is set.

    Attributes:
        attached: whether its result may be stored.
        began: when its load began, on the short way of a miss.
        filling: what the loader says about the new entry.
        landed: whether its leader has ended it.
        loop: the loop its leader runs in; ``None`` for a thread.
        parent: the flight that its leader was leading before.
        slot: what it loads, on the short way of a miss.
        waiters: those who joined and wait.
        reason: why there was something to load.
        seconds: how long the load took.
        tags: what it can be detached by besides its key.
        stale: the entry that is no longer fresh, if there is one.
        started: the background task that leads it, if one does.
        task: that task, if it is to be cancelled when nobody waits any more.
        weight: bytes of the encoded value, once it was encoded.
        waits_for: the flights whose outcome this one's loader waits for.
    """

    __slots__ = ("__dict__", "attached", "began", "filling", "landed", "loop", "parent", "slot", "waiters")

    attached: bool
    began: float
    filling: Any
    landed: bool
    loop: asyncio.AbstractEventLoop | None
    parent: "Flight | None"
    slot: Any
    waiters: list[Waiter]
    reason: str = ""
    seconds: float = 0.0
    tags: frozenset[str] = frozenset()
    stale: Any = None
    started: asyncio.Task[Any] | None = None
    task: asyncio.Task[Any] | None = None
    weight: int | None = None
    waits_for: list["Flight"] = cast('list["Flight"]', ())

    @classmethod
    def make(cls, slot: Any = None) -> Self:
        """Return a flight, in half the time of a call of the class with an ``__init__``: this is part of every miss."""
        flight = cls()
        flight.attached = True
        flight.filling = None
        flight.landed = False
        flight.loop = None
        flight.parent = None
        flight.slot = slot
        flight.waiters = _NOBODY
        return flight

    def lead_by(self, parent: "Flight | None", *, tasks: bool) -> None:
        """Take note that the running task or thread leads, while its context leads ``parent``."""
        self.parent = parent
        self.loop = asyncio.get_running_loop() if tasks else None

    def abandoned(self) -> bool:
        """Tell whether the leader's loop was closed under it, so that it can never finish."""
        return self.loop is not None and self.loop.is_closed()

    def join_locked(self, waiter: Waiter, joiner: "Flight | None", *, name: str) -> None:
        """Let ``waiter`` wait; ``joiner`` is the flight its context leads.

        Args:
            waiter: who waits.
            joiner: the innermost flight that the caller leads; ``None`` outside every loader.
            name: what is loaded, for the error: the function, never the key.

        Raises:
            CacheRecursionError: the flight waits for its own caller.
        """
        if joiner is not None:
            if self._waits_for_any(set(_line(joiner))):
                raise CacheRecursionError(f"{name} asked for the key that it is loading")
            for flight in _line(joiner):
                flight.waits_for = [*flight.waits_for, self]
        if self.waiters:
            self.waiters.append(waiter)
        else:
            self.waiters = [waiter]

    def leave_locked(self, waiter: Waiter, joiner: "Flight | None") -> None:
        """Take note that ``waiter`` waits no longer."""
        for flight in _line(joiner):
            flight.waits_for = [other for other in flight.waits_for if other is not self]
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            if self.task is not None and not self.waiters:
                self.task.get_loop().call_soon_threadsafe(self.task.cancel)

    def take_waiters(self) -> list[Waiter]:
        """Return those who wait for the outcome, once nobody can join any more.

        The list is the caller's own: a woken waiter takes itself off the flight while others are still being woken.
        """
        waiters, self.waiters = self.waiters, []
        return waiters

    def wake_all(self, outcome: Any) -> None:
        """Give everyone who waits the outcome; without the lock, once nobody can join any more."""
        for waiter in self.take_waiters():
            waiter.wake(outcome)

    def hand_over_locked(self) -> bool:
        """Make the first waiter that can still run the leader; ``False`` if there is none."""
        while self.waiters:
            if self.waiters.pop(0).wake(TAKE_OVER):
                return True
        return False

    def _waits_for_any(self, leaders: "set[Flight]") -> bool:
        seen: set[Flight] = set()
        ahead: list[Flight] = [self]
        while ahead:
            flight = ahead.pop()
            if flight in leaders:
                return True
            if flight not in seen and not flight.landed:
                seen.add(flight)
                ahead += flight.waits_for
        return False


def _line(flight: Flight | None) -> list[Flight]:
    """Return ``flight`` and those that led to it and have not landed."""
    line: list[Flight] = []
    while flight is not None:
        if not flight.landed:
            line.append(flight)
        flight = flight.parent
    return line


LEADING: Final[ContextVar[Flight | None]] = ContextVar("isp_perf_leading", default=None)
"""The flight that this context led last; ask ``leading``, since it may have landed."""


def leading() -> Flight | None:
    """Return the innermost flight that this context leads.

    A landed flight stays in the variable until the context leads the next one: setting it back would cost every miss.
    """
    flight = LEADING.get()
    while flight is not None and flight.landed:
        flight = flight.parent
    return flight


def own_copy(failure: Failure) -> Failure:
    """Return the failure for one waiter: its own exception, caused by the leader's, so that no traceback grows."""
    twin = error = failure.error
    with suppress(Exception):  # a constructor that cannot be repeated: user code may raise anything here
        twin = copy.copy(error)
    if type(twin) is not type(error) or twin is error:
        return Failure(error.with_traceback(None))
    twin.__cause__ = error
    return Failure(twin.with_traceback(None))
