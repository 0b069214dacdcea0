"""Closed eras that look closer: slow calls, deadlines, results, Retry-After, the ramp, a shadow.

They are reached through ``shut``, so that a plain configuration pays nothing for them and a live ``reconfigure`` needs
no new decoration. Each call gets a ``Ticket`` that knows when it began.
"""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, Protocol

from isp_perf._core.breaker_states import Cause, State
from isp_perf._core.ranges import seconds
from isp_perf._core.windows import CountRing, TimeRing
from isp_perf._runtime.wheel import arm
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._eras import ClosedEra, CountEra, Owner, StreakEra, TimeEra
from isp_perf.breaker._outcomes import ask, first_time
from isp_perf.errors import ProbeLimitError, RejectedError
from isp_perf.typing import Clock

__all__ = ["Settles", "Ticket", "Timed", "Watched", "WatchedCount", "WatchedStreak", "WatchedTime", "ticket"]

_SLOW_SIZE = 10
_SLOW_MINIMUM = 5
_RAMP_START = 0.1
logger = logging.getLogger("isp_perf.breaker")
_new = object.__new__
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


class Ticket:
    """One admitted call that is looked at: where it settles (``era``) and the instant at which it began (``start``).

    Made without an initialiser: it costs a third of a call of the class.
    """

    __slots__ = ("era", "ok", "start")

    shut: ClassVar[bool] = False
    dirty: ClassVar[bool] = True
    era: Any
    ok: int
    start: float

    def admit(self) -> Any:
        """Let the call through."""
        return self

    aadmit = admit

    def settle(self, result: Any, /) -> None:
        """Judge a returned value and how long it took; a good one costs neither a lock nor another frame."""
        era = self.era
        now = era.clock()
        if now - self.start < era.slow_after:
            test = era.bad_result
            try:
                bad = test is not None and test(result)
            except Exception:
                if first_time("bad_result"):
                    logger.exception("the function given as bad_result raised; it is taken to have no opinion")
                bad = False
            if not bad:
                era.ok += 1
                if era.dirty or now >= era.edge:
                    era.passed_over(now)
                era.spare.append(self)
                return
        self.settle_fully(result)

    def settle_fully(self, result: Any, /) -> None:
        """Judge a returned value by every rule there is."""
        era = self.era
        config = era.config
        wait = self._asked(config, result)
        failed = wait is not None or (
            config.bad_result is not None and bool(ask("bad_result", config.bad_result, result, otherwise=False))
        )
        era.conclude(self, "bad_result" if failed else None, failed=failed, slow=self._slow(config), wait=wait)
        beside = era.breaker.beside
        if beside is not None:
            ticket(beside.era, self.start).settle(result)

    def fail(self, error: BaseException, /) -> None:
        """Judge an exception."""
        era = self.era
        config = era.config
        slow = self._slow(config)
        wait = self._asked(config, error)
        if config.judge.failed(error) or wait is not None:
            era.conclude(self, error, failed=True, slow=slow, wait=wait)
        elif slow and isinstance(error, CancelledError):
            # The caller's own deadline ran out on a service that does not answer.
            era.breaker.cancelled += 1
            era.conclude(self, error, failed=True, slow=True)
        else:
            era.give_back(self, error)
        beside = era.breaker.beside
        if beside is not None:
            ticket(beside.era, self.start).fail(error)

    def forgo(self, error: BaseException | None, /) -> None:
        """Take note of a neutral outcome."""
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


def ticket(era: Any, start: float) -> Ticket:
    """Return a ticket for a call of ``era`` that began at ``start``."""
    made = _new(Ticket)
    made.era = era
    made.start = start
    made.ok = 0
    return made


class Timed:
    """A ticket, or probe, whose call has a deadline of ours.

    Args:
        inner: what the call settles into.
        seconds: when it has to end.
    """

    __slots__ = ("deadline", "inner", "ok")

    shut: ClassVar[bool] = False
    dirty: ClassVar[bool] = True

    def __init__(self, inner: Any, seconds: float) -> None:
        self.inner = inner
        self.ok = 0
        self.deadline = arm(seconds)

    def admit(self) -> Any:
        """Let the call through."""
        return self

    aadmit = admit

    def settle(self, result: Any, /) -> None:
        """End the deadline and judge a returned value."""
        self.deadline.close()
        self.inner.settle(result)

    def fail(self, error: BaseException, /) -> None:
        """End the deadline and judge an exception; raise ``TimeoutError`` in its place if the deadline caused it."""
        meant = self.deadline.translate(error)
        self.inner.fail(meant)
        if meant is not error:
            raise meant from error

    def forgo(self, error: BaseException | None, /) -> None:
        """End the deadline and take note of a neutral outcome."""
        self.deadline.close()
        self.inner.forgo(error)


