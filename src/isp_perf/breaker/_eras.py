"""Eras: one object for one uninterrupted stay in one state. This is what makes the breaker both fast and exact.

A breaker has one attribute ``era``. A call loads it once and settles into *that object*; a transition puts another one
in its place, under the lock. Results that arrive later fall into a dead era, where they change nothing but a total. So
there are no generation numbers, no second look at the state, and no lock on success.

What a call does (the wrapper's body, see ``_wrapping``)::

    era = breaker.era
    if era.shut:                # false only for a closed circuit that needs no clock and no result
        era = era.admit()       # raises, or returns what this call settles into; None: rejected, take the fallback
    try:
        result = function(...)
    except BaseException as error:
        era.fail(error)         # raises only to replace a cancellation by the TimeoutError of our own deadline
        raise
    era.ok += 1                 # exact under the GIL: no switch of threads between load and store
    if era.dirty:               # only while there is a failure to forget
        era.settle(result)
    return result

An era is buried *before* its ``ok`` is read: burying makes it dirty, so that every success is either in the sum that is
read or comes back through ``settle``. That is how the success counter stays exact without a lock.
"""

from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from isp_perf._core.breaker_states import Cause, State
from isp_perf._core.windows import CountRing, Streak, TimeRing
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._outcomes import Judge
from isp_perf.errors import CircuitIsolatedError, CircuitOpenError
from isp_perf.typing import Clock

__all__ = ["ClosedEra", "CountEra", "DisabledEra", "Era", "IsolatedEra", "OpenEra", "Owner", "StreakEra", "TimeEra"]

_new_open = CircuitOpenError.__new__
_new_isolated = CircuitIsolatedError.__new__


class Era(Protocol):
    """What a call needs of the thing it settles into."""

    @property
    def shut(self) -> bool:
        """Whether ``admit`` has to be asked first."""
        ...

    @property
    def dirty(self) -> bool:
        """Whether a success has to be told to ``settle``."""
        ...

    ok: int

    def admit(self) -> "Era | None":
        """Return what the call settles into, or ``None`` for the fallback; raise ``RejectedError``."""
        ...

    def aadmit(self) -> "Era | None":
        """Do the same for a coroutine, which may also be told to wait for its turn."""
        ...

    def settle(self, result: Any, /) -> None:
        """Take note of a success, which was added to ``ok`` already."""
        ...

    def fail(self, error: BaseException, /) -> None:
        """Take note of an exception."""
        ...

    def forgo(self, error: BaseException | None, /) -> None:
        """Take note of a neutral outcome."""
        ...


class Owner(Protocol):
    """What an era needs of its breaker."""

    name: str
    config: CircuitConfig
    clock: Clock
    special: bool
    hushed: bool
    ok: int
    failed: int
    rejected: int
    cancelled: int
    late: int
    slow: int

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """What is held for failures and transitions."""
        ...

    @property
    def era(self) -> Any:
        """The present era."""
        ...

    @property
    def counts_locked(self) -> bool:
        """Whether every call has to be counted under the lock."""
        ...

    @property
    def beside(self) -> Any:
        """A breaker that runs beside this one and rejects nothing, or ``None``."""
        ...

    def trip_locked(self, era: Any, cause: Cause, error: object, *, wait: float | None = None) -> None:
        """Open the circuit; ``wait`` replaces the configured break."""
        ...

    @property
    def fleet(self) -> Any:
        """The breaker's link to those of other workers, or ``None``."""
        ...

    def probe_locked(self, *, leased: bool = False) -> None:
        """Go from open to half-open; ``leased``: as the one worker of the fleet that may."""
        ...

    def close_locked(self, cause: Cause) -> None:
        """Leave the present era for a closed one, or for the ramp before it."""
        ...

    def late_success_locked(self, era: Any) -> None:
        """Add the successes that reached a buried era to the totals."""
        ...

    def late_locked(self, *, failed: bool) -> None:
        """Count one outcome of a call that was admitted in an earlier era."""
        ...

    def forgo(self, error: BaseException | None) -> None:
        """Count a neutral outcome."""
        ...

    def refuse(self) -> bool:
        """Tell listeners of a rejection; true if a fallback answers instead of an exception."""
        ...

    def announce(self) -> None:
        """Call listeners and wake waiters; never under the lock."""
        ...


