"""Breakers by name: one per protected service, shared by every function that names it."""

import re
import warnings
from collections.abc import Callable, Iterator
from threading import Lock
from time import monotonic
from typing import Any, Self
from weakref import WeakSet

from isp_perf._core.ranges import whole
from isp_perf.breaker._breaker import CircuitBreaker
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._fleet import Fleet
from isp_perf.breaker._fleet_wire import FleetStore, RedisWire
from isp_perf.breaker._keyed import KeyedBreakers
from isp_perf.breaker._records import EVENTS, CircuitEvent
from isp_perf.errors import ConfigurationError
from isp_perf.typing import Clock

__all__ = ["CircuitRegistry", "circuits", "live_registries"]

_ALIKE = re.compile(r"[0-9a-fA-F-]*\d[0-9a-fA-F-]*")
_MANY = 100


class CircuitRegistry:
    """Circuit breakers by name. Most programs need only ``isp_perf.breaker.circuits``.

    Example:
        >>> registry = CircuitRegistry()
        >>> registry.define("whatsapp_api", CircuitConfig(failure_threshold=3)).state
        'closed'
    """

    def __init__(self) -> None:
        self._breakers: dict[str, CircuitBreaker] = {}
        self._keyed: dict[str, KeyedBreakers] = {}
        self._listeners: list[tuple[str, Callable[[CircuitEvent], object]]] = []
        self._alike: dict[str, int] = {}
        self._lock = Lock()
        self._clock: Clock = monotonic
        self._fleet: Fleet | None = None
        live_registries.add(self)

    @classmethod
    def on_clock(cls, clock: Clock) -> Self:
        """Return a registry whose breakers read ``clock``, for tests."""
        registry = cls()
        registry._clock = clock
        return registry

    def define(self, name: str, config: CircuitConfig | None = None) -> CircuitBreaker:
        """Return the breaker called ``name``, made with ``config`` if there is none yet.

        Args:
            name: the protected service; it comes from code, not from users.
            config: ``None``: whatever the breaker has, or the defaults for a new one.

        Raises:
            ConfigurationError: a breaker of that name has another configuration.
        """
        with self._lock:
            known = self._breakers.get(name)
            if known is None:
                self._check_free(name)
                known = CircuitBreaker(name, config, clock=self._clock)
                self._take_in(known)
            elif config is not None and known.config != config:
                raise ConfigurationError(
                    "name",
                    name,
                    "a breaker of that name has another configuration",
                    "use another name, the same configuration, or reconfigure() the breaker",
                )
            return known

    def define_keyed(self, name: str, config: CircuitConfig | None = None, *, max_keys: int = 1024) -> KeyedBreakers:
        """Return the family of breakers called ``name``, one breaker per key.

        Args:
            name: the family; it comes from code, not from users.
            config: ``None``: what the family has, or the defaults for a new one.
            max_keys: members that are kept; >= 1, default 1024.

        Raises:
            ConfigurationError: the name is taken by a single breaker, or by a family with another configuration.
        """
        wanted = CircuitConfig() if config is None else config
        with self._lock:
            known = self._keyed.get(name)
            if known is None:
                self._check_free(name)
                known = self._keyed[name] = KeyedBreakers(name, wanted, max_keys=max_keys, clock=self._clock)
                for event, function in self._listeners:
                    known.on(event, function)
                if self._fleet is not None:
                    known.share(self._fleet.join)
            elif config is not None and known.config != config:
                raise ConfigurationError(
                    "name", name, "a family of that name has another configuration", "use another name"
                )
            return known

    def add(self, breaker: CircuitBreaker, /) -> None:
        """Take in a breaker that was made by hand.

        Raises:
            ConfigurationError: its name is taken.
        """
        with self._lock:
            self._check_free(breaker.name)
            self._take_in(breaker)

    def get(self, name: str) -> CircuitBreaker:
        """Return the breaker called ``name``.

        Raises:
            KeyError: there is none.
        """
        try:
            return self._breakers[name]
        except KeyError:
            raise KeyError(f"no circuit breaker is called {name!r}; known: {sorted(self._breakers)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._breakers

    def __iter__(self) -> Iterator[CircuitBreaker]:
        return iter(tuple(self._breakers.values()))

    def __len__(self) -> int:
        return len(self._breakers)

    def keyed(self) -> tuple[KeyedBreakers, ...]:
        """Return the families of breakers made with ``key=``."""
        return tuple(self._keyed.values())

    def report(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return ``{"circuit_breakers": {name: {"state", "failure_count", "success_count", ...}}}`` for JSON.

        A family made with ``key=`` is one entry, with the worst state and the sums of its members.
        """
        entries = {breaker.name: breaker.report() for breaker in self}
        entries.update((family.name, family.report()) for family in self.keyed())
        return {"circuit_breakers": entries}

    def on(self, event: str, function: Callable[[CircuitEvent], object]) -> None:
        """Call ``function`` with every ``event`` of every breaker here, those defined later included.

        Raises:
            ConfigurationError: there is no such event; see ``CircuitBreaker.on``.
        """
        if event not in EVENTS:
            raise ConfigurationError("event", event, "is no event of a circuit breaker", f"use one of {EVENTS}")
        with self._lock:
            self._listeners.append((event, function))
            for breaker in self:
                breaker.on(event, function)
            for family in self.keyed():
                family.on(event, function)

    def share(self, pool: FleetStore, quorum: int = 1, *, namespace: str = "isp") -> Fleet:
        """Share every breaker here, those defined later included, with all processes that share the same names.

        Transitions travel through Redis; a call sends no command, whether it is made or rejected. When a break is over,
        one call of one process asks for the right to probe, which waits for at most 0.25 s; all other calls of the
        fleet are rejected meanwhile. ``isolate``, ``disable``, ``metrics_only`` and ``reset`` hold for every process.
        While Redis is away each process decides for itself, at once, and no call ever sees an error of Redis.

        A plain call, at import time as well: two daemon threads do the talking, and start again in forked children.
        Call it once, in every process, after the pool is made and before the calls.

        Args:
            pool: a ``RedisPool``.
            quorum: how many processes must have opened a circuit by themselves before it opens for all; >= 1, default
                1. Below it only those are open, so that one process with a broken network cannot stop the rest.
            namespace: the first part of every key; fleets of different namespaces do not meet.

        Returns:
            The fleet, with ``connected``, ``report()`` and ``close()``.

        Raises:
            ConfigurationError: ``quorum`` is no whole number >= 1, the namespace is empty, the pool is disabled, or the
                registry is shared already.
        """
        whole("quorum", quorum)
        if not namespace or not namespace.isprintable():
            raise ConfigurationError("namespace", namespace, "must be printable text", "pass e.g. 'isp'")
        with self._lock:
            if self._fleet is not None and not self._fleet.closed:
                raise ConfigurationError("pool", type(pool).__name__, "the registry is shared already", "share it once")
            fleet = self._fleet = Fleet(RedisWire(pool, namespace), quorum)
            for breaker in self:
                fleet.join(breaker)
            for family in self.keyed():
                family.share(fleet.join)
        fleet.start()
        return fleet

    def reset(self) -> None:
        """Close every breaker; see ``CircuitBreaker.reset``."""
        for breaker in self:
            breaker.reset()
        for family in self.keyed():
            family.clear()

    def start_over(self) -> None:
        """Make every breaker as new: closed, with nothing counted. For tests."""
        for breaker in self:
            breaker.start_over()
        for family in self.keyed():
            family.clear()

    def _check_free(self, name: str) -> None:
        if name in self._breakers or name in self._keyed:
            raise ConfigurationError("name", name, "the name is taken", "use another name, or define() to share it")

    def _take_in(self, breaker: CircuitBreaker) -> None:
        self._breakers[breaker.name] = breaker
        for event, function in self._listeners:
            breaker.on(event, function)
        if self._fleet is not None:
            self._fleet.join(breaker)
        pattern = _ALIKE.sub("#", breaker.name)
        self._alike[pattern] = number = self._alike.get(pattern, 0) + 1
        if number == _MANY:
            warnings.warn(
                f"{number} circuit breakers are called like {pattern!r}: one made per request or per user can never "
                "open; share one by name, or use key= for one per tenant or host",
                RuntimeWarning,
                stacklevel=4,
            )


live_registries: WeakSet[CircuitRegistry] = WeakSet()
"""Every registry that is alive, so that metrics find them."""

circuits: CircuitRegistry = CircuitRegistry()
"""The default registry, which ``circuit_breaker`` uses."""
