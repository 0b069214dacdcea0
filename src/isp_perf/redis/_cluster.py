"""A Redis cluster: which node serves which slot, and a pool for each node.

Every node has its own lanes, so that nothing of one node waits for another. What moved is learnt from the servers'
answers: MOVED corrects one slot at once and asks for the whole map in the background, a node that cannot be reached
has the map asked from the others. One question for the map is on its way at a time.
"""

import asyncio
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

from isp_perf._core.slots import SLOTS, key_slot
from isp_perf._runtime.drive import adrive, drive
from isp_perf.errors import RemoteError
from isp_perf.redis._config import Address, RedisSettings, Target
from isp_perf.redis._crew import Crew
from isp_perf.redis._entry import unheard
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._stats import RedisHealth, RedisStats

__all__ = ["Cluster", "encoded_key", "node_settings", "owners_in"]

_ASKED_AT_MOST: Final = 5  # nodes asked for the map before giving up
_QUESTION: Final = ("CLUSTER SLOTS",)
_SEVERITY: Final = ("disabled", "healthy", "degraded", "unhealthy")


def encoded_key(key: Any) -> bytes:
    """Return the bytes of a key, as redis-py encodes it."""
    if isinstance(key, bytes):
        return key
    if isinstance(key, bytearray | memoryview):
        return bytes(cast("bytes", key))
    return str(key).encode("utf-8", "surrogatepass")


