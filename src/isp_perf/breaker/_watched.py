"""Closed eras that look closer: slow calls, deadlines, results, Retry-After, the ramp, a shadow.

They are reached through ``shut``, so that a plain configuration pays nothing for them and a live ``reconfigure`` needs
no new decoration. Each call gets a ``Ticket`` that knows when it began.
"""

from asyncio import CancelledError
from typing import Any, ClassVar, Protocol

from isp_perf._core.breaker_states import Cause, State
from isp_perf._core.windows import CountRing, TimeRing
from isp_perf._runtime.wheel import Deadline, arm
from isp_perf.breaker._config import CircuitConfig, TimeWindow, seconds
from isp_perf.breaker._eras import ClosedEra, CountEra, Owner, StreakEra, TimeEra
from isp_perf.breaker._outcomes import ask
from isp_perf.errors import ProbeLimitError, RejectedError

__all__ = ["Settles", "Ticket", "Watched", "WatchedCount", "WatchedStreak", "WatchedTime", "deadline_for"]

_SLOW_SIZE = 10
_SLOW_MINIMUM = 5
_RAMP_START = 0.1
_new_limit = ProbeLimitError.__new__


class Settles(Protocol):
    """An era that is told what became of its tickets."""

    breaker: Owner
    config: CircuitConfig

    def conclude(
        self, ticket: "Ticket", error: object, /, *, failed: bool, slow: bool = False, wait: float | None = None
    ) -> None:
        """Count a completed call; ``wait`` is for how long the service asked to be left alone."""
        ...

    def give_back(self, ticket: "Ticket", error: BaseException | None, /) -> None:
        """Count a neutral outcome."""
        ...


def deadline_for(config: CircuitConfig) -> Deadline | None:
    """Start the deadline of the running coroutine's call, if the configuration sets one."""
    return None if config.deadline is None else arm(config.deadline)


class Ticket:
    """One admitted call that is looked at.

    Args:
        era: where the call settles.
        start: the instant at which it began.
        deadline: when it has to end.
    """

    __slots__ = ("deadline", "era", "ok", "start")

    shut: ClassVar[bool] = False
    dirty: ClassVar[bool] = True

    def __init__(self, era: Settles, start: float, deadline: Deadline | None = None) -> None:
        self.era = era
        self.start = start
        self.deadline = deadline
        self.ok = 0

    def admit(self) -> Any:
        """Let the call through."""
        return self

    aadmit = admit

    def settle(self, result: Any, /) -> None:
        """Judge a returned value and how long it took."""
        if self.deadline is not None:
            self.deadline.close()
        era = self.era
        config = era.config
        wait = self._asked(config, result)
        failed = wait is not None or (
            config.bad_result is not None and bool(ask("bad_result", config.bad_result, result, otherwise=False))
        )
        era.conclude(self, "bad_result" if failed else None, failed=failed, slow=self._slow(config), wait=wait)
        shadow = era.breaker.beside
        if shadow is not None:
            Ticket(shadow.era, self.start).settle(result)

    def fail(self, error: BaseException, /) -> None:
        """Judge an exception; raise ``TimeoutError`` in its place if our own deadline caused it."""
        meant = error if self.deadline is None else self.deadline.translate(error)
        era = self.era
        config = era.config
        slow = self._slow(config)
        wait = self._asked(config, meant)
        if config.judge.failed(meant) or wait is not None:
            era.conclude(self, meant, failed=True, slow=slow, wait=wait)
        elif slow and isinstance(meant, CancelledError):
            # The caller's own deadline ran out on a service that does not answer.
            era.breaker.cancelled += 1
            era.conclude(self, meant, failed=True, slow=True)
        else:
            era.give_back(self, meant)
        shadow = era.breaker.beside
        if shadow is not None:
            Ticket(shadow.era, self.start).fail(meant)
        if meant is not error:
            raise meant from error

    def forgo(self, error: BaseException | None, /) -> None:
        """Take note of a neutral outcome."""
        if self.deadline is not None:
            self.deadline.close()
        self.era.give_back(self, error)

    def _slow(self, config: CircuitConfig) -> bool:
        limit = config.slow_after
        return limit is not None and self.era.breaker.clock() - self.start >= limit

    def _asked(self, config: CircuitConfig, outcome: object) -> float | None:
        """Return for how long the service asked to be left alone; ``None`` if it did not say."""
        hint = config.retry_after
        if hint is None or isinstance(outcome, RejectedError | CancelledError):
            return None
        wait = ask("retry_after", hint, outcome, otherwise=None)
        return float(wait) if isinstance(wait, int | float) and wait > 0 else None


