"""A fleet: the circuits of many processes, joined by their transitions.

The local circuit decides; only its transitions travel, so that a call costs no command, whether it is made or
rejected. Two daemon threads per process do the talking: the *sender* runs one script call after the other and polls
once in a while, the *listener* hears at once what other processes changed. Callers hand over notes and never wait,
except for the one that asks for the right to probe (see ``_shared_open``).

A store that does not answer changes nothing for a caller. Notes that could not be sent are dropped: when the store is
back, each circuit is compared with its record, and what the record lacks is told again.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Event, Thread
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from isp_perf._core.breaker_fleet import View, followed
from isp_perf._core.breaker_states import State
from isp_perf._runtime.fork import restart_in_child
from isp_perf.breaker._eras import IsolatedEra, OpenEra
from isp_perf.breaker._fleet_wire import Wire
from isp_perf.breaker._half_open import HalfOpenEra
from isp_perf.breaker._machine import Machine
from isp_perf.breaker._obeying import obey_locked, return_locked
from isp_perf.breaker._records import CircuitEvent
from isp_perf.breaker._shared_open import SharedOpenEra

__all__ = ["Fleet", "Member"]

_POLL = 5.0
_RETRY = 0.5
_MARGIN = 1.0
_BY_HAND = ("disabled", "metrics_only")
_LOCAL = {"isolated", "break_over", "ramp_over", "reconfigured", "probe_returned"}
_OWN_OPENING = {"too_many_failures", "too_many_slow_calls", "server_asked", "probe_failed", "probe_hung"}
logger = logging.getLogger("isp_perf.breaker")


def _nothing() -> None:
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


class Member:
    """The link of one circuit to its fleet.

    Args:
        fleet: the fleet.
        breaker: the circuit.
    """

    __slots__ = ("breaker", "fleet", "known", "own", "pending", "undelivered")

    def __init__(self, fleet: "Fleet", breaker: Machine) -> None:
        self.fleet = fleet
        self.breaker = breaker
        self.known = 0
        self.own = False
        self.pending = 0
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
        if cause in _OWN_OPENING:
            self.own = True
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
            era.answered(self._tell("lease", _ms(lease + _MARGIN), self.fleet.quorum).wait, lease)
            wake()

        def lost() -> None:
            era.answered(0.0, float("inf"))
            wake()

        self._post(send, lost)

    def renew(self) -> None:
        """Keep the right for as long as another probe may take."""
        lease = _ms(self.breaker.probe_lease() + _MARGIN)
        self._post(partial(self._tell, "lease", lease, self.fleet.quorum))

    def returned(self, era: HalfOpenEra) -> None:
        """Give the right back if no probe of ``era`` is out any more."""
        # Without the lock that counting the note would take: the garbage collector may be calling.
        self.fleet.post(Note(partial(self._give_back, era), _nothing))

    def doubt(self) -> None:
        """Take note that the store did not answer in time."""
        self.fleet.connected = False

    # -- in the sender's thread ----------------------------------------------------------------------------------

    def _post(self, send: Callable[[], object], lost: Callable[[], object] = _nothing) -> None:
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

    def _tell(self, operation: str, *values: object) -> View:
        view = self.fleet.wire.call(operation, self.breaker.name, self.fleet.worker, *values)
        self.follow(view, pending=1)
        return view

    def _tell_opened(self, error: str | None) -> None:
        breaker = self.breaker
        era = breaker.era
        if isinstance(era, OpenEra):
            left = max(0.0, era.until - breaker.clock())
            vote = left + breaker.probe_lease() + _MARGIN
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
        elif state == "open" and (self.own or forgotten):
            self._tell_opened(self.breaker.era.cause)
        elif state == "closed" and view.state == "open" and view.version == self.known:
            self._tell("close", self.known, "closed")  # a probe of our own passed while the store was away


class Fleet:
    """The shared circuits of this process; made by ``CircuitRegistry.share`` with a ``wire`` to the store.

    Attributes:
        worker: the name of this process in the fleet; a forked child has its own.
        quorum: how many workers must have opened a circuit before it opens for all.
        connected: whether the store answered when it was asked last.
        closed: whether ``close`` was called.
    """

    wire: Wire
    worker: str
    quorum: int
    connected: bool
    closed: bool

    def __init__(self, wire: Wire, quorum: int) -> None:
        self.wire = wire
        self.quorum = quorum
        self.closed = False
        self._members: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.begin()
        _fleets.add(self)

    def begin(self) -> None:
        """Be a new worker, with nothing under way: at the start, and in a forked child."""
        self.worker = token_hex(8)
        self.connected = False
        self._notes: SimpleQueue[Note | None] = SimpleQueue()
        self._closing = Event()
        self._changes: object = self  # equal to no answer of the store
        self._retry_at = monotonic()
        self._sent = self._failed = self._heard = 0
        for member in self._links():
            member.pending = 0

    def start(self) -> None:
        """Start the two threads."""
        if not self.closed:
            self._sender = Thread(target=self._send, name="isp_perf fleet sender", daemon=True)
            self._sender.start()
            Thread(target=self._listen, args=(self._closing,), name="isp_perf fleet listener", daemon=True).start()

    def join(self, breaker: Machine) -> None:
        """Share ``breaker``."""
        member = Member(self, breaker)
        with breaker.lock:
            breaker.fleet = member
            if isinstance(breaker.era, OpenEra):
                breaker.era = breaker.rebuilt_locked()
        breaker.listen("transition", member.heard)
        self._members[breaker.name] = breaker
        self.post(Note(member.reconcile, _nothing))

    def close(self) -> None:
        """Send what is to be sent, for a second at most, and leave: each circuit goes on by itself, in its state."""
        if not self.closed:
            self.closed = True
            self._notes.put(None)
            self._sender.join(_MARGIN)
            self.connected = False
            self._closing.set()

    def report(self) -> dict[str, Any]:
        """Return how the fleet is, for JSON: ``connected``, ``worker``, ``quorum`` and what was sent and heard."""
        return {
            "connected": self.connected,
            "worker": self.worker,
            "quorum": self.quorum,
            "circuits": len(self._members),
            "sent": self._sent,
            "failed": self._failed,
            "heard": self._heard,
        }

    def post(self, note: Note) -> None:
        """Hand a note to the sender."""
        if not self.closed:
            self._notes.put(note)

    def _links(self) -> list[Member]:
        links = [breaker.fleet for breaker in list(self._members.values())]
        return [link for link in links if isinstance(link, Member) and link.fleet is self]

    # -- the sender ----------------------------------------------------------------------------------------------

    def _send(self) -> None:
        while True:
            with suppress(Empty):
                note = self._notes.get(timeout=max(0.0, self._due - monotonic()))
                if note is None:
                    return
                self._deliver(note)
            if monotonic() >= self._due:
                self._try(self._poll)

    @property
    def _due(self) -> float:
        """The instant of the next poll."""
        return self._retry_at if self.connected else min(self._retry_at, monotonic() + _RETRY)

    def _deliver(self, note: Note) -> None:
        if not self.connected or not self._try(note.send):
            note.lost()

    def _try(self, work: Callable[[], object]) -> bool:
        """Do something that needs the store; a failure is logged once per outage."""
        try:
            work()
        except Exception:
            self._failed += 1
            if self.connected:
                logger.warning("the fleet's store does not answer; circuits decide for this process", exc_info=True)
            self.connected = False
        else:
            self._sent += 1
            self.connected = True
        self._retry_at = monotonic() + (_POLL if self.connected else _RETRY)
        return self.connected

    def _poll(self) -> None:
        """Look whether changes were missed; after an outage compare every circuit."""
        changes = self.wire.changes()
        if changes != self._changes or not self.connected:
            for member in self._links():
                member.reconcile()
            self._changes = changes

    # -- the listener --------------------------------------------------------------------------------------------

    def _listen(self, closing: Event) -> None:
        while not closing.is_set():
            with suppress(Exception):  # the sender notices and logs the outage
                for change in self.wire.listen(closing):
                    if change is None:
                        self._missed()
                    else:
                        self._hear(*change)
            closing.wait(_RETRY)

    def _missed(self) -> None:
        """Have the sender compare every circuit."""
        self._changes = self
        self.post(Note(self._poll, _nothing))

    def _hear(self, circuit: str, view: View) -> None:
        self._heard += 1
        breaker = self._members.get(circuit)
        if breaker is not None and view.by != self.worker:
            breaker.fleet.follow(view)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


_fleets: WeakSet[Fleet] = WeakSet()


def _restart() -> None:
    for fleet in list(_fleets):
        fleet.begin()
        fleet.start()


restart_in_child(_restart)
