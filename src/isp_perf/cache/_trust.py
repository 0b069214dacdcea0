"""Whether the local level may be believed: only while its freshness can be proved.

A value in the local level is right until the remote level reports a change, so it may be served while reports are known
to arrive. Every answer on the channel proves that all changes made before its order was *sent* were reported. When the
last proof is older than the bound, the reaper's thread (not the event loop, which may be what stalls) withdraws the
local level; the next proof brings it back whole, because every report of the gap came before it. A connection that
ended drops it for good.
"""

from time import monotonic
from typing import Final

from isp_perf._runtime.reaper import Calendar, Moment
from isp_perf.cache._local import LocalLevel

__all__ = ["SHORTEST_BOUND", "Trust"]

SHORTEST_BOUND: Final = 0.01
_LONGEST_BOUND: Final = 60.0
_FINEST: Final = 0.002
_CAUSE: Final = "no proof of freshness"


class Trust:
    """The proof behind one local level. Methods that end in ``_locked`` need its lock.

    Args:
        local: the local level.

    Attributes:
        bound: seconds for which a proof lasts: the smallest ``max_stale`` in use.
        connected: whether changes are being reported.
        alive: moment of the last proof, in monotonic seconds.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "_calendar",
        "_local",
        "_lost_at",
        "_lost_seconds",
        "alive",
        "bound",
        "connected",
    )

    alive: float
    bound: float
    connected: bool

    def __init__(self, local: LocalLevel) -> None:
        self.alive = 0.0
        self.bound = _LONGEST_BOUND
        self.connected = False
        self._local = local
        self._armed = False
        self._lost_at: float | None = None
        self._lost_seconds = 0.0
        self._calendar = Calendar(local.lock, self._due)

    @property
    def given(self) -> bool:
        """Whether the local level may be believed now."""
        return self.connected and self._lost_at is None

    @property
    def lost_seconds(self) -> float:
        """Seconds in which it could not be believed although it was connected."""
        return self._lost_seconds + (0.0 if self._lost_at is None else monotonic() - self._lost_at)

    def narrow(self, bound: float) -> None:
        """Take note of a function that allows ``bound`` seconds; 0 is not kept in the local level at all."""
        bound = max(SHORTEST_BOUND, bound) if bound > 0 else self.bound
        if bound < self.bound:
            with self._local.lock:
                self.bound = bound
                if self.connected:
                    self._arm_locked()

    def connected_locked(self) -> None:
        """Begin: from now on changes are reported."""
        self.connected = True
        self.proved_locked(monotonic())

    def proved_locked(self, sent: float) -> None:
        """Take note that everything before ``sent`` was reported."""
        if not self.connected or sent <= self.alive:
            return
        self.alive = sent
        if monotonic() - sent >= self.bound:
            return
        if self._lost_at is not None:
            self._lost_seconds += monotonic() - self._lost_at
            self._lost_at = None
            self._local.resume_locked(_CAUSE)
        if not self._armed:
            self._arm_locked()

    def lost_locked(self) -> None:
        """End: changes may have been missed, so nothing of the local level is true."""
        if not self.connected:
            return
        self.connected = False
        self._local.drop_all_locked()
        if self._lost_at is not None:
            self._lost_seconds += monotonic() - self._lost_at
            self._lost_at = None
            self._local.resume_locked(_CAUSE)

    def _arm_locked(self) -> None:
        self._armed = True
        due = self.alive + self.bound
        self._calendar.moment_locked(max(due, monotonic() + _FINEST), self.bound)

    def _due(self, _due: list[Moment]) -> None:
        """Withdraw the local level if its time has come; called by the reaper."""
        with self._local.lock:
            self._armed = False
            if not self.connected or self._lost_at is not None:
                return
            if monotonic() - self.alive >= self.bound:
                self._lost_at = monotonic()
                self._local.suspend_locked(_CAUSE, serve=False)
            else:
                self._arm_locked()
