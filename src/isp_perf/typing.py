"""Public protocols and aliases: the seams between the rooms, and where users plug in parts of their own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "NO_LEASE",
    "Announce",
    "Answer",
    "BlockingChannel",
    "BlockingRemoteLevel",
    "Channel",
    "Clock",
    "Codec",
    "Commit",
    "Drop",
    "DropIf",
    "Fill",
    "Guard",
    "Identity",
    "Intent",
    "Lease",
    "Listener",
    "Observer",
    "Order",
    "Ping",
    "Put",
    "Read",
    "Release",
    "RemoteLevel",
    "Renew",
    "Replace",
    "Swap",
]


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


class Read(NamedTuple):
    """Order: read ``keys`` and, ``beside`` them, version keys.

    Answer: ``Answer``; a version key that does not exist answers ``b""``.
    """

    keys: tuple[str, ...]
    beside: tuple[str, ...] = ()


class Lease(NamedTuple):
    """Order: return what is under each of ``keys``; where nothing is, store ``b"L" + token`` for ``seconds`` (a lease).

    Each key ``beside`` them that does not exist is made with the value ``fresh``. A key that holds another type than a
    string is overwritten. Where a lease cannot be stored because the server refuses writes (no memory, no permission),
    the answer is ``NO_LEASE``. Answer: ``Answer``; ``None`` means that the lease was granted.
    """

    keys: tuple[str, ...]
    beside: tuple[str, ...]
    token: bytes
    seconds: float
    fresh: bytes


class Answer(NamedTuple):
    """What a ``Read`` or ``Lease`` found.

    Attributes:
        found: for each key its bytes (``None``: nothing) and the seconds it has left (``None``: unlimited).
        beside: the version under each key beside them.
    """

    found: list[tuple[bytes | None, float | None]]
    beside: list[bytes]


class Fill(NamedTuple):
    """Order: store ``data`` for ``ttl`` seconds if ``key`` still holds ``b"L" + token``. Answer: whether it did."""

    key: str
    token: bytes
    data: bytes
    ttl: float


class Put(NamedTuple):
    """Order: store ``data`` for ``ttl`` seconds unless ``key`` is under a write intent. Answer: whether it was not."""

    key: str
    data: bytes
    ttl: float


class Swap(NamedTuple):
    """Order: store ``data`` for ``ttl`` seconds if the SHA-1 of what ``key`` holds is ``seen``. Answer: whether."""

    key: str
    seen: str
    data: bytes
    ttl: float


class Renew(NamedTuple):
    """Order: let the leases ``tokens`` of ``keys`` live ``seconds`` from now, if it stands. Answer: how many did."""

    keys: tuple[str, ...]
    tokens: tuple[bytes, ...]
    seconds: float


class Release(NamedTuple):
    """Order: remove ``key`` if it still holds the lease ``token``. Answer: whether it did."""

    key: str
    token: bytes


class Replace(NamedTuple):
    """Order: where ``key`` holds bytes of SHA-1 ``seen``, lease it to ``token`` for ``seconds``. Answer: whether."""

    key: str
    seen: str
    token: bytes
    seconds: float


class Drop(NamedTuple):
    """Order: remove ``keys``, values and leases alike; those under a write intent stay. Answer: how many went."""

    keys: tuple[str, ...]


class DropIf(NamedTuple):
    """Order: remove ``key`` if it still holds ``seen``. Answer: whether it did."""

    key: str
    seen: bytes


class Intent(NamedTuple):
    """Order: put ``keys`` under the write intent of ``writer`` (8 bytes) for ``seconds``, whatever they hold.

    The content is ``b"T"`` and the identities of every writer. Answer: ``None``.
    """

    keys: tuple[str, ...]
    writer: bytes
    seconds: float


class Commit(NamedTuple):
    """Order: end the intent of ``writer`` on ``keys``; what no other writer holds is removed. Answer: ``None``."""

    keys: tuple[str, ...]
    writer: bytes


class Announce(NamedTuple):
    """Order: note ``member`` under ``key`` for ``seconds`` of the server's time. Answer: every living member."""

    key: str
    member: str
    seconds: float


class Ping(NamedTuple):
    """Order: answer ``nonce``; everything ordered before was answered then."""

    nonce: bytes


class Identity(NamedTuple):
    """Order: tell which data this is. Answer: a text that changes when the server restarts or another one took over.

    Empty if the server does not say. A server that takes no writes raises ``RemoteError``.
    """


Order = (
    Read
    | Lease
    | Fill
    | Put
    | Swap
    | Renew
    | Release
    | Replace
    | Drop
    | DropIf
    | Intent
    | Commit
    | Announce
    | Ping
    | Identity
)
"""One thing the cache asks of its remote level; each is done at once and as a whole."""

NO_LEASE = b"N"
"""Answer of a ``Lease`` where nothing is and nothing can be stored."""


class Listener(Protocol):
    """Hears what a channel notices; called on the channel's own loop or thread, so it must be short."""

    def changed(self, keys: Sequence[bytes] | None, /) -> None:
        """Take note that ``keys`` were written, deleted, expired or evicted by somebody else; ``None``: all of them."""
        ...

    def connected(self) -> None:
        """Take note that every change from now on will be reported."""
        ...

    def lost(self) -> None:
        """Take note that the connection ended: changes may have been missed."""
        ...


class BlockingChannel(Protocol):
    """The blocking twin of ``Channel``."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, by itself or with its level, so that it will never work again."""
        ...

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders`` in one round trip, ``within`` so many seconds (> 0), and return their answers."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Channel(Protocol):
    """A connection of its own that hears of every change under a prefix, its own changes excepted.

    A change that the server made before it answered an order is reported before that answer is returned.
    """

    @property
    def closed(self) -> bool:
        """Whether it was closed, by itself or with its level, so that it will never work again."""
        ...

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders`` in one round trip, ``within`` so many seconds (> 0), and return their answers."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


@runtime_checkable
class BlockingRemoteLevel(Protocol):
    """What the cache asks of its second level from threads: the blocking twin of ``RemoteLevel``."""

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders`` in one round trip, ``within`` so many seconds (> 0), and return their answers."""
        ...

    def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the Redis ``glob`` and return their number; ``force`` allows one as wide as ``*``."""
        ...

    def channel(self, prefix: str, listener: Listener, /) -> BlockingChannel:
        """Return a channel for keys that begin with ``prefix``, of which ``listener`` hears; it connects when used."""
        ...


@runtime_checkable
class RemoteLevel(Protocol):
    """What the cache asks of its second level (L2). ``isp_perf.redis.RedisPool`` satisfies it.

    Keys are text, values bytes.
    """

    @property
    def blocking(self) -> BlockingRemoteLevel:
        """The same level for callers in threads."""
        ...

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders`` in one round trip and return their answers.

        Args:
            orders: what to do, in this order.
            within: seconds (> 0) after which the caller waits no longer; time in which the caller's own event loop was
                blocked is not counted.

        Raises:
            RemoteError: the level is sick, or did not answer in time; orders may have been carried out.
            Exception: the first error that the server answered an order with.
        """
        ...

    async def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the Redis ``glob`` and return their number; ``force`` allows one as wide as ``*``."""
        ...

    def channel(self, prefix: str, listener: Listener, /) -> Channel:
        """Return a channel of the running loop for keys that begin with ``prefix``, of which ``listener`` hears."""
        ...

    async def aclose(self) -> None:
        """Close every connection; later calls open them again."""
        ...
