"""The machine behind a breaker: its present era, its totals, and the one place where eras are replaced."""

import os
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import SystemRandom
from threading import RLock
from typing import Any

from isp_perf._core.breaker_states import Cause, State, next_state
from isp_perf._core.ranges import seconds
from isp_perf.breaker._config import CircuitConfig, CountWindow, TimeWindow
from isp_perf.breaker._eras import CountEra, DisabledEra, IsolatedEra, OpenEra, StreakEra, TimeEra
from isp_perf.breaker._half_open import HalfOpenEra, Probe
from isp_perf.breaker._outcomes import ask
from isp_perf.breaker._records import EVENTS, Annex, CircuitEvent, Counts
from isp_perf.breaker._shared_open import SharedOpenEra
from isp_perf.breaker._stray import Stray
from isp_perf.breaker._watched import Watched, WatchedCount, WatchedStreak, WatchedTime, ticket
from isp_perf.breaker._wrapping import FREE_THREADED
from isp_perf.errors import ConfigurationError
from isp_perf.typing import Clock

__all__ = ["Machine"]

_LOCKS = tuple(RLock() for _ in range(64))
"""Breakers share these by turns. A lock is held for failures and transitions only and for less than a microsecond, and
a fixed set can be taken as a whole around ``fork``, so that a child never inherits a breaker in mid-transition."""

_serial = count()
_draw = SystemRandom().random


_ERAS: dict[type, tuple[type[Any], type[Any]]] = {
    type(None): (StreakEra, WatchedStreak),
    CountWindow: (CountEra, WatchedCount),
    TimeWindow: (TimeEra, WatchedTime),
}


def _before_fork() -> None:
    for lock in _LOCKS:
        lock.acquire()


