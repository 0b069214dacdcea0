"""The second level of one manager: where its orders go, what it holds there, and whether it may be believed.

It may be sick at any time without a reader noticing more than a miss. The first failure ends its use: calls go to their
loaders, and one prober in the background finds out when it is back. What it could not be told meanwhile stands in the
journal, which is delivered before anything is believed again.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import ref

from isp_perf._core.envelope import Sealer
from isp_perf._core.journal import Journal
from isp_perf._core.leases import LEASE_SECONDS, kind_of
from isp_perf._runtime.flights import Flight
from isp_perf.cache._doubts import Doubts
from isp_perf.cache._ear import Ear
from isp_perf.cache._health import Condition, Tally
from isp_perf.cache._home import Home
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._marks import Marks
from isp_perf.cache._trust import Trust
from isp_perf.typing import Drop, Observer, Order, RemoteLevel, Renew

__all__ = ["DEADLINE", "SICKNESS", "Held", "SecondLevel", "Steps"]

Steps = Generator[Callable[[], Any], Any, Any]
DEADLINE: Final = 0.05
"""Seconds that a caller waits for the remote level before it goes on without."""
SICKNESS: Final = Exception
"""What a level may raise, its driver's own errors among them: none is the reader's."""
_MOST_ORPHANS: Final = 10_000
_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\"})


class Held(NamedTuple):
    """A lease that this process holds."""

    token: bytes
    flight: Flight
    claim: Any

    @property
    def ended(self) -> bool:
        """Whether its load can never fill it."""
        return self.flight.landed or self.flight.abandoned()


class SecondLevel:
    """The remote level of one manager. Its flows yield steps of the colour that ``tasks`` names.

    Args:
        level: the remote level.
        local: the manager's local level, whose lock guards what is here.
        namespace: what stands first in every key there.
        schema: what stands second.
        secrets: for sealing; none: see ``Sealer``.
        flush: bump the namespace's version after an outage.
        upkeep: returns the flow that tends the level beside its callers, see ``_upkeep``.
        observer: hears of outages.

    Attributes:
        all_name: what is removed, and never there, to say that anything may have been removed.
        epoch: the version of the namespace, as last seen.
        sealed: loads whose question is on its way or answered, by key: whoever comes later asks for itself.
        held: leases of this process by key.
        doubts: keys under which it may have something older than what was returned here.
        delivering: callers that are telling the level what stands in the journal.
        schemas: every schema that a living manager of the namespace uses.
    """

    all_name: str
    condition: Condition
    delivering: int
    doubts: Doubts
    epoch: bytes
    epoch_name: str
    flush: bool
    held: dict[str, Held]
    identity: str
    journal: Journal
    level: RemoteLevel
    local: LocalLevel
    marks: Marks
    namespace: str
    prefix: str
    schema: str
    schemas: set[str]
    schemas_name: str
    sealed: dict[Flight, str]
    sealer: Sealer
    tally: Tally
    trust: Trust
    used_at: float

    def __init__(
        self,
        level: RemoteLevel,
        local: LocalLevel,
        *,
        namespace: str,
        schema: str,
        secrets: Sequence[bytes] = (),
        flush: bool = True,
        upkeep: "Callable[[ref[SecondLevel], Home], Steps]",
        observer: Observer | None = None,
    ) -> None:
        self.level = level
        self.local = local
        self.namespace = namespace
        self.schema = schema
        self.flush = flush
        self.prefix = f"{namespace}:{schema}:"
        self.epoch_name = f"{namespace}:%epoch"
        self.schemas_name = f"{namespace}:%schemas"
        self.all_name = f"{namespace}:%all"
        self.sealer = Sealer(namespace, secrets)
        self.condition = Condition(namespace, observer)
        self.tally = Tally()
        self.journal = Journal(self.epoch_name)
        self.marks = Marks()
        self.doubts = Doubts()
        self.trust = Trust(local)
        self.epoch = b""
        self.identity = ""
        self.schemas = {schema}
        self.sealed = {}
        self.held = {}
        self.used_at = monotonic()
        self.delivering = 0
        self._orphans: dict[str, tuple[bytes, float]] = {}
        self._home: Home | None = None
        self._upkeep = upkeep
        with local.lock:
            local.index_locked()

    # -- names

    def wire(self, key: str) -> str:
        """Return the key in the remote level of a logical key."""
        return self.prefix + key

    def tag_name(self, tag: str) -> str:
        """Return the key of a tag's version."""
        return f"{self.namespace}:%tag:{tag}"

    def refresh_name(self, key: str) -> str:
        """Return the key that is leased for an early refresh of a logical key."""
        return f"{self.namespace}:%refresh:{self.schema}:{key}"

    def names(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Return the keys of the versions that a value with these tags depends on; the namespace's comes first."""
        return (self.epoch_name, *map(self.tag_name, tags))

    def everywhere(self, wires: Iterable[str]) -> list[str]:
        """Return ``wires``, and what they are called under the other schemas that live."""
        names = list(wires)
        others = [f"{self.namespace}:{schema}:" for schema in self.schemas if schema != self.schema]
        return names + [
            prefix + name.removeprefix(self.prefix)
            for prefix in others
            for name in names
            if name.startswith(self.prefix)
        ]

    # -- orders

    @property
    def ready(self) -> bool:
        """Whether it may be asked and believed."""
        return self.condition.state == "up"

    def order(self, orders: Sequence[Order], *, tasks: bool, within: float = DEADLINE) -> Steps:
        """Carry out ``orders`` in one round trip and return their answers; errors are the level's."""
        home = self.home(tasks=tasks)
        self.used_at = sent = monotonic()
        if not home.serves(tasks=tasks):
            level = self.level if tasks else self.level.blocking
            return (yield partial(level.perform, orders, within=within))
        answers = yield partial(home.channel.perform, orders, within=within)
        with self.local.lock:
            self.trust.proved_locked(sent)
        return answers

    def attempt(self, orders: Sequence[Order], *, tasks: bool) -> Steps:
        """As ``order``, but a failure ends the level's use and answers ``None``."""
        try:
            return (yield from self.order(orders, tasks=tasks))
        except SICKNESS as error:
            self.failed(error)
            return None

    def failed(self, error: Exception) -> None:
        """Take note of a failure: the level is left alone until a probe works."""
        kind = kind_of(error)
        self.tally.count_error(kind)
        if kind == "busy":  # our own limit, not the level's
            return
        self.down(kind)

    def down(self, kind: str) -> None:
        """End the level's use; whoever waits for it goes on without."""
        with self.local.lock:
            self.tally.outages += self.condition.down(kind)
            self.marks.changed_all_locked()

    @property
    def errors(self) -> int:
        """Failures so far."""
        return sum(self.tally.errors.values())

    # -- removal

    def drop(self, names: Iterable[str], *, tasks: bool) -> Steps:
        """Remove ``names`` and return whether that is done, or stands in the journal."""
        gone = self.everywhere(names)
        return (yield from self.deliver([Drop(chunk) for chunk in _chunks(gone)], gone, tasks=tasks))

    def deliver(self, orders: Sequence[Order], names: Sequence[str], *, tasks: bool) -> Steps:
        """Carry out ``orders``, which remove ``names``; return whether that is done, or stands in the journal."""
        with self.local.lock:
            self.journal.add(names, past=not self.ready)
        return (yield from self.tell(orders, names, tasks=tasks))

    def tell(self, orders: Sequence[Order], names: Sequence[str], *, tasks: bool) -> Steps:
        """As ``deliver``, for ``names`` that stand in the journal already: what is added meanwhile stays in it."""
        sent = self.journal.moment
        if not self.ready:
            self.home(tasks=tasks)
            return False
        self.delivering += 1
        try:
            answers = yield from self.attempt(orders, tasks=tasks)
        finally:
            self.delivering -= 1
        if answers is None:
            return False
        with self.local.lock:
            self.journal.delivered(names, sent=sent)
        return True

    def drop_pattern(self, glob: str, *, tasks: bool) -> Steps:
        """Remove what matches ``glob`` under every living schema; return whether that is done."""
        globs = [f"{self.namespace}:{schema}:".translate(_GLOB) + glob for schema in sorted(self.schemas)]
        with self.local.lock:
            for each in globs:
                self.journal.add_glob(each)
        if not self.ready:
            self.home(tasks=tasks)
            return False
        return (yield from self._deliver_globs(globs, tasks=tasks))

    def _deliver_globs(self, globs: Sequence[str], *, tasks: bool) -> Steps:
        level = self.level if tasks else self.level.blocking
        try:
            for glob in globs:
                sent = self.journal.moment
                yield partial(level.delete_pattern, glob, force=True)
                yield from self.order([Drop((self.all_name,))], tasks=tasks)
                with self.local.lock:
                    self.journal.delivered((), (glob,), sent=sent)
        except SICKNESS as error:
            self.failed(error)
            return False
        return True

    def settle(self, *, tasks: bool) -> Steps:
        """Deliver the journal if the level is up; return whether nothing is left."""
        self.home(tasks=tasks)
        while self.ready and len(self.journal):
            names, globs = self.journal.chunk(), self.journal.globs()
            done = (yield from self.tell([Drop(names)], names, tasks=tasks)) if names else True
            if not done or not (yield from self._deliver_globs(globs, tasks=tasks)):
                break
        return self.ready and not len(self.journal)

    def past(self, wire: str) -> None:
        """Take note that a caller is served past the level: what is there is removed before it is believed again."""
        with self.local.lock:
            self.tally.past += 1
        self.owe(wire)

    def owe(self, wire: str) -> None:
        """Take note that what is under ``wire``, there or here, may be older than what was just returned."""
        with self.local.lock:
            self.journal.add((wire,), past=True)
            self._changed_locked(wire)

    def doubt(self, wire: str, payload: bytes | None) -> None:
        """As ``owe``, but nothing is removed there: only an older value is not believed; see ``_doubts``."""
        with self.local.lock:
            self.journal.add(self.doubts.raise_locked(wire, payload), past=True)
            self._changed_locked(wire)

    def unsure_locked(self, wire: str) -> bool:
        """Return whether a value under ``wire`` whose load began before now may be older than what was returned."""
        return wire in self.doubts or self.journal.is_past(wire)

    # -- leases

    def hold_locked(self, wire: str, held: Held) -> None:
        """Take note of a lease."""
        self.held[wire] = held

    def return_locked(self, wire: str, flight: Flight) -> Held | None:
        """Take note that ``flight`` holds its lease no longer; return that lease, if it is still known."""
        held = self.held.get(wire)
        return self.held.pop(wire) if held is not None and held.flight is flight else None

    def orphan_locked(self, wires: Iterable[str], token: bytes) -> None:
        """Take note of leases whose answer was lost, and that may have been granted."""
        until = monotonic() + LEASE_SECONDS
        for wire in wires:
            self._orphans[wire] = (token, until)
        while len(self._orphans) > _MOST_ORPHANS:
            del self._orphans[next(iter(self._orphans))]

    def adopt_locked(self, wire: str, token: bytes) -> bool:
        """Return whether the lease ``token`` is one whose answer was lost; it is the caller's then."""
        known = self._orphans.get(wire)
        if known is None or known[0] != token:
            return False
        del self._orphans[wire]
        return True

    def renewal(self) -> list[Order]:
        """Return the order that keeps the leases of living loads, if there are any."""
        now = monotonic()
        with self.local.lock:
            self._orphans = {wire: orphan for wire, orphan in self._orphans.items() if orphan[1] > now}
            living = {wire: held for wire, held in self.held.items() if not held.ended}
            self.held = living
            tokens = tuple(held.token for held in living.values())
            return [Renew(tuple(living), tokens, LEASE_SECONDS)] if living else []

    # -- what the channel reports

    def changed(self, keys: Sequence[bytes] | None, /) -> None:
        """Forget what changed."""
        with self.local.lock:
            if keys is None:
                self._changed_all_locked()
                return
            for key in keys:
                self._changed_locked(key.decode("utf-8", "surrogatepass"))

    def _changed_locked(self, name: str) -> None:
        self.marks.changed_locked(name)
        if name.startswith(self.prefix):
            entry = self.local.index_locked().get(name.removeprefix(self.prefix))
            if entry is not None:
                self.local.invalidate_locked(entry)
        elif name in {self.epoch_name, self.all_name}:
            self._changed_all_locked()
        else:
            for entry in list(self.local.tagged.get(name.removeprefix(self.tag_name("")), ())):
                self.local.invalidate_locked(entry)

    def _changed_all_locked(self) -> None:
        self.marks.changed_all_locked()
        self.local.drop_all_locked()

    def connected(self) -> None:
        """Believe the local level: changes are reported."""
        with self.local.lock:
            self.trust.connected_locked()

    def lost(self) -> None:
        """Drop the local level: changes may have been missed."""
        with self.local.lock:
            self.trust.lost_locked()
        if self._home is not None and not self._home.gone:
            self.tally.count_error("reset")
            self.down("reset")

    # -- home

    @property
    def channel(self) -> str:
        """How changes by others are heard of now: ``"tracking"``, ``"pubsub"`` or ``"none"``."""
        home = self._home
        if home is None or not self.trust.connected:
            return "none"
        return str(getattr(home.channel, "kind", "tracking"))

    def home(self, *, tasks: bool) -> Home:
        """Return where the channel lives; a new one if there is none, or a loop's if it was a thread's."""
        home = self._home
        if home is not None and not home.gone and (home.loop is not None or not tasks):
            return home
        with self.local.lock:
            if self._home is home:
                self.leave()
                level = self.level if tasks else self.level.blocking
                self._home = home = Home(level.channel(f"{self.namespace}:", Ear(ref(self))), tasks=tasks)
                home.start(self._upkeep(ref(self), home))
            return self._home or self.home(tasks=tasks)

    def leave(self) -> None:
        """End the channel; the next use opens another one. A forked child forgets what is its parent's."""
        home, self._home = self._home, None
        if home is None:
            return
        with self.local.lock:
            self.trust.lost_locked()
            self.marks.changed_all_locked()
            if home.forked:
                self.journal = Journal(self.epoch_name)
                for place in (self.held, self.sealed, self._orphans, self.doubts):
                    place.clear()
        home.close()


def _chunks(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + 100]) for start in range(0, len(names), 100)]