def node_settings(settings: RedisSettings, target: Target, address: Address) -> RedisSettings:
    """Return the settings of the pool for one node, which repeats nothing: by then another may serve the key."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    login = ""
    if target.username or target.password:
        login = f"{quote(target.username or '', safe='')}:{quote(target.password or '', safe='')}@"
    scheme = "rediss" if target.tls else "redis"
    url = f"{scheme}://{login}{host}:{address.port}"
    return replace(settings, nodes=None, url=url, on_down="raise", retry=replace(settings.retry, attempts=0))


def owners_in(reply: Sequence[Any], asked: Address) -> list[Address | None]:
    """Return the primary of each slot from the reply to CLUSTER SLOTS.

    Args:
        reply: the server's own reply.
        asked: who was asked; stands in where a node does not know its own name.
    """
    owners: list[Address | None] = [None] * SLOTS
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else ""
        address = Address(host if host not in {"", "?"} else asked.host, int(primary[1]))
        owners[first : last + 1] = [address] * (last - first + 1)
    return owners


class Cluster:
    """The nodes of a cluster and their slots.

    Args:
        settings: the pool's settings.
        target: the seeds, of which one must answer.
        make: makes the pool of one node.
    """

    crew: Crew
    owners: list[Address | None]

    def __init__(self, settings: RedisSettings, target: Target, make: Callable[[RedisSettings], Any]) -> None:
        self.settings = settings
        self._target = target
        self._make = make
        self.owners = [None] * SLOTS
        self._pools: dict[Address, Any] = {}
        self._question: asyncio.Task[None] | None = None
        self.crew = Crew()

    def pool(self, address: Address) -> Any:
        """Return the pool of a node, new on first use."""
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = self._make(node_settings(self.settings, self._target, address))
        return pool

    @property
    def pools(self) -> dict[Address, Any]:
        """Every pool that was used, by address."""
        return dict(self._pools)

    @property
    def seed(self) -> Any:
        """A pool for what belongs to no slot before the map is known."""
        return self.pool(self._target.addresses[0])

    def living(self) -> Any:
        """Return the pool of a primary that was heard of last, if possible; of the first seed while none is known."""
        pools = [self.pool(address) for address in self.known_primaries()]
        return max(pools, key=_liveness) if pools else self.seed

    async def listener(self, attempt: int) -> Any:
        """Return the client of one primary after the other, having asked for the map again after the first attempt.

        Raises:
            NotSentError: no node tells the map.
        """
        if attempt:
            await self.refresh()
        primaries = await self.primaries()
        return (self.pool(primaries[attempt % len(primaries)]) if attempt else self.living()).client()

    def known_owner(self, key: Any) -> Address | None:
        """Return the node that serves a key, as far as is known."""
        return self.owners[key_slot(encoded_key(key))]

    def owner_of(self, key: Any) -> Address:
        """Return the node that serves a key, once the map is known.

        Raises:
            NotSentError: the cluster serves this slot nowhere.
        """
        address = self.known_owner(key)
        if address is None:
            raise LostNotSentError("cluster: not sent, no node serves the slot of this key", 0.0)
        return address

    async def owner(self, key: Any) -> Address:
        """Return the node that serves a key.

        Raises:
            NotSentError: no node could be asked, or the cluster serves this slot nowhere.
        """
        if self.known_owner(key) is None:
            await self.refresh()
        return self.owner_of(key)

    async def primaries(self) -> list[Address]:
        """Return every primary that serves slots.

        Raises:
            NotSentError: no node could be asked.
        """
        if not any(self.owners):
            await self.refresh()
        return self.known_primaries()

    def known_primaries(self) -> list[Address]:
        """Return every primary that serves slots, as far as is known."""
        return list(dict.fromkeys(address for address in self.owners if address is not None))

    def moved(self, slot: int, address: Address) -> None:
        """Take note that a slot moved, and ask for the whole map in the background where an event loop runs."""
        self.owners[slot] = address
        with suppress(RuntimeError):
            self._ask()

    async def refresh(self) -> None:
        """Ask for the map; callers of one moment share the question.

        Raises:
            NotSentError: no node answered.
        """
        await asyncio.shield(self._ask())

    def ask_again(self) -> None:
        """Ask for the map in the background."""
        self._ask()

    def refresh_blocking(self) -> None:
        """Ask for the map from a thread; errors as with ``refresh``."""
        drive(self._learn(lambda address: self.pool(address).sync().run_raw([_QUESTION])))

    def _ask(self) -> "asyncio.Task[None]":
        question, loop = self._question, asyncio.get_running_loop()
        if question is None or question.done() or question.get_loop() is not loop:
            limit = 2 * self.settings.connect_timeout
            flow = self._learn(lambda address: self.pool(address).client().run_raw([_QUESTION], within=limit))
            question = self._question = loop.create_task(adrive(flow), name="isp_perf cluster map")
            question.add_done_callback(unheard)
        return question

    def _learn(self, ask: Callable[[Address], Any]) -> Generator[Callable[[], Any], Any, None]:
        """Ask one node after the other, until one tells."""
        last: Exception | None = None
        for address in self._candidates():
            try:
                (reply,) = yield partial(ask, address)
            except RemoteError as error:
                reply = error
            if not isinstance(reply, Exception):
                self.owners = owners_in(reply, address)
                return
            last = reply
        raise LostNotSentError("cluster: not sent, no node tells which one serves what", 0.0) from last

    def _candidates(self) -> Iterable[Address]:
        """Return whom to ask: nodes that serve something first, then the seeds."""
        known = self.known_primaries()
        return list(dict.fromkeys([*known, *self._target.addresses]))[: max(_ASKED_AT_MOST, len(known) + 1)]

    async def aclose(self) -> None:
        """Close every connection of the running event loop."""
        question, self._question = self._question, None
        if question is not None and not question.done() and question.get_loop() is asyncio.get_running_loop():
            question.cancel()
            with suppress(asyncio.CancelledError, RemoteError):
                await question
        for pool in self._pools.values():
            await pool.aclose()

    def forget(self) -> None:
        """In a forked child: drop every connection without touching its socket, and the parent's question."""
        self._question = None
        self.crew = Crew()
        for pool in self._pools.values():
            pool.forget_connections()

    # -- how it is

    def stats(self) -> RedisStats:
        """Return the counters of every node's lanes, ``lane@host:port``."""
        found = {f"{address.host}:{address.port}": pool.stats() for address, pool in self.pools.items()}
        lanes = {f"{name}@{node}": lane for node, stats in found.items() for name, lane in stats.lanes.items()}
        return RedisStats(
            lanes, sum(stats.in_flight for stats in found.values()), sum(stats.queued for stats in found.values())
        )

    def sockets(self) -> tuple[int, int]:
        """Return how many sockets are open over all nodes, and how many of them would take a command at once."""
        counts = [pool.sockets() for pool in self.pools.values()]
        return sum(created for created, _ in counts), sum(available for _, available in counts)

    async def health(self) -> RedisHealth:
        """Return the worst of what the primaries say, and the slowest ping; never raises."""
        try:
            primaries = await self.primaries()
        except RemoteError as error:
            return RedisHealth("unhealthy", reason=str(error))
        found = await asyncio.gather(*(self.pool(address).health() for address in primaries))
        worst = max(found, key=lambda health: _SEVERITY.index(health.status))
        pings = [health.ping_time_ms for health in found if health.ping_time_ms is not None]
        created, available = self.sockets()
        ping = max(pings) if worst.status != "unhealthy" and pings else None
        return RedisHealth(worst.status, ping, created, available, worst.reason, self.stats().as_dict())


def _liveness(pool: Any) -> tuple[bool, bool]:
    """Return whether a pool's node is connected now, and whether it is not known to be down."""
    state = pool.client().states.present()
    return (False, True) if state is None else (state.fast.link is not None, state.fast.down is None)