class ClosedEra:
    """Closed: calls are made and counted. Stands behind one of the window classes."""

    __slots__ = ()

    shut: bool  # in a slot: the interpreter reads those faster than class attributes
    state: State = "closed"
    timed: ClassVar[bool] = False
    breaker: Owner
    lock: AbstractContextManager[Any]
    judge: Judge
    known: dict[type[BaseException], bool]
    folded: int
    ok: int
    bad: int
    dirty: bool

    def _join(self: Any, breaker: Owner) -> None:
        self.breaker = breaker
        self.shut = False
        self.lock = breaker.lock
        self.judge = breaker.config.judge
        self.known = self.judge.known
        self.folded = 0

    def failed(self, now: float, /) -> bool:
        """Add a failure; true if it is one too many. The window class answers."""
        raise NotImplementedError

    def passed(self, now: float, /) -> None:
        """Take note of a success. The window class answers."""
        raise NotImplementedError

    def admit(self) -> Any:
        """Let the call through."""
        return self

    aadmit = admit

    def bury(self: Any) -> None:
        """Send every later success through ``settle``."""
        self.dirty = True

    def settle(self, _result: Any, /) -> None:
        """Take note of a success while the window holds a failure, or after the era's end."""
        with self.lock:
            if self.breaker.era is self:
                self.passed(0.0)
            else:
                self.breaker.late_success_locked(self)

    def fail(self, error: BaseException, /) -> None:
        """Take note of an exception; open the circuit if it is one failure too many."""
        breaker = self.breaker
        if not self.known.get(error.__class__) and not self.judge.failed(error):
            breaker.forgo(error)
            return
        with self.lock:
            if breaker.era is not self:
                breaker.late_locked(failed=True)
                return
            if not self.failed(breaker.clock() if self.timed else 0.0):
                return
            breaker.trip_locked(self, "too_many_failures", error)
        breaker.announce()

    def forgo(self, error: BaseException | None, /) -> None:
        """Count a neutral outcome."""
        self.breaker.forgo(error)


class StreakEra(Streak, ClosedEra):
    """Closed, judging failures in a row."""

    __slots__ = ("breaker", "folded", "judge", "known", "lock", "shut")

    def __init__(self, breaker: Owner) -> None:
        Streak.__init__(self, breaker.config.failure_threshold or 1)
        self._join(breaker)

    def fail(self, error: BaseException, /) -> None:
        """Do what ``ClosedEra.fail`` does without its lock, which is a sixth of a failing call.

        Under the GIL threads change at calls and at jumps back only. There is neither between the look at the present
        era and the last change, so that no transition and no other outcome comes in between. Without the GIL every
        call is watched, see ``_watched``.
        """
        breaker = self.breaker
        if not self.known.get(error.__class__) and not self.judge.failed(error):
            breaker.forgo(error)
            return
        if breaker.era is self:
            self.bad += 1
            self.dirty = True
            self.streak = streak = self.streak + 1
            if streak >= self.limit:
                self._trip(error)
            return
        with self.lock:
            breaker.late_locked(failed=True)

    def _trip(self, error: BaseException) -> None:
        breaker = self.breaker
        with self.lock:
            if breaker.era is not self:
                return  # another thread was faster; this failure is counted
            breaker.trip_locked(self, "too_many_failures", error)
        breaker.announce()


class CountEra(CountRing, ClosedEra):
    """Closed, judging the share of failures among the last calls."""

    __slots__ = ("breaker", "folded", "judge", "known", "lock", "shut")

    def __init__(self, breaker: Owner) -> None:
        window: Any = breaker.config.window
        CountRing.__init__(self, window.size, window.failure_ratio, window.minimum_throughput)
        self._join(breaker)


class TimeEra(TimeRing, ClosedEra):
    """Closed, judging the share of failures in the last seconds."""

    __slots__ = ("breaker", "clock", "folded", "judge", "known", "lock", "shut")
    timed = True

    def __init__(self, breaker: Owner) -> None:
        window: Any = breaker.config.window
        self.clock = breaker.clock
        TimeRing.__init__(
            self,
            window.seconds,
            window.failure_ratio,
            minimum=window.minimum_throughput,
            start=breaker.clock(),
        )
        self._join(breaker)

    def bury(self) -> None:
        """Send every later success through ``settle``: the bucket is over."""
        self.edge = float("-inf")

    def settle(self, _result: Any, /) -> None:
        """Pay the one comparison of the clock that a time window asks for."""
        if self.clock() >= self.edge:
            with self.lock:
                if self.breaker.era is self:
                    self.passed(self.clock())
                else:
                    self.breaker.late_success_locked(self)