def _after_fork() -> None:
    for lock in _LOCKS:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Machine:
    """State, totals and transitions; ``CircuitBreaker`` adds what callers use.

    Args:
        name: for errors, reports and metrics.
        config: when to open, and for how long.
        clock: monotonic seconds.
    """

    __slots__ = (
        "__weakref__",
        "annex",
        "beside",
        "cancelled",
        "clock",
        "config",
        "era",
        "failed",
        "fleet",
        "hushed",
        "late",
        "lock",
        "name",
        "neutral",
        "ok",
        "plain_functions",
        "rejected",
        "round",
        "slow",
        "special",
        "would_open",
    )

    cancelled: int
    clock: Clock
    config: CircuitConfig
    failed: int
    hushed: bool
    late: int
    lock: RLock
    name: str
    neutral: int
    ok: int
    plain_functions: bool
    rejected: int
    round: int
    slow: int
    special: bool
    would_open: int

    def __init__(self, name: str, config: CircuitConfig, clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.lock = _LOCKS[next(_serial) % len(_LOCKS)]
        self.annex: Annex | None = None
        self.beside: Machine | None = None
        self.fleet: Any = None
        self.ok = self.failed = self.rejected = self.neutral = self.cancelled = 0
        self.late = self.slow = self.would_open = self.round = 0
        self.tune()
        self.plain_functions = False
        self.era: Any = self.closed_era("closed")

    # -- what eras ask for ---------------------------------------------------------------------------------------

    def trip_locked(self, era: Any, cause: Cause, error: object, *, wait: float | None = None) -> None:
        """Open the circuit; ``wait`` replaces the configured break. In ``metrics_only``: say that it would open."""
        now = self.clock()
        break_ = self.config.backoff.duration(self.round, _draw()) if wait is None else wait
        reason = type(error).__name__ if isinstance(error, BaseException) else None
        if era.state == "metrics_only":
            annex = self._annexed()
            if now >= annex.quiet_until:
                annex.quiet_until = now + break_
                self.would_open += 1
                self._note_locked("would_open", "metrics_only", cause, error=reason)
            return
        counts = self.present_counts(now)
        self.round += 1
        self._enter_locked(self.open_era(now + break_, cause=reason, counts=counts), cause, reason)

    def probe_locked(self, *, leased: bool = False) -> None:
        """Go from open to half-open; ``leased``: as the one worker of the fleet that may."""
        self._enter_locked(HalfOpenEra(self, self.probe_lease(), leased=leased), "break_over")

    def probe_lease(self) -> float:
        """Return the seconds that a probe may take."""
        config = self.config
        lease = config.probe_timeout if config.probe_timeout is not None else config.timeout
        if lease is None:
            lease = config.backoff.duration(max(self.round - 1, 0), 0.0)
        return seconds("probe_timeout", lease)

    def close_locked(self, cause: Cause) -> None:
        """Leave the present era for a closed one, or for the ramp before it."""
        ramp = seconds("ramp", self.config.ramp, zero=True)
        if cause == "probes_passed" and ramp:
            self._enter_locked(self.closed_era("half_open", self.clock() + ramp), "ramp_begins")
            return
        self.round = 0
        self._enter_locked(self.closed_era("closed"), cause)

    def late_success_locked(self, era: Any) -> None:
        """Add the successes that reached a buried era to the totals."""
        more = era.ok - era.folded
        era.folded = era.ok
        self.ok += more
        self.late += more

    def late_locked(self, *, failed: bool) -> None:
        """Count one outcome of a call that was admitted in an earlier era."""
        self.late += 1
        self.failed += failed
        self.ok += not failed

    def forgo(self, error: BaseException | None) -> None:
        """Count a neutral outcome; without the lock, since a garbage collector may be calling."""
        if isinstance(error, CancelledError):
            self.cancelled += 1
        self.neutral += 1

    def refuse(self) -> bool:
        """Tell listeners of a rejection; true if a fallback answers instead of an exception."""
        if self.annex is not None and "rejected" in self.annex.listeners:
            event = self._event("rejected", self.era.state, "rejected", error=None)
            self._tell("rejected", event)
        return self.config.fallback is not None

    def announce(self) -> None:
        """Call listeners and wake waiters; never under the lock."""
        annex = self.annex
        while annex is not None and annex.pending:
            try:
                job = annex.pending.popleft()
            except IndexError:  # another thread was faster
                return
            if isinstance(job, CircuitEvent):
                self._tell(job.event, job)
                if job.event == "transition" and job.before != job.after:
                    self._tell(job.after, job)
            else:
                job()

    # -- transitions ---------------------------------------------------------------------------------------------

    def move(self, cause: Cause) -> None:
        """Make the transition that a person asks for: ``reset``, ``disabled``, ``metrics_only``."""
        with self.lock:
            target = next_state(self.era.state, cause)
            self.round = 0
            self._enter_locked(DisabledEra() if target == "disabled" else self.closed_era(target), cause)
        self.announce()

    def start_over(self) -> None:
        """Become as new: closed, with nothing counted and no history; listeners stay. For tests."""
        self.move("reset")
        with self.lock:
            self.ok = self.failed = self.rejected = self.neutral = self.cancelled = 0
            self.late = self.slow = self.would_open = 0
            self.era = self.closed_era("closed")
            if self.annex is not None:
                self.annex.history.clear()
                self.annex.tally.clear()

    def rebuilt_locked(self) -> Any:
        """Return the present era anew under the present configuration."""
        era = self.era
        if isinstance(era, OpenEra):
            return self.open_era(era.until, cause=era.cause, counts=era.counts)
        if isinstance(era, HalfOpenEra):
            return HalfOpenEra(self, era.probes.lease, leased=era.leased)
        if isinstance(era, IsolatedEra | DisabledEra):
            return era
        return self.closed_era(era.state, getattr(era, "ramp_end", None))

    def open_era(self, until: float, *, cause: str | None, counts: tuple[int, int]) -> Any:
        """Return an open era; a circuit of a fleet asks before it probes."""
        kind = OpenEra if self.fleet is None else SharedOpenEra
        return kind(self, until, cause=cause, counts=counts)

    def closed_era(self, state: State, ramp_end: float | None = None) -> Any:
        """Return the cheapest era that does what the configuration asks for."""
        plain, watched = _ERAS[type(self.config.window)]
        if state != "closed" or FREE_THREADED or not self.config.plain or self.beside is not None:
            return watched(self, state, ramp_end)
        return plain(self)

    def _enter_locked(self, era: Any, cause: Cause, error: str | None = None) -> None:
        """Replace the present era, as the transition table says, and fold what it counted into the totals."""
        old = self.era
        target = next_state(old.state, cause)
        if era.state != target:
            raise AssertionError(f"{cause} leads from {old.state} to {target}, not to {era.state}")
        self._note_locked("transition", target, cause, error=error)
        if isinstance(old, StreakEra | CountEra | TimeEra):
            old.bury()
            self.era = era
            self.ok += old.ok - old.folded
            old.folded = old.ok
            self.failed += old.bad
        else:
            self.era = era
        if isinstance(old, HalfOpenEra):
            self._annexed().pending.append(old.wake)

    def swap_locked(self, era: Any, cause: Cause, error: str | None = None) -> None:
        """Enter ``era``; for callers outside this module."""
        self._enter_locked(era, cause, error)

    # -- what the callers' side asks for --------------------------------------------------------------------------

    def totals(self) -> Counts:
        """Return the totals over the breaker's life."""
        with self.lock:
            era = self.era
            running = isinstance(era, StreakEra | CountEra | TimeEra)
            return Counts(
                successes=self.ok + (era.ok - era.folded if running else 0),
                failures=self.failed + (era.bad if running else 0),
                rejected=self.rejected,
                neutral=self.neutral,
                cancelled=self.cancelled,
                late=self.late,
                slow=self.slow,
                would_open=self.would_open,
            )

    @property
    def counts_locked(self) -> bool:
        """Whether every call has to be counted under the lock."""
        return FREE_THREADED

    def ticket(self) -> Any:
        """Return what an outcome that comes without an admission settles into."""
        era = self.era
        if isinstance(era, Watched):
            return ticket(era, self.clock())
        return era if isinstance(era, StreakEra | CountEra | TimeEra | DisabledEra) else Stray(self)

    def lent(self) -> "deque[Probe]":
        """Return the probes that were lent to callers who hold no permit."""
        return self._annexed().lent

    def history(self) -> tuple[CircuitEvent, ...]:
        """Return the last transitions, the oldest first."""
        return () if self.annex is None else tuple(self.annex.history)

    def tune(self) -> None:
        """Note whether a rejection is more than an exception, and whether nobody but the fallback has to know."""
        heard = self.hears("rejected")
        self.special = heard or self.config.fallback is not None
        self.hushed = not heard

    def past(self) -> dict[str, Any]:
        """Return the last transitions, and how many of each kind there were, for JSON."""
        tally = {} if self.annex is None else self.annex.tally.copy()
        return {
            "transitions": [event.as_dict() for event in self.history()],
            "transition_counts": {f"{before}->{after}": number for (before, after), number in tally.items()},
        }

    def hears(self, event: str) -> bool:
        """Tell whether anybody listens for ``event``."""
        return self.annex is not None and bool(self.annex.listeners.get(event))

    # -- events --------------------------------------------------------------------------------------------------

    def listen(self, event: str, function: Callable[[CircuitEvent], object]) -> Callable[[], None]:
        """Call ``function`` with every ``event``; return a function that ends this."""
        if event not in EVENTS:
            raise ConfigurationError(
                "event", event, "is no event or state of a circuit breaker", f"use one of {EVENTS}"
            )
        functions = self._annexed().listeners.setdefault(event, [])
        functions.append(function)
        self.tune()

        def end() -> None:
            with suppress(ValueError):
                functions.remove(function)

        return end

    def _annexed(self) -> Annex:
        if self.annex is None:
            self.annex = Annex(self.clock())
        return self.annex

    def _event(self, kind: str, after: State, cause: str, *, error: str | None) -> CircuitEvent:
        now = self.clock()
        failures, calls = self.present_counts(now)
        began = now if self.annex is None else self.annex.began
        return CircuitEvent(
            self.name, kind, self.era.state, after, cause, error, failures, calls, max(0.0, now - began), time.time()
        )

    def _note_locked(self, kind: str, after: State, cause: Cause, *, error: str | None) -> None:
        annex = self._annexed()
        event = self._event(kind, after, cause, error=error)
        annex.pending.append(event)
        if kind == "transition":
            annex.history.append(event)
            annex.began = self.clock()
            pair = (event.before, event.after)
            annex.tally[pair] = annex.tally.get(pair, 0) + 1

    def _tell(self, name: str, event: CircuitEvent) -> None:
        functions = () if self.annex is None else tuple(self.annex.listeners.get(name, ()))
        for function in functions:
            ask(f"listener of circuit breaker {self.name}", function, event, otherwise=None)

    def present_counts(self, now: float) -> tuple[int, int]:
        """Return ``(failures, calls)`` that count now; when open, those that opened it."""
        era = self.era
        if isinstance(era, StreakEra | CountEra | TimeEra):
            return era.counted(now)
        if isinstance(era, OpenEra):
            return era.counts
        if isinstance(era, HalfOpenEra):
            return era.probes.lost, era.probes.lost + era.probes.won
        return 0, 0
