"""The link of one circuit to its fleet: what is told of its transitions, and how it follows those of others."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from isp_perf._core.breaker_fleet import View, followed
from isp_perf._core.breaker_states import State
from isp_perf.breaker._eras import IsolatedEra, OpenEra
from isp_perf.breaker._fleet_wire import Wire
from isp_perf.breaker._half_open import HalfOpenEra
from isp_perf.breaker._machine import Machine
from isp_perf.breaker._obeying import obey_locked, return_locked
from isp_perf.breaker._records import CircuitEvent
from isp_perf.breaker._shared_open import SharedOpenEra

__all__ = ["MARGIN", "Lane", "Member", "Note", "nothing"]

MARGIN = 1.0
"""Seconds for which the right to probe is lent beyond what a probe may take."""

_BY_HAND = ("disabled", "metrics_only")
_LOCAL = {"isolated", "break_over", "ramp_over", "reconfigured", "probe_returned"}
_OWN_OPENING = {"too_many_failures", "too_many_slow_calls", "server_asked", "probe_failed", "probe_hung"}


def nothing() -> None:
    """Nobody waits for a note that was lost."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the sender: what to do, and what to do instead if the store cannot be reached."""

    send: Callable[[], object]
    lost: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Foreign:
    """An isolation that another worker holds; ``reason`` is what it said."""

    worker: str
    reason: str


class Lane(Protocol):
    """What a member needs of its fleet."""

    wire: Wire
    worker: str
    quorum: int
    connected: bool

    def post(self, note: Note) -> None:
        """Hand a note to the sender."""
        ...


