"""The way to the store of a fleet: one script call per transition, and the messages that others' calls publish."""

import json
from collections.abc import Iterator
from threading import Event
from typing import Any, Final, Protocol, cast
from urllib.parse import quote

from isp_perf._core.breaker_fleet import View
from isp_perf.breaker._fleet_script import SCRIPT

__all__ = ["FleetStore", "RedisWire", "Wire", "view_of"]

_LISTENING: Final = 1.0
"""Seconds after which a listener looks whether it is still wanted."""


class Commands(Protocol):
    """A blocking client of redis-py's shape."""

    def execute_command(self, *args: Any) -> Any:
        """Execute a command and return its reply."""
        ...

    def pubsub(self) -> Any:
        """Return a subscriber, with ``subscribe``, ``get_message`` and ``close``."""
        ...


class FleetStore(Protocol):
    """What ``CircuitRegistry.share`` asks of a pool; ``isp_perf.redis.RedisPool`` satisfies it."""

    def sync(self) -> Any:
        """Return the blocking client: ``execute_command`` and ``pubsub`` of redis-py, with time limits of its own.

        Raises:
            ConfigurationError: no server is configured.
        """
        ...


class Wire(Protocol):
    """What a fleet asks of the way to its store. Every method may raise anything; the fleet goes on without it."""

    def call(self, operation: str, circuit: str, worker: str, *values: object) -> View:
        """Change the record of ``circuit`` and return it; see ``_fleet_script``."""
        ...

    def changes(self) -> object:
        """Return something that differs after every change of any circuit."""
        ...

    def listen(self, closing: Event) -> Iterator[tuple[str, View] | None]:
        """Yield the circuits that others change, and ``None`` when changes may have been missed."""
        ...


class RedisWire:
    """The wire over Redis.

    Args:
        store: the pool.
        namespace: the first part of every key.
    """

    def __init__(self, store: FleetStore, namespace: str) -> None:
        self._client: Commands = store.sync()
        self._prefix = namespace
        self._channel = f"{namespace}:circuits"

    def call(self, operation: str, circuit: str, worker: str, *values: object) -> View:
        """Run the script."""
        # The braces keep the keys of a circuit on one node; names come from code, but a brace in one would break that.
        key = f"{self._prefix}:circuit:{{{quote(circuit, safe='')}}}"
        told = self._client.execute_command(
            "EVAL", SCRIPT, 3, key, f"{key}:votes", self._channel, operation, circuit, worker, *values
        )
        return view_of(told)[1]

    def changes(self) -> object:
        """Return the number of changes."""
        return self._client.execute_command("GET", self._channel)

    def listen(self, closing: Event) -> Iterator[tuple[str, View] | None]:
        """Subscribe, and yield until ``closing`` is set or the connection is lost."""
        subscriber = self._client.pubsub()
        try:
            subscriber.subscribe(self._channel)
            while not closing.is_set():
                message = subscriber.get_message(timeout=_LISTENING)
                if message is not None and message["type"] == "subscribe":
                    yield None
                elif message is not None and message["type"] == "message":
                    yield view_of(message["data"])
        finally:
            subscriber.close()


def view_of(told: str | bytes) -> tuple[str, View]:
    """Return the circuit's name and record that the script told as JSON."""
    said = cast("dict[str, Any]", json.loads(told))
    held = {worker: (None if left < 0 else left / 1000, reasons) for worker, (left, reasons) in said["held"].items()}
    return said["name"], View(
        version=int(said["version"]),
        mode=said["mode"],
        state=said["state"],
        why=said["why"],
        by=said["by"],
        left=said["left"] / 1000,
        round=int(said["round"]),
        error=said["error"] or None,
        held=held,
        wait=said["wait"] / 1000,
    )
