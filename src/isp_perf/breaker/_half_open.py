"""The half-open era: exactly ``probes`` permits, each with a lease, and the callers that wait for the decision."""

import os
import threading
from asyncio import timeout
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from isp_perf._core.breaker_probes import CLOSE, OPEN, UNDECIDED, Probes
from isp_perf._core.breaker_states import Cause, State
from isp_perf.breaker._eras import Owner
from isp_perf.breaker._shared_open import WAIT, SharedOpenEra, waker
from isp_perf.breaker._watched import Ticket, Timed
from isp_perf.errors import ProbeLimitError

__all__ = ["HalfOpenEra", "Probe", "turn"]

_new_limit = ProbeLimitError.__new__
_SHORTEST_WAIT = 0.001


class Probe(Ticket):
    """A permit for one probe. Collected unsettled, it hands itself back."""

    __slots__ = ("token",)

    def __init__(self, era: "HalfOpenEra", start: float, *, token: int) -> None:
        self.era = era
        self.start = start
        self.ok = 0
        self.token = token

    settle = Ticket.settle_fully

    def take(self) -> int:
        """Return the token, once: a second settlement finds 0, which is no permit."""
        token, self.token = self.token, 0
        return token

    def __del__(self) -> None:
        if self.token:
            self.forgo(None)


class HalfOpenEra:
    """Half-open: a few probes decide.

    Args:
        breaker: the owner.
        lease: seconds that a probe may take.
        leased: whether the right to probe is lent by the fleet, which has to be told of every permit.
    """

    __slots__ = ("breaker", "config", "leased", "lock", "pid", "probes", "returned", "waiters")

    shut: ClassVar[bool] = True
    state: State = "half_open"

    def __init__(self, breaker: Owner, lease: float, *, leased: bool = False) -> None:
        config = breaker.config
        self.breaker = breaker
        self.leased = leased
        self.config = config
        self.lock = breaker.lock
        self.pid = os.getpid()
        self.probes = Probes(
            config.probes,
            lease,
            failure_ratio=None if config.window is None else config.window.failure_ratio,
            slow_ratio=None if config.slow_call is None else config.slow_call.ratio,
        )
        # Permits come back through here, so that a collected generator or permit never has to wait for the lock.
        self.returned: deque[int] = deque()
        self.waiters: list[Callable[[], None]] = []

    def admit(self) -> Any:
        """Lend a permit, or reject; with ``overflow="wait"`` block the thread until there is a decision."""
        while True:
            found = self.lend()
            if not isinstance(found, float):
                return found if found is None or isinstance(found, Ticket) else found.admit()
            woken = threading.Event()
            self.waiters.append(woken.set)
            if self.breaker.era is self and not self.returned:
                woken.wait(found)

    def aadmit(self) -> Any:
        """Do the same for a coroutine; ``WAIT``: it has to go through ``turn``."""
        found = self.lend()
        if isinstance(found, float):
            return WAIT
        if not isinstance(found, Ticket):
            return None if found is None else found.aadmit()
        limit = self.config.deadline
        return found if limit is None else Timed(found, limit)

    def lend(self) -> Any:
        """Return a probe, the era that took this one's place, ``None`` for the fallback, or how long to wait."""
        breaker = self.breaker
        with self.lock:
            now = breaker.clock()
            token = self._token_locked(now)
            left = (self.probes.next_expiry() or now) - now
        breaker.announce()
        if token:
            return self._probe(token, now)
        if breaker.era is not self:
            return breaker.era
        if self.config.overflow == "wait":
            return max(left, _SHORTEST_WAIT)
        breaker.rejected += 1
        if breaker.special and breaker.refuse():
            return None
        raise _new_limit(ProbeLimitError, breaker.name, left)

    def _probe(self, token: int, now: float) -> Probe:
        """Return the permit; the fleet hears of every one but the first, for which its right to probe was asked."""
        if self.leased and token > 1:
            self.breaker.fleet.renew()
        return Probe(self, now, token=token)

    def _token_locked(self, now: float) -> int:
        """Return the token of a new permit, or 0; may end the era, if probes have hung."""
        if self.breaker.era is self:
            self._tidy_locked()
            self._decide_locked(self.probes.expire(now), "probe_hung", None, wait=None)
        return self.probes.lend(now) if self.breaker.era is self else 0

    def _tidy_locked(self) -> None:
        """Take back what came back; in a forked child, everything: the parent's calls are not ours."""
        pid = os.getpid()
        if pid != self.pid:
            self.pid = pid
            self.probes.out.clear()
            self.waiters.clear()
        while self.returned:
            self.probes.hand_back(self.returned.popleft())

    def _decide_locked(self, verdict: int, cause: Cause, error: object, *, wait: float | None) -> None:
        if wait is not None:
            self.breaker.trip_locked(self, "server_asked", error, wait=wait)
        elif verdict == OPEN:
            self.breaker.trip_locked(self, cause, error)
        elif verdict == CLOSE:
            self.breaker.close_locked("probes_passed")

    def conclude(
        self, ticket: Ticket, error: object, /, *, failed: bool, slow: bool = False, wait: float | None = None
    ) -> None:
        """Count an answered probe."""
        breaker = self.breaker
        token = ticket.take() if isinstance(ticket, Probe) else 0
        with self.lock:
            breaker.slow += slow
            verdict: int | None = None
            if breaker.era is self and self.pid == os.getpid():
                verdict = self.probes.settle(token, failed=failed, slow=slow)
            if verdict is None:
                breaker.late_locked(failed=failed)
                return
            breaker.ok += not failed
            breaker.failed += failed
            self._decide_locked(verdict, "probe_failed", error, wait=wait)
        if verdict != UNDECIDED or wait is not None:
            breaker.announce()

    def give_back(self, ticket: Ticket, error: BaseException | None, /) -> None:
        """Count a neutral outcome and hand the permit back."""
        token = ticket.take() if isinstance(ticket, Probe) else 0
        if not token:
            return
        self.returned.append(token)
        self.breaker.forgo(error)
        self.wake()
        if self.leased:
            self.breaker.fleet.returned(self)

    def idle_locked(self) -> bool:
        """Tell whether this era goes on with no probe out: then the fleet's right to probe can be given back."""
        if self.breaker.era is not self:
            return False
        self._tidy_locked()
        return not self.probes.out

    async def decision(self) -> None:
        """Sleep until the era is decided, a permit came back, or the first lease is over."""
        wake, woken = waker()
        self.waiters.append(wake)
        if self.breaker.era is not self or self.returned:
            return
        now = self.breaker.clock()
        limit = max((self.probes.next_expiry() or now) - now, _SHORTEST_WAIT)
        try:
            async with timeout(limit):
                await woken
        except TimeoutError:
            return
        finally:
            if wake in self.waiters:
                self.waiters.remove(wake)

    def wake(self) -> None:
        """Let the waiters look again."""
        while self.waiters:
            try:
                self.waiters.pop()()
            except (IndexError, RuntimeError):  # another thread was faster; the waiter's loop is closed
                continue


async def turn(breaker: Owner) -> Any:
    """Wait until a coroutine's call is admitted and return what it settles into; ``None``: take the fallback.

    Raises:
        RejectedError: the decision was against it.
    """
    while True:
        era = breaker.era
        found = era.aadmit()
        if found is not WAIT:
            return found
        if isinstance(breaker.era, HalfOpenEra | SharedOpenEra):
            await breaker.era.decision()
