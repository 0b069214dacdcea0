"""What a breaker tells about itself: events, counts, and the part of its state that only a history needs."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isp_perf._core.breaker_states import STATES, State
from isp_perf.breaker._half_open import Probe

__all__ = ["EVENTS", "Annex", "CircuitEvent", "Counts"]

EVENTS = (*STATES, "transition", "rejected", "would_open")
"""What can be listened for: a state that is entered, any transition, a rejected call, a trip in ``metrics_only``."""

_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class CircuitEvent:
    """Something that happened to a breaker; what listeners are given and ``report()`` lists.

    Attributes:
        breaker: the breaker's name.
        event: ``"transition"``, ``"rejected"`` or ``"would_open"``.
        before: the state it left.
        after: the state it is in.
        cause: why, as in the transition table.
        error: class name of the failure that caused it; ``None`` if none did.
        failures: failures that counted then.
        calls: calls they were compared with.
        lasted: seconds that the state before had lasted.
        at: wall-clock time (seconds since 1970), for display only.
    """

    breaker: str
    event: str
    before: State
    after: State
    cause: str
    error: str | None
    failures: int
    calls: int
    lasted: float
    at: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the calls of one breaker, over its life.

    Attributes:
        successes: calls that succeeded.
        failures: calls that failed.
        rejected: calls that were not made.
        neutral: calls whose outcome counts as nothing, cancelled ones included.
        cancelled: calls that were cancelled: neutral, or failures if it was after the slow duration.
        late: outcomes of calls that an earlier era had admitted; they are in the totals and changed no state.
        slow: calls that took at least the slow duration.
        would_open: times that ``metrics_only`` did not open.
    """

    successes: int
    failures: int
    rejected: int
    neutral: int
    cancelled: int
    late: int
    slow: int
    would_open: int


class Annex:
    """What only a breaker with a history or listeners needs."""

    __slots__ = ("began", "history", "lent", "listeners", "pending", "quiet_until", "tally")

    began: float
    quiet_until: float

    def __init__(self, began: float) -> None:
        self.began = began
        self.history: deque[CircuitEvent] = deque(maxlen=_REMEMBERED)
        self.lent: deque[Probe] = deque()
        self.listeners: dict[str, list[Callable[[CircuitEvent], object]]] = {}
        self.pending: deque[CircuitEvent | Callable[[], None]] = deque()
        self.quiet_until = float("-inf")
        self.tally: dict[tuple[State, State], int] = {}
