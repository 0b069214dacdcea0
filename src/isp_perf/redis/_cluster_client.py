"""The drop-in asyncio client for a cluster: each command goes over the lanes of the node that serves its key."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from redis.asyncio.client import Pipeline

from isp_perf._core.slots import first_key
from isp_perf._runtime.drive import adrive
from isp_perf.errors import NotSentError
from isp_perf.redis import _redirects
from isp_perf.redis._client import PipelinedRedis, Way, or_empty
from isp_perf.redis._cluster import Cluster
from isp_perf.redis._config import Address
from isp_perf.redis._redirects import AGAIN_IF_HARMLESS, Call, Command

__all__ = ["ClusterRedis"]


class ClusterRedis(PipelinedRedis):
    """``redis.asyncio.Redis`` over the nodes of a cluster; made by ``RedisPool.client()``.

    Commands without a key ask one node; FLUSHALL, SCRIPT LOAD and others of their kind go to every primary, KEYS and
    DBSIZE are joined. A transaction, and a command of several keys, needs keys of one slot: use a hash tag
    (``"{user:7}:name"``). SCAN is per node: use ``RedisPool.delete_pattern`` or KEYS. WATCH goes to the node of its
    first key, pub/sub to a primary that is alive.

    Args:
        cluster: the nodes.
        decode: hand out text instead of bytes, as redis-py does with ``decode_responses``.
    """

    def __init__(self, cluster: Cluster, *, decode: bool = False) -> None:
        self._nodes = cluster
        self._redirected = _redirects.Ways(self._send, self._unit, asyncio.sleep, cluster.refresh)
        super().__init__(cluster.seed.client().states, decode=decode)

    def node(self, address: Address) -> PipelinedRedis:
        """Return the client of one node."""
        client: PipelinedRedis = self._nodes.pool(address).client(decode_responses=self.decode)
        return client

    @property
    def connection_pool(self) -> Any:
        """redis-py's pool of dedicated connections to a primary that is alive, for the running event loop."""
        return self._nodes.living().client(decode_responses=self.decode).states.pool(decode=self.decode)

    @connection_pool.setter
    def connection_pool(self, pool: Any) -> None:
        """Ignore redis-py's assignment: the pool depends on the event loop."""

    async def node_of(self, key: Any) -> PipelinedRedis:
        """Return the client of the node that serves ``key``.

        Raises:
            NotSentError: no node could be asked, or the cluster serves this slot nowhere.
        """
        return self.node(await self._nodes.owner(key))

    def pipeline(self, *args: Any, **options: Any) -> Pipeline:
        """Return a pipeline, with redis-py's arguments; what WATCH names decides the node of a watched one."""
        from isp_perf.redis._cluster_pipeline import SlotPipeline

        return SlotPipeline(self, *args, **options)

    async def _send(self, address: Address, args: Command) -> list[Any]:
        return await self.node(address).run_raw([args])

    async def _unit(self, address: Address, commands: list[Command]) -> list[Any]:
        return await self.node(address).run_unit(commands)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command on the node that serves its first key; options and errors as with one server.

        Raises:
            NotSentError: no node could be asked in time.
            redis.exceptions.ResponseError: keys of several slots (``CROSSSLOT``), or the server's own error.
        """
        way = self._ways[args[0]]
        key = first_key(way.route.words, args)
        if key is None:
            return await self._execute_keyless(way, args, options)
        call = Call(args, key, monotonic(), way.read_only or bool(options.get("idempotent")))
        try:
            return await self.node(await self._nodes.owner(key)).execute_command(*args, **dict(options))
        except AGAIN_IF_HARMLESS as error:
            reply = await adrive(_redirects.again(self._nodes, self._redirected, call, error=error))
        if isinstance(reply, Exception):
            return or_empty(reply, options)
        return reply if way.plain else await self._shape(way.callback, reply, options)

    async def _execute_keyless(self, way: Way, args: Command, options: dict[str, Any]) -> Any:
        nodes = [self.node(address) for address in await self._nodes.primaries()]
        if not _redirects.is_everywhere(way.route, args):
            return await nodes[0].execute_command(*args, **options)
        replies = await asyncio.gather(*(node.execute_command(*args, **dict(options)) for node in nodes))
        return _redirects.joined(way.name, replies)

    async def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``."""
        return await self.execute_command("GET", name)

    async def run_raw(
        self, commands: Sequence[Command], *, within: float | None = None, idempotent: bool = False
    ) -> list[Any]:
        """Send commands, each to its node, all nodes at once; raw replies in order, an exception for each failure."""
        keys = [first_key(self._ways[args[0]].route.words, args) for args in commands]
        await self._nodes.primaries()
        since = monotonic()

        def call_of(i: int) -> Call | None:
            harmless = idempotent or self._ways[commands[i][0]].read_only
            return None if keys[i] is None else Call(commands[i], keys[i], since, harmless)

        parts = _redirects.groups(self._nodes, keys)
        options = {"within": within, "idempotent": idempotent}
        answers = await asyncio.gather(
            *(self._part(address, [commands[i] for i in group], **options) for address, group in parts.items())
        )
        replies = _redirects.together(parts.values(), answers, len(commands))
        return await adrive(_redirects.rest(self._nodes, self._redirected, replies, call_of=call_of))

    async def _part(self, address: Address, part: list[Command], **options: Any) -> list[Any]:
        """Send one node's part of a batch; what could not be sent at all is an exception in each place."""
        try:
            return await self.node(address).run_raw(part, **options)
        except NotSentError as error:
            return [error] * len(part)

    async def run_unit(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that stand or fall together to the node that serves their one slot.

        Raises:
            ConfigurationError: their keys belong to several slots.
        """
        key = _redirects.one_key(commands, lambda name: self._ways[name].route.words)
        await self._nodes.primaries()
        return await adrive(_redirects.united(self._nodes, self._redirected, commands, key=key))

    async def supports(self, name: str) -> bool:
        """Return whether the servers have a command."""
        return await self.node((await self._nodes.primaries())[0]).supports(name)