class Watched(ClosedEra):
    """Closed (or half-open while ramping, or metrics-only), looking at every call."""

    __slots__ = ()

    shut = True
    config: CircuitConfig
    credit: float
    ramp_end: float | None
    slows: CountRing | TimeRing | None

    def _watch(self: Any, breaker: Owner, state: State, ramp_end: float | None) -> None:
        self.config = breaker.config
        self.state = state
        self.ramp_end = ramp_end
        self.credit = 1.0 - _RAMP_START  # the first call is let through
        self.dirty = True
        self.slows = None if self.config.slow_call is None else _slow_window(breaker, self.config.slow_call.ratio)

    def admit(self) -> Any:
        """Let the call through, or, while ramping, a growing share of calls."""
        breaker = self.breaker
        if self.ramp_end is not None and not self._ramp_admits(self.ramp_end):
            return None
        if breaker.era is not self:
            return breaker.era.admit()
        return Ticket(self, breaker.clock())

    def aadmit(self) -> Any:
        """Do the same for a coroutine, and start its deadline."""
        breaker = self.breaker
        if self.ramp_end is not None and not self._ramp_admits(self.ramp_end):
            return None
        if breaker.era is not self:
            return breaker.era.aadmit()
        return Ticket(self, breaker.clock(), deadline_for(self.config))

    def _ramp_admits(self, end: float) -> bool:
        """Add the present share to the credit; a whole credit admits one call: evenly, and without chance."""
        breaker = self.breaker
        with self.lock:
            left = end - breaker.clock()
            if breaker.era is not self:
                return True
            if left <= 0.0:
                breaker.close_locked("ramp_over")
                admitted = True
            else:
                self.credit += 1.0 - (1.0 - _RAMP_START) * left / seconds("ramp", self.config.ramp)
                admitted = self.credit >= 1.0
                self.credit -= admitted
        breaker.announce()
        if not admitted:
            breaker.rejected += 1
            if not (breaker.special and breaker.refuse()):
                raise _new_limit(ProbeLimitError, breaker.name, left)
        return admitted

    def conclude(
        self, _ticket: Ticket, error: object, /, *, failed: bool, slow: bool = False, wait: float | None = None
    ) -> None:
        """Count a completed call and open the circuit if it was one too many."""
        breaker = self.breaker
        now = breaker.clock() if self.timed else 0.0
        with self.lock:
            breaker.slow += slow
            if breaker.era is not self:
                breaker.late_locked(failed=failed)
                return
            cause = self._count_locked(now, failed=failed, slow=slow)
            if wait is not None:
                cause = "server_asked"
            if cause is not None:
                breaker.trip_locked(self, cause, error, wait=wait)
        if cause is not None:
            breaker.announce()

    def give_back(self, _ticket: Ticket, error: BaseException | None, /) -> None:
        """Count a neutral outcome."""
        self.breaker.forgo(error)

    def _count_locked(self: Any, now: float, *, failed: bool, slow: bool) -> Cause | None:
        cause: Cause | None = None
        if not failed:
            self.ok += 1
            self.passed(now)
        elif self.failed(now):
            cause = "too_many_failures"
        slows = self.slows
        if slows is not None and not slow:
            slows.ok += 1
            slows.passed(now)
        elif slows is not None and slows.failed(now) and cause is None:
            cause = "too_many_slow_calls"
        return cause


def _slow_window(breaker: Owner, ratio: float) -> CountRing | TimeRing:
    """Return a second window, of the same extent as the first, in which slow calls take the place of failures."""
    window = breaker.config.window
    if window is None:
        return CountRing(_SLOW_SIZE, ratio, _SLOW_MINIMUM)
    if isinstance(window, TimeWindow):
        length = seconds("seconds", window.seconds)
        return TimeRing(length, ratio, minimum=window.minimum_throughput, start=breaker.clock())
    return CountRing(window.size, ratio, window.minimum_throughput)


class WatchedStreak(Watched, StreakEra):
    """Watched, judging failures in a row."""

    __slots__ = ("config", "credit", "ramp_end", "slows", "state")

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        StreakEra.__init__(self, breaker)
        self._watch(breaker, state, ramp_end)


class WatchedCount(Watched, CountEra):
    """Watched, judging the share of failures among the last calls."""

    __slots__ = ("config", "credit", "ramp_end", "slows", "state")

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        CountEra.__init__(self, breaker)
        self._watch(breaker, state, ramp_end)


class WatchedTime(Watched, TimeEra):
    """Watched, judging the share of failures in the last seconds."""

    __slots__ = ("config", "credit", "ramp_end", "slows", "state")

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        TimeEra.__init__(self, breaker)
        self._watch(breaker, state, ramp_end)