class DisabledEra:
    """Disabled: calls are made, nothing is counted."""

    __slots__ = ("ok",)

    shut: ClassVar[bool] = False
    dirty: ClassVar[bool] = False
    state: State = "disabled"

    def __init__(self) -> None:
        self.ok = 0

    def admit(self) -> Any:
        """Let the call through."""
        return self

    aadmit = admit

    def settle(self, _result: Any, /) -> None:
        """Count nothing."""

    def fail(self, _error: BaseException, /) -> None:
        """Count nothing."""

    def forgo(self, _error: BaseException | None, /) -> None:
        """Count nothing."""


class OpenEra:
    """Open: calls are rejected until an instant.

    Args:
        breaker: the owner.
        until: the instant, in the breaker's clock.
        cause: class name of the failure that opened it; the exception itself is not kept, nor its traceback.
        counts: ``(failures, calls)`` that opened it.
    """

    __slots__ = ("breaker", "cause", "clock", "counts", "until")

    shut: ClassVar[bool] = True
    state: State = "open"

    def __init__(self, breaker: Owner, until: float, *, cause: str | None, counts: tuple[int, int]) -> None:
        self.breaker = breaker
        self.clock = breaker.clock
        self.until = until
        self.cause = cause
        self.counts = counts

    def admit(self) -> Any:
        """Reject, or let the first arrival after the break begin the half-open state."""
        breaker = self.breaker
        left = self.until - self.clock()
        if left > 0.0:
            breaker.rejected += 1
            if breaker.special and (breaker.hushed or breaker.refuse()):
                return None
            raise _new_open(CircuitOpenError, breaker.name, left, self.cause)
        return self.due().admit()

    def aadmit(self) -> Any:
        """Do the same for a coroutine; written out, for a call in between would be a tenth of a rejection."""
        breaker = self.breaker
        left = self.until - self.clock()
        if left > 0.0:
            breaker.rejected += 1
            if breaker.special and (breaker.hushed or breaker.refuse()):
                return None
            raise _new_open(CircuitOpenError, breaker.name, left, self.cause)
        return self.due().aadmit()

    def due(self) -> Any:
        """Return the era that comes after a break that is over."""
        breaker = self.breaker
        with breaker.lock:
            if breaker.era is self:
                breaker.probe_locked()
        breaker.announce()
        return breaker.era


class IsolatedEra:
    """Isolated: opened by hand, until the last holder lets go.

    Each isolation has a token and an instant at which it ends by itself; ``None`` is never.
    """

    __slots__ = ("breaker", "held")

    shut: ClassVar[bool] = True
    state: State = "isolated"

    def __init__(self, breaker: Owner) -> None:
        self.breaker = breaker
        self.held: dict[Any, float | None] = {}

    def admit(self) -> Any:
        """Reject, unless every isolation is over."""
        breaker = self.breaker
        left = self._left()
        if left is not None and left <= 0.0:
            return breaker.era.admit()
        breaker.rejected += 1
        if breaker.special and breaker.refuse():
            return None
        raise _new_isolated(CircuitIsolatedError, breaker.name, left)

    def aadmit(self) -> Any:
        """Do the same for a coroutine."""
        left = self._left()
        return self.admit() if left is None or left > 0.0 else self.breaker.era.aadmit()

    def left(self, now: float) -> float | None:
        """Return the seconds until the last isolation is over; 0.0 if it is, ``None`` if it never ends by itself."""
        longest = 0.0
        for end in self.held.values():
            if end is None:
                return None
            longest = max(longest, end - now)
        return longest

    def _left(self) -> float | None:
        breaker = self.breaker
        with breaker.lock:
            if breaker.era is not self:
                return 0.0
            left: float | None = self.left(breaker.clock())
            over = left is not None and left <= 0.0
            if over:
                breaker.close_locked("released")
        if over:
            breaker.announce()
        return left
