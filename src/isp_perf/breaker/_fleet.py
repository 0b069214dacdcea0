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
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Event, Thread
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from isp_perf._core.breaker_fleet import View
from isp_perf._runtime.fork import restart_in_child
from isp_perf.breaker._eras import OpenEra
from isp_perf.breaker._fleet_wire import Wire
from isp_perf.breaker._machine import Machine
from isp_perf.breaker._member import MARGIN, Member, Note, nothing

__all__ = ["Fleet"]

_POLL = 5.0
_RETRY = 0.5
logger = logging.getLogger("isp_perf.breaker")


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
            member.pending, member.early = 0, None

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
        self.post(Note(member.reconcile, nothing))

    def close(self) -> None:
        """Send what is to be sent, for a second at most, and leave: each circuit goes on by itself, in its state."""
        if not self.closed:
            self.closed = True
            self._notes.put(None)
            self._sender.join(MARGIN)
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
        self.post(Note(self._poll, nothing))

    def _hear(self, circuit: str, view: View) -> None:
        self._heard += 1
        breaker = self._members.get(circuit)
        if breaker is not None and view.by != self.worker:
            breaker.fleet.follow(view)


_fleets: WeakSet[Fleet] = WeakSet()


def _restart() -> None:
    for fleet in list(_fleets):
        fleet.begin()
        fleet.start()


restart_in_child(_restart)
