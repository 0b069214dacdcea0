"""The second level: a ``RemoteLevel`` that may be sick at any time without the cache noticing more than a miss.

After a failure it is left alone for a while, so that a dead Redis does not cost every miss its timeout. Keys that were
to be deleted meanwhile are *debts*: they are deleted before anything is read again. A key that is being written is not
read, and one whose write failed or was overtaken by an invalidation is a debt too, since the write may yet arrive.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, Final

from isp_perf.typing import Clock, RemoteLevel

__all__ = ["Ops", "SecondLevel", "Steps"]

Steps = Generator[Callable[[], Any], Any, Any]
Ops = Any
_FIRST_REST: Final = 0.1
_LONGEST_REST: Final = 5.0
_MOST_DEBTS: Final = 10_000
# A driver's own errors are among them (no memory, no permission, a foreign type under the key): none is the reader's.
_SICKNESS: Final = Exception
_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\"})


class SecondLevel:
    """The remote level of one manager. Its methods are flows: they yield steps of the colour of ``ops``.

    Args:
        level: the remote level.
        prefix: what stands before every logical key, ``namespace:schema:``.
        clock: monotonic seconds.
    """

    errors: int

    def __init__(self, level: RemoteLevel, prefix: str, clock: Clock) -> None:
        self.level = level
        self.prefix = prefix
        self.errors = 0
        self._clock = clock
        self._rest_until = float("-inf")
        self._rest = 0.0
        self._debts: set[str] = set()
        self._patterns: set[str] = set()
        self._writing: dict[str, int] = {}

    @property
    def resting(self) -> bool:
        """Whether it is left alone after a failure."""
        return self._clock() < self._rest_until

    @property
    def owes(self) -> bool:
        """Whether deletions are still to be delivered."""
        return bool(self._debts or self._patterns)

    def read_many(self, ops: Ops, keys: Iterable[str]) -> Steps:
        """Return the bytes of those ``keys`` that are there and may be believed, in one round trip."""
        wires = [self.prefix + key for key in keys if self.prefix + key not in self._writing]
        if not wires or not (yield from self._ready(ops)):
            return {}
        found: Mapping[str, bytes] | None = yield from self._ask(ops, wires)
        return {wire.removeprefix(self.prefix): data for wire, data in (found or {}).items()}

    def _ask(self, ops: Ops, wires: list[str]) -> Steps:
        if len(wires) > 1:
            return (yield from self._try(partial(ops.get_many, wires)))
        data = yield from self._try(partial(ops.get, wires[0]))
        return None if data is None else {wires[0]: data}

    def write(self, ops: Ops, key: str, data: bytes, *, ttl: float, valid: Callable[[], bool]) -> Steps:
        """Store ``data`` for ``ttl`` seconds, and take it back if it is no longer ``valid`` once it arrived."""
        wire = self.prefix + key
        if wire in self._writing or not (yield from self._ready(ops)):
            return
        self._writing[wire] = 1
        settled = False
        try:
            errors = self.errors
            yield from self._try(partial(ops.set, wire, data, ttl=ttl))
            settled = errors == self.errors and valid()
        finally:
            if not settled:
                self._owe({wire})
            del self._writing[wire]
        if not settled:
            yield from self._ready(ops)

    def delete(self, ops: Ops, keys: Iterable[str]) -> Steps:
        """Delete ``keys``; return whether that is done now or owed."""
        self._owe({self.prefix + key for key in keys})
        yield from self._ready(ops)
        return not self.owes

    def delete_pattern(self, ops: Ops, glob: str) -> Steps:
        """Delete what matches ``glob``; return whether that is done now or owed."""
        self._patterns.add(self.prefix.translate(_GLOB) + glob)
        yield from self._ready(ops)
        return not self.owes

    def settle(self, ops: Ops) -> Steps:
        """Deliver what is owed; return whether nothing is left."""
        yield from self._ready(ops)
        return not self.owes

    def _owe(self, wires: set[str]) -> None:
        self._debts |= wires
        if len(self._debts) > _MOST_DEBTS:
            self._debts = set()
            self._patterns.add(self.prefix.translate(_GLOB) + "*")

    def _ready(self, ops: Ops) -> Steps:
        """Pay every debt; return whether the level may be believed."""
        if self.resting:
            return False
        if self._rest:
            # One caller tries; the others go on without the level until it is known to be back.
            self._rest_until = self._clock() + self._rest
        while self.owes:
            debts, patterns = self._debts.copy(), self._patterns.copy()
            errors = self.errors
            if debts:
                yield from self._try(partial(ops.delete, *debts))
            for glob in patterns if errors == self.errors else ():
                yield from self._try(partial(ops.delete_pattern, glob, force=True))
            if errors != self.errors:
                return False
            self._debts -= debts
            self._patterns -= patterns
        return True

    def _try(self, step: Callable[[], Any]) -> Steps:
        """Take one step; a sick level answers ``None`` and is left alone for a while."""
        try:
            answer = yield step
        except _SICKNESS:
            self.errors += 1
            self._rest = min(_LONGEST_REST, 2 * self._rest or _FIRST_REST)
            self._rest_until = self._clock() + self._rest
            return None
        self._rest = 0.0
        self._rest_until = float("-inf")
        return answer
