"""What the cache asks of a cluster: its orders at the nodes that serve their keys, and one channel over all nodes."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import AskError, MovedError

from isp_perf._runtime.drive import adrive, drive
from isp_perf.errors import RemoteError
from isp_perf.redis._cluster import Cluster
from isp_perf.redis._config import Address
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._split_orders import Piece, pieces, whole_answer
from isp_perf.typing import Listener, Order

__all__ = ["BlockingClusterChannel", "ClusterChannel", "perform_at", "perform_blocking_at"]

_ATTEMPTS = 3  # a slot that moved is followed at once; one that keeps moving is left to the next call
Part = tuple[int, int, Piece]  # the order's number, the piece's, and the piece
Steps = Generator[Callable[[], Any], Any, Any]


class _Ways(NamedTuple):
    """How one colour knows the map, asks for it anew, and sends every node its orders."""

    know: Callable[[], Any]
    follow: Callable[[], Any]
    send: Callable[[dict[Address, list[Order]]], Any]


def _performing(cluster: Cluster, orders: Sequence[Order], ways: "_Ways") -> Steps:
    """Take ``orders`` apart, have every node do its part, and return whole answers."""
    yield ways.know
    taken = [pieces(order) for order in orders]
    answers: list[list[Any]] = [[None] * len(parts) for parts in taken]
    left = [(i, j, piece) for i, parts in enumerate(taken) for j, piece in enumerate(parts)]
    for attempt in range(_ATTEMPTS):
        nodes: dict[Address, list[Part]] = {}
        for i, j, piece in left:
            for address in cluster.known_primaries() if piece.key is None else [cluster.owner_of(piece.key)]:
                nodes.setdefault(address, []).append((i, j, piece))
        work = {address: [piece.order for _, _, piece in part] for address, part in nodes.items()}
        results = yield partial(ways.send, work)
        left = _place(nodes, results, answers)
        if not left:
            return [whole_answer(order, parts, got) for order, parts, got in zip(orders, taken, answers, strict=True)]
        if attempt + 1 < _ATTEMPTS:
            yield ways.follow
    raise LostNotSentError("cluster: not sent, slots are on their way to another node", 0.0)


def _place(nodes: dict[Address, list[Part]], results: dict[Address, Any], answers: list[list[Any]]) -> list[Part]:
    """Put the answers into their places and return what has to be asked elsewhere."""
    left: list[Part] = []
    for address, part in nodes.items():
        result = results[address]
        if isinstance(result, MovedError | AskError):
            left += part
        elif isinstance(result, BaseException):
            raise result
        else:
            for (i, j, piece), answer in zip(part, result, strict=True):
                answers[i][j] = _of_all(piece, answers[i][j], answer)
    return left


def _of_all(piece: Piece, old: Any, new: Any) -> Any:
    """Return what the nodes that were asked together say: texts are joined, the rest is the same from each."""
    return f"{old}|{new}" if piece.key is None and isinstance(old, str) else new


def _outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error it ends in."""
    try:
        return call()
    except (RemoteError, AskError, MovedError) as error:
        return error


