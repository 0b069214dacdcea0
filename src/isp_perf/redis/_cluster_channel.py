"""What the cache asks of a cluster: its orders at the nodes that serve their keys, and one channel over all nodes."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from redis.exceptions import AskError, MovedError, TryAgainError

from isp_perf._runtime.drive import adrive, drive
from isp_perf.errors import RemoteError
from isp_perf.redis._cluster import Cluster
from isp_perf.redis._config import Address
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._split_orders import Piece, pieces, whole_answer
from isp_perf.typing import Listener, Order

__all__ = ["BlockingClusterChannel", "ClusterChannel", "perform_at", "perform_blocking_at"]

_ATTEMPTS: Final = 8  # a slot that moved is followed at once; one that keeps moving is left to the next call
_PAUSE: Final = 0.02  # seconds before the third and each later attempt: a slot's keys take a moment to move
Part = tuple[int, int, Piece]  # the order's number, the piece's, and the piece
Steps = Generator[Callable[[], Any], Any, Any]


class _Ways(NamedTuple):
    """How one colour knows the map, asks for it anew, and sends every node its orders."""

    know: Callable[[], Any]
    pause: Callable[[float], Any]
    follow: Callable[[], Any]
    send: Callable[[dict[Address, list[Order]]], Any]


class _Work:
    """Orders that were taken apart, and what has been answered so far."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._orders = orders
        self._taken = [pieces(order) for order in orders]
        self._answers: list[list[Any]] = [[None] * len(parts) for parts in self._taken]
        self._left: dict[tuple[int, int], Piece] = {
            (i, j): piece for i, parts in enumerate(self._taken) for j, piece in enumerate(parts)
        }

    def by_node(self, cluster: Cluster) -> dict[Address, list[Part]]:
        """Return what each node has to do now."""
        nodes: dict[Address, list[Part]] = {}
        for (i, j), piece in self._left.items():
            if piece.key is None:
                self._answers[i][j] = {}
            for address in _where(cluster, piece.key):
                nodes.setdefault(address, []).append((i, j, piece))
        self._left = {}
        return nodes

    def place(self, nodes: dict[Address, list[Part]], results: dict[Address, Any]) -> bool:
        """Put the answers into their places and return whether they are complete; what is not is left to be done."""
        for address, part in nodes.items():
            result = results[address]
            if _is_moving(result):
                self._left |= {(i, j): piece for i, j, piece in part}
            elif isinstance(result, BaseException):
                raise result
            else:
                self._fill(address, part, result)
        return not self._left

    def _fill(self, address: Address, part: list[Part], result: Sequence[Any]) -> None:
        for (i, j, piece), answer in zip(part, result, strict=True):
            if piece.key is None:
                self._answers[i][j][address] = answer
            else:
                self._answers[i][j] = answer

    def whole(self) -> list[Any]:
        """Return the answer to each order."""
        return [
            whole_answer(order, parts, list(got[0].values()) if parts and parts[0].key is None else got)
            for order, parts, got in zip(self._orders, self._taken, self._answers, strict=True)
        ]


def _is_moving(result: Any) -> bool:
    """Return whether a node says that a slot is elsewhere, or between two nodes."""
    return isinstance(result, MovedError | AskError) or (
        isinstance(result, BaseException) and isinstance(result.__cause__, TryAgainError)
    )


def _where(cluster: Cluster, key: str | None) -> list[Address]:
    return cluster.known_primaries() if key is None else [cluster.owner_of(key)]


def _performing(cluster: Cluster, orders: Sequence[Order], ways: "_Ways") -> Steps:
    """Take ``orders`` apart, have every node do its part, and return whole answers."""
    yield ways.know
    work = _Work(orders)
    for attempt in range(_ATTEMPTS):
        if attempt > 1:
            yield partial(ways.pause, _PAUSE)
        if attempt:
            yield ways.follow
        nodes = work.by_node(cluster)
        parts = {address: [piece.order for _, _, piece in part] for address, part in nodes.items()}
        results = yield partial(ways.send, parts)
        if work.place(nodes, results):
            return work.whole()
    raise LostNotSentError("cluster: not sent, slots are on their way to another node", 0.0)


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
        return list(
            await adrive(_performing(cluster, orders, _Ways(cluster.primaries, asyncio.sleep, cluster.refresh, send)))
        )
    except RemoteError:
        cluster.ask_again()
        raise


def perform_blocking_at(
    cluster: Cluster, orders: Sequence[Order], *, within: float, target: Callable[[Address], Any]
) -> list[Any]:
    """As ``perform_at``, for threads."""

    def send(parts: dict[Address, list[Order]]) -> dict[Address, Any]:
        calls = [
            partial(_outcome, partial(target(address).perform, part, within=within)) for address, part in parts.items()
        ]
        return dict(zip(parts, cluster.crew.at_once(calls), strict=True))

    def know() -> None:
        if not cluster.known_primaries():
            cluster.refresh_blocking()

    return list(drive(_performing(cluster, orders, _Ways(know, time.sleep, cluster.refresh_blocking, send))))


class _OverAll:
    """A channel that lives and ends with those of its nodes."""

    _nodes: _Nodes

    @property
    def closed(self) -> bool:
        """Whether it was ended, or one of its connections was for good."""
        return self._nodes.closed

    def close(self) -> None:
        """End every connection."""
        self._nodes.close()


class ClusterChannel(_OverAll):
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


class BlockingClusterChannel(_OverAll):
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