class Watched(ClosedEra):
    """Closed (or half-open while ramping, or metrics-only), looking at every call."""

    __slots__ = ()

    bad_result: Callable[[Any], object] | None
    clock: Clock
    config: CircuitConfig
    credit: float
    edge: float
    ramp_end: float | None
    slow_after: float
    slows: CountRing | TimeRing | None
    spare: list["Ticket"]

    def _watch(self: Any, breaker: Owner, state: State, ramp_end: float | None) -> None:
        config = breaker.config
        self.shut = True
        self.config = config
        self.clock = breaker.clock
        self.state = state
        self.ramp_end = ramp_end
        self.credit = 1.0 - _RAMP_START  # the first call is let through
        self.dirty = False
        self.spare = []  # tickets of calls that are over: every call settles exactly once, so they can be used again
        self.bad_result = config.bad_result
        self.slows = None if config.slow_call is None else self.slow_window(config.slow_call.ratio)
        self.slow_after = inf if config.slow_after is None else config.slow_after
        if config.retry_after is not None or breaker.beside is not None or breaker.counts_locked:
            self.slow_after = -inf  # no call is so fast that it may take the short way through ``Ticket.settle``

    def slow_window(self, ratio: float) -> CountRing | TimeRing:
        """Return a second window, in which slow calls take the place of failures; without one, the last ten calls."""
        return CountRing(_SLOW_SIZE, ratio, _SLOW_MINIMUM)

    def admit(self) -> Any:
        """Let the call through, or, while ramping, a growing share of calls."""
        if self.ramp_end is not None:
            if not self._ramp_admits(self.ramp_end):
                return None
            if self.breaker.era is not self:
                return self.breaker.era.admit()
        spare = self.spare
        made = spare.pop() if spare else ticket(self, 0.0)
        made.start = self.clock()
        return made

    def aadmit(self) -> Any:
        """Do the same for a coroutine, and start its deadline."""
        found = self.admit()
        limit = self.config.deadline
        if limit is None or found.__class__ is not Ticket:
            return found
        return Timed(found, limit)

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

    def passed_over(self: Any, now: float) -> None:
        """Take note of a success, added to ``ok`` already, that has something to change."""
        with self.lock:
            if self.breaker.era is self:
                self.passed(now)
                self._not_slow_locked(now)
            else:
                self.breaker.late_success_locked(self)

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
        if not slow:
            self._not_slow_locked(now)
        elif self.slows is not None:
            slows = self.slows
            slows.ok = self.ok + self.bad - 1 - slows.bad
            if slows.failed(now) and cause is None:
                cause = "too_many_slow_calls"
            self.dirty = True
        return cause

    def _not_slow_locked(self: Any, now: float) -> None:
        """Tell the second window of a call that was not slow; what is not in ``bad`` there is in ``ok``."""
        slows = self.slows
        if slows is not None:
            slows.ok = self.ok + self.bad - slows.bad
            slows.passed(now)
            self.dirty = self.dirty or (slows.dirty and not self.timed)


_SLOTS = ("bad_result", "config", "credit", "ramp_end", "slow_after", "slows", "spare", "state")


class WatchedStreak(Watched, StreakEra):
    """Watched, judging failures in a row."""

    __slots__ = (*_SLOTS, "clock", "edge")

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        StreakEra.__init__(self, breaker)
        self.edge = inf
        self._watch(breaker, state, ramp_end)


class WatchedCount(Watched, CountEra):
    """Watched, judging the share of failures among the last calls."""

    __slots__ = (*_SLOTS, "clock", "edge")

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        CountEra.__init__(self, breaker)
        self.edge = inf
        self._watch(breaker, state, ramp_end)

    def slow_window(self, ratio: float) -> CountRing:
        """Return a second window of the same extent."""
        return CountRing(self.size, ratio, self.minimum)


class WatchedTime(Watched, TimeEra):
    """Watched, judging the share of failures in the last seconds."""

    __slots__ = _SLOTS

    def __init__(self, breaker: Owner, state: State, ramp_end: float | None) -> None:
        TimeEra.__init__(self, breaker)
        self._watch(breaker, state, ramp_end)

    def slow_window(self, ratio: float) -> TimeRing:
        """Return a second window of the same extent, with the same edges."""
        return TimeRing(self.span * self.BUCKETS, ratio, minimum=self.minimum, start=self.start)