class Member:
    """The link of one circuit to its fleet.

    Args:
        fleet: the fleet.
        breaker: the circuit.
    """

    __slots__ = ("breaker", "early", "fleet", "known", "own", "pending", "undelivered")

    def __init__(self, fleet: Lane, breaker: Machine) -> None:
        self.fleet = fleet
        self.breaker = breaker
        self.known = 0
        self.own = False
        self.pending = 0
        self.early: View | None = None  # the newest record heard while an answer to a note of our own was due
        self.undelivered: tuple[object, ...] | None = None

    @property
    def connected(self) -> bool:
        """Whether the store answered when it was asked last."""
        return self.fleet.connected

    # -- what the circuit says -----------------------------------------------------------------------------------

    def heard(self, event: CircuitEvent) -> None:
        """Tell the fleet of a transition that happened here."""
        cause = event.cause
        if cause in _LOCAL or cause.startswith("fleet_"):
            return
        self.own = cause in _OWN_OPENING
        if self.own:
            self._post(partial(self._tell_opened, event.error))
        elif cause in {"probes_passed", "ramp_begins"}:
            self._post(partial(self._tell, "close", self.known, "ramp" if cause == "ramp_begins" else "closed"))
        elif cause == "released":
            self.tell_held()
        else:
            self.undelivered = ("reset",) if cause == "reset" else ("set", cause)
            self._post(self._tell_by_hand)

    def tell_held(self) -> None:
        """Tell the fleet which isolations are held here."""
        self._post(self._tell_held)

    def ask(self, era: SharedOpenEra, wake: Callable[[], object]) -> None:
        """Ask for the right to probe; ``era`` gets the answer, then ``wake`` is called."""

        def send() -> None:
            lease = self.breaker.probe_lease()
            era.answered(self._tell("lease", _ms(lease + MARGIN), self.fleet.quorum).wait, lease)
            wake()

        def lost() -> None:
            era.answered(0.0, float("inf"))
            wake()

        self._post(send, lost)

    def renew(self) -> None:
        """Keep the right for as long as another probe may take."""
        lease = _ms(self.breaker.probe_lease() + MARGIN)
        self._post(partial(self._tell, "lease", lease, self.fleet.quorum))

    def returned(self, era: HalfOpenEra) -> None:
        """Give the right back if no probe of ``era`` is out any more."""
        # Without the lock that counting the note would take: the garbage collector may be calling.
        self.fleet.post(Note(partial(self._give_back, era), nothing))

    def doubt(self) -> None:
        """Take note that the store did not answer in time."""
        self.fleet.connected = False

    # -- in the sender's thread ----------------------------------------------------------------------------------

    def _post(self, send: Callable[[], object], lost: Callable[[], object] = nothing) -> None:
        with self.breaker.lock:
            self.pending += 1

        def sent() -> None:
            send()
            self._done()

        def dropped() -> None:
            self._done()
            lost()

        self.fleet.post(Note(sent, dropped))

    def _done(self) -> None:
        with self.breaker.lock:
            self.pending -= 1
            early, self.early = self.early, None
        if early is not None:
            self.follow(early)

    def _tell(self, operation: str, *values: object) -> View:
        view = self.fleet.wire.call(operation, self.breaker.name, self.fleet.worker, *values)
        self.follow(view, pending=1)
        return view

    def _tell_opened(self, error: str | None) -> None:
        breaker = self.breaker
        era = breaker.era
        if isinstance(era, OpenEra):
            left = max(0.0, era.until - breaker.clock())
            vote = left + breaker.probe_lease() + MARGIN
            quorum = self.fleet.quorum
            self._tell("open", _ms(left), quorum, _ms(vote), error or "", breaker.round)

    def _tell_held(self) -> None:
        held = self._held_here()
        if not held:
            self._tell("drop")
            return
        ends = [end for _, end in held]
        left = -1 if None in ends else _ms(max(end for end in ends if end is not None) - self.breaker.clock())
        self._tell("hold", left, "; ".join(reason for reason, _ in held))

    def _held_here(self) -> list[tuple[str, float | None]]:
        with self.breaker.lock:
            era = self.breaker.era
            held = era.held.items() if isinstance(era, IsolatedEra) else ()
            return [(item.reason, end) for item, end in held if not isinstance(item, Foreign)]

    def _tell_by_hand(self) -> None:
        job = self.undelivered
        if job is not None:
            self._tell(*map(str, job))
            if self.undelivered is job:  # else another one was made meanwhile, with a note of its own
                self.undelivered = None

    def _give_back(self, era: HalfOpenEra) -> None:
        breaker = self.breaker
        with breaker.lock:
            idle = era.idle_locked()
            if idle:
                return_locked(breaker)
        if idle:
            breaker.announce()
            self._tell("give")

    # -- what the fleet says -------------------------------------------------------------------------------------

    def follow(self, view: View, *, pending: int = 0) -> None:
        """Take the state that ``view`` asks for; while notes of our own are on their way, their answers are waited for.

        Args:
            view: the record.
            pending: how many notes may be under way: 1 if ``view`` answers one.
        """
        breaker = self.breaker
        with breaker.lock:
            if self.pending > pending:
                self._keep_locked(view)
                return
            state: State = breaker.era.state
            target = followed(view, known=self.known, me=self.fleet.worker, local=state, own=self.own)
            self.known = max(self.known, view.version)
            if view.state == "open" or target is not None:
                self.own = False
            if target is not None:
                obey_locked(breaker, target, view)
            if target == "isolated":
                self._join_held_locked(view)
        if target is not None:
            breaker.announce()

    def _keep_locked(self, view: View) -> None:
        """Remember the newest record that cannot be followed yet."""
        if self.early is None or self.early.version < view.version:
            self.early = view

    def _join_held_locked(self, view: View) -> None:
        breaker = self.breaker
        era, now = breaker.era, breaker.clock()
        ours = {item: end for item, end in era.held.items() if not isinstance(item, Foreign)}
        others = {
            Foreign(worker, reason): None if left is None else now + left
            for worker, (left, reason) in view.held_by_others(self.fleet.worker).items()
        }
        era.held = ours | others
        if not era.held:
            obey_locked(breaker, "closed", view)

    def reconcile(self) -> None:
        """Compare the circuit with its record after changes may have been missed, and tell what the record lacks."""
        breaker = self.breaker
        before = self.known
        view = self.fleet.wire.call("read", breaker.name, self.fleet.worker)
        self.follow(view)
        if self.undelivered is not None:
            self._tell_by_hand()
        elif bool(self._held_here()) != (self.fleet.worker in view.held):
            self._tell_held()
        else:
            self._tell_lacking(view, forgotten=view.version < before)

    def _tell_lacking(self, view: View, *, forgotten: bool) -> None:
        """Tell what the record does not say; ``forgotten``: the store has lost its data."""
        state: State = self.breaker.era.state
        if forgotten and state in _BY_HAND:
            self._tell("set", state)
        elif state == "open":
            if self.own or forgotten:
                self._tell_opened(self.breaker.era.cause)
        elif (state, view.state, view.version) == ("closed", "open", self.known):
            self._tell("close", self.known, "closed")  # a probe of our own passed while the store was away


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
