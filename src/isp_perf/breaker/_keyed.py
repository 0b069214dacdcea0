"""One breaker per tenant, host or shard, in a bounded family under one name."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import quote

from isp_perf._core.ranges import whole
from isp_perf.breaker._breaker import CircuitBreaker
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._records import CircuitEvent
from isp_perf.typing import Clock

__all__ = ["KeyedBreakers"]

_LONGEST_KEY = 64
_LOOKED_AT = 8
_SUMS = ("failure_count", "success_count", "failures", "rejected", "neutral", "cancelled", "late", "slow")
_WORST_FIRST = ("isolated", "open", "half_open", "metrics_only", "disabled", "closed")


class KeyedBreakers:
    """Breakers by key; the least recently used one goes when there are too many, a closed one if there is one.

    Args:
        name: the family's name.
        config: the configuration of every member.
        max_keys: how many members are kept; >= 1. Keys may come from users, so this bounds what they can fill.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: ``max_keys`` is no whole number >= 1.
    """

    def __init__(self, name: str, config: CircuitConfig, *, max_keys: int = 1024, clock: Clock = monotonic) -> None:
        self.name = name
        self.config = config
        self._clock = clock
        self._max = whole("max_keys", max_keys)
        self._members: OrderedDict[object, CircuitBreaker] = OrderedDict()
        self._listeners: list[tuple[str, Callable[[CircuitEvent], object]]] = []
        self._share: Callable[[CircuitBreaker], None] | None = None
        self._lock = Lock()

    def of(self, key: object) -> CircuitBreaker:
        """Return the breaker of ``key``, a hashable value such as a tenant's or host's name."""
        with self._lock:
            member = self._members.get(key)
            if member is None:
                member = self._members[key] = CircuitBreaker(self._label(key), self.config, clock=self._clock)
                for event, function in self._listeners:
                    member.on(event, function)
                if self._share is not None:
                    self._share(member)
                if len(self._members) > self._max:
                    self._drop_one_locked(key)
            else:
                self._members.move_to_end(key)
            return member

    def __len__(self) -> int:
        return len(self._members)

    def on(self, event: str, function: Callable[[CircuitEvent], object]) -> None:
        """Call ``function`` with every ``event`` of every member, present and future."""
        with self._lock:
            self._listeners.append((event, function))
            for member in self._members.values():
                member.on(event, function)

    def share(self, join: Callable[[CircuitBreaker], None]) -> None:
        """Call ``join`` with every member, present and future; ``CircuitRegistry.share`` does."""
        with self._lock:
            self._share = join
            for member in self._members.values():
                join(member)

    def clear(self) -> None:
        """Forget every member."""
        with self._lock:
            self._members.clear()

    def report(self) -> dict[str, Any]:
        """Return the worst state, the sums, and the names of the members that are not closed."""
        with self._lock:
            members = tuple(self._members.values())
        reports = [member.report() for member in members]
        states = {member.name: member.state for member in members}
        return {
            "state": min(states.values(), key=_WORST_FIRST.index, default="closed"),
            **{name: sum(report[name] for report in reports) for name in _SUMS},
            "keys": len(members),
            "not_closed": {name: state for name, state in states.items() if state != "closed"},
        }

    def _label(self, key: object) -> str:
        """Return a printable name: keys may be users' text, which goes nowhere unescaped."""
        return f"{self.name}[{quote(str(key), safe='')[:_LONGEST_KEY]}]"

    def _drop_one_locked(self, newest: object) -> None:
        oldest = [key for key, _ in zip(self._members, range(_LOOKED_AT), strict=False) if key != newest]
        closed = [key for key in oldest if self._members[key].state == "closed"]
        del self._members[(closed or oldest)[0]]