class _Nodes:
    """The channels of one manager's keys, one for each primary.

    A change counts as reported from the moment that every primary reports; one connection that is lost is all.

    Args:
        cluster: the nodes.
        listener: who hears.
        open_one: opens the channel of one node.
    """

    def __init__(self, cluster: Cluster, listener: Listener, *, open_one: Callable[[Address, Listener], Any]) -> None:
        self.cluster = cluster
        self._listener = listener
        self._open_one = open_one
        self._channels: dict[Address, Any] = {}
        self._ended = False
        self._connected: set[Address] = set()

    def at(self, address: Address) -> Any:
        """Return the channel of a node, new on first use."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open_one(address, _NodeListener(self, address))
        return channel

    def changed(self, keys: Sequence[bytes] | None) -> None:
        """Pass on what one node reports."""
        self._listener.changed(keys)

    def connected(self, address: Address) -> None:
        """Take note that one node reports; the last one makes it complete."""
        self._connected.add(address)
        if self._connected.issuperset(self.cluster.known_primaries()):
            self._listener.connected()

    def lost(self, address: Address) -> None:
        """Take note that one node no longer reports: changes may have been missed."""
        self._connected.discard(address)
        self._listener.lost()

    def check(self) -> None:
        """Distrust what is known if a primary has come that does not report yet."""
        if self._connected and not self._connected.issuperset(self.cluster.known_primaries()):
            self._listener.lost()

    @property
    def closed(self) -> bool:
        """Whether it was ended, or one of its connections was for good."""
        return self._ended or any(channel.closed for channel in self._channels.values())

    def close(self) -> None:
        """End every connection."""
        self._ended = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()


class _NodeListener:
    """Hears for one node."""

    def __init__(self, nodes: _Nodes, address: Address) -> None:
        self._nodes = nodes
        self._address = address

    def changed(self, keys: Sequence[bytes] | None, /) -> None:
        """Pass it on."""
        self._nodes.changed(keys)

    def connected(self) -> None:
        """Tell which node reports."""
        self._nodes.connected(self._address)

    def lost(self) -> None:
        """Tell which node no longer does."""
        self._nodes.lost(self._address)


async def perform_at(
    cluster: Cluster, orders: Sequence[Order], *, within: float, target: Callable[[Address], Any]
) -> list[Any]:
    """Carry out ``orders`` at the nodes that serve their keys; ``target`` returns what performs at a node."""

    async def one(address: Address, part: list[Order]) -> Any:
        try:
            return await target(address).perform(part, within=within)
        except (RemoteError, AskError, MovedError) as error:
            return error

    async def send(parts: dict[Address, list[Order]]) -> dict[Address, Any]:
        results = await asyncio.gather(*(one(address, part) for address, part in parts.items()))
        return dict(zip(parts, results, strict=True))

    try:
        return list(await adrive(_performing(cluster, orders, _Ways(cluster.primaries, cluster.refresh, send))))
    except RemoteError:
        cluster.ask_again()
        raise


def perform_blocking_at(
    cluster: Cluster, orders: Sequence[Order], *, within: float, target: Callable[[Address], Any]
) -> list[Any]:
    """As ``perform_at``, for threads; the nodes are asked one after the other."""

    def send(parts: dict[Address, list[Order]]) -> dict[Address, Any]:
        return {
            address: _outcome(partial(target(address).perform, part, within=within)) for address, part in parts.items()
        }

    def know() -> None:
        if not cluster.known_primaries():
            cluster.refresh_blocking()

    return list(drive(_performing(cluster, orders, _Ways(know, cluster.refresh_blocking, send))))


class ClusterChannel:
    """One channel over every primary of a cluster; made by ``RedisPool.channel``.

    Args:
        cluster: the nodes.
        prefix: of the keys to hear of.
        listener: who hears.
    """

    def __init__(self, cluster: Cluster, prefix: str, listener: Listener) -> None:
        self._nodes = _Nodes(
            cluster, listener, open_one=lambda address, hears: cluster.pool(address).channel(prefix, hears)
        )

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; see ``RemoteLevel.perform``."""
        self._nodes.check()
        return await perform_at(self._nodes.cluster, orders, within=within, target=self._nodes.at)

    @property
    def closed(self) -> bool:
        """Whether it was ended, or one of its connections was for good."""
        return self._nodes.closed

    def close(self) -> None:
        """End every connection."""
        self._nodes.close()


class BlockingClusterChannel:
    """The twin of ``ClusterChannel`` for threads; made by ``RedisPool.blocking.channel``.

    Args:
        cluster: the nodes.
        prefix: of the keys to hear of.
        listener: who hears.
    """

    def __init__(self, cluster: Cluster, prefix: str, listener: Listener) -> None:
        self._nodes = _Nodes(
            cluster,
            listener,
            open_one=lambda address, hears: cluster.pool(address).blocking.channel(prefix, hears),
        )

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; see ``RemoteLevel.perform``."""
        self._nodes.check()
        return perform_blocking_at(self._nodes.cluster, orders, within=within, target=self._nodes.at)

    @property
    def closed(self) -> bool:
        """Whether it was ended, or one of its connections was for good."""
        return self._nodes.closed

    def close(self) -> None:
        """End every connection."""
        self._nodes.close()
