"""What a loader may say about the entry it is filling."""

from collections.abc import Iterator
from typing import Any

from isp_perf._core.ranges import seconds
from isp_perf._runtime.flights import Flight, leading
from isp_perf.cache._local import StagedEntry
from isp_perf.errors import ConfigurationError

__all__ = ["BatchFlight", "FillingEntry", "FillingTags", "entry", "filled"]


class BatchFlight(Flight):
    """The call of a loader of many ids, which the flights of its ids wait for."""


class FillingTags:
    """The tags of the entry being filled.

    Args:
        flight: the load, which an invalidation of these tags detaches.
    """

    __slots__ = ("_flight",)

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def add(self, *tags: str) -> None:
        """Add ``tags`` to those of the policy.

        With a remote level such a value is returned and not stored: which version a tag had before the load is known
        for the policy's tags only, and without it a removal in between would be missed. Write tags that follow from
        the arguments as templates in the policy.
        """
        self._flight.tags |= frozenset(tags)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._flight.tags))

    def __contains__(self, tag: object) -> bool:
        return tag in self._flight.tags


class FillingEntry:
    """The entry that a loader is filling; see ``entry``.

    Args:
        flight: the load.

    Attributes:
        tags: its tags; ``tags.add("x")``.
        etag: what the loader keeps beside the value to ask for changes later; at first that of the stale value.
    """

    __slots__ = ("_flight", "_ttl", "_unchanged", "etag", "skipped", "tags")

    skipped: bool
    tags: FillingTags

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._ttl: float | None = None
        self._unchanged = False
        self.skipped = False
        self.tags = FillingTags(flight)
        self.etag: Any = flight.stale.etag if isinstance(flight.stale, StagedEntry) else None

    @property
    def ttl(self) -> float | None:
        """Seconds (>= 0) to keep this value; ``None``: as the policy says.

        Raises:
            ConfigurationError: set to something that is no duration.
        """
        return self._ttl

    @ttl.setter
    def ttl(self, value: float) -> None:
        self._ttl = seconds("entry().ttl", value, zero=True)

    @property
    def stale_value(self) -> Any:
        """The value that is no longer fresh, or ``None``."""
        return None if self._flight.stale is None else self._flight.stale.value

    def skip(self) -> None:
        """Do not store what the loader returns; callers get it."""
        self.skipped = True

    def not_modified(self) -> None:
        """Keep the stale value for another ttl; what the loader returns is ignored.

        Raises:
            ConfigurationError: there is no stale value.
        """
        if self._flight.stale is None:
            raise ConfigurationError(
                "entry().not_modified()", None, "there is no stale value", "ask entry().stale_value first"
            )
        self._unchanged = True

    @property
    def unchanged(self) -> bool:
        """Whether ``not_modified`` was called."""
        return self._unchanged


def entry() -> FillingEntry:
    """Return the entry that the running loader is filling.

    Raises:
        ConfigurationError: called outside a loader, or in one of many ids.
    """
    flight = leading()
    if flight is None:
        raise ConfigurationError("entry()", None, "this is for loaders only", "call it in a cached function's body")
    if isinstance(flight, BatchFlight):
        raise ConfigurationError("entry()", None, "a batch loader fills many entries", "use the policy's settings")
    if flight.filling is None:
        flight.filling = FillingEntry(flight)
    filling: FillingEntry = flight.filling
    return filling


def filled(flight: Flight, value: Any, ttl: float) -> tuple[Any, float]:
    """Return the value and its ttl after what the loader said."""
    filling: FillingEntry | None = flight.filling
    if filling is None:
        return value, ttl
    if filling.unchanged and flight.stale is not None:
        value = flight.stale.value
    if filling.skipped:
        return value, 0.0
    return value, ttl if filling.ttl is None else filling.ttl
