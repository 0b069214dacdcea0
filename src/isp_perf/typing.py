"""Public protocols and aliases: the seams between the rooms, and where users plug in parts of their own."""

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

__all__ = ["BlockingRemoteLevel", "Clock", "Codec", "Guard", "Observer", "RemoteLevel"]


class Clock(Protocol):
    """A monotonic clock: called without arguments, answers seconds as a float; only differences mean anything.

    ``time.monotonic`` is the default everywhere; tests hand in ``isp_perf.testing.ManualClock``.
    """

    def __call__(self) -> float:
        """Return the present moment in monotonic seconds."""
        ...


class Codec(Protocol):
    """Turns cached values into bytes for the remote level and back."""

    def encode(self, value: Any, /) -> bytes:
        """Return ``value`` as bytes; raise ``CodecError`` for a value that cannot be read back equal."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """Return the value that ``encode`` turned into ``data``; raise any exception for foreign bytes (a miss)."""
        ...


class Guard(Protocol):
    """Decides before a remote call whether it may be made, and learns how it ended. A circuit breaker is one.

    ``before`` must neither block nor wait; its answer is remembered by the caller only as "may go".
    """

    def before(self) -> None:
        """Return if the call may be made; raise ``RejectedError`` if not."""
        ...

    def success(self) -> None:
        """Take note that the call was answered."""
        ...

    def failure(self, error: BaseException, /) -> None:
        """Take note that the call failed with ``error``."""
        ...


class Observer(Protocol):
    """Hears about events off the hot path: loads, evictions, invalidations, transitions.

    Called outside every lock. An observer that raises is logged once and never reaches the caller.
    """

    def event(self, name: str, attributes: Mapping[str, Any], /) -> None:
        """Receive the event ``name`` (glossary terms, dotted) with attributes that hold no cached value and no key."""
        ...


@runtime_checkable
class BlockingRemoteLevel(Protocol):
    """What the cache asks of its second level from threads: the blocking twin of ``RemoteLevel``."""

    def get(self, key: str) -> bytes | None:
        """Return the bytes stored under ``key``, or ``None``."""
        ...

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of those ``keys`` that are stored, in one round trip."""
        ...

    def set(self, key: str, value: bytes, *, ttl: float | None = None) -> Any:
        """Store ``value`` under ``key`` for ``ttl`` seconds (``None``: for ever)."""
        ...

    def delete(self, *keys: str) -> int:
        """Remove ``keys`` and return how many of them existed."""
        ...

    def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the Redis ``glob`` and return their number; ``force`` allows one as wide as ``*``."""
        ...


@runtime_checkable
class RemoteLevel(Protocol):
    """What the cache asks of its second level (L2). ``isp_perf.redis.RedisPool`` satisfies it.

    Every method raises ``RemoteError`` (or a subclass) when the level is sick, within its own deadline; the cache
    then goes on without it. Keys are text, values bytes.
    """

    @property
    def blocking(self) -> BlockingRemoteLevel:
        """The same level for callers in threads."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the bytes stored under ``key``, or ``None``."""
        ...

    def get_many(self, keys: Iterable[str]) -> Coroutine[Any, Any, dict[str, bytes]]:
        """Return (as an ``async def`` does) the bytes of those ``keys`` that are stored, in one round trip."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> Any:
        """Store ``value`` under ``key`` for ``ttl`` seconds (``None``: for ever)."""
        ...

    async def delete(self, *keys: str) -> int:
        """Remove ``keys`` and return how many of them existed."""
        ...

    async def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the Redis ``glob`` and return their number; ``force`` allows one as wide as ``*``."""
        ...

    async def aclose(self) -> None:
        """Close every connection; later calls open them again."""
        ...
