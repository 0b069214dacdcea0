"""The drop-in client for threads over a cluster: each command goes to the node that serves its key."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from isp_perf._core.slots import first_key
from isp_perf._runtime.drive import drive
from isp_perf.redis import _redirects
from isp_perf.redis._client import Way, or_empty
from isp_perf.redis._cluster import Cluster
from isp_perf.redis._config import Address
from isp_perf.redis._errors import settled
from isp_perf.redis._redirects import AGAIN_IF_HARMLESS, Call, Command
from isp_perf.redis._sync import BlockingRedis

__all__ = ["ClusterBlockingRedis"]


class ClusterBlockingRedis(BlockingRedis):
    """``redis.Redis`` for threads over the nodes of a cluster; made by ``RedisPool.sync()``.

    What is said of ``ClusterRedis`` holds here too, but pub/sub and WATCH use the first seed.

    Args:
        cluster: the nodes.
        decode: hand out text instead of bytes, as redis-py does with ``decode_responses``.
    """

    def __init__(self, cluster: Cluster, *, decode: bool = False) -> None:
        self._nodes = cluster
        self._decodes = decode
        self._redirected = _redirects.Ways(self._send, self._unit, time.sleep, cluster.refresh_blocking)
        super().__init__(cluster.seed.client().states, decode=decode)

    def node_client(self, address: Address) -> BlockingRedis:
        """Return the client of one node."""
        client: BlockingRedis = self._nodes.pool(address).sync(decode_responses=self._decodes)
        return client

    def _send(self, address: Address, args: Command) -> list[Any]:
        return self.node_client(address).run_raw([args])

    def _unit(self, address: Address, commands: list[Command]) -> list[Any]:
        return self.node_client(address).run_unit(commands)

    def _know(self) -> list[Address]:
        """Return every primary, having asked for the map if it is not known."""
        if not any(self._nodes.owners):
            self._nodes.refresh_blocking()
        return self._nodes.known_primaries()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command on the node that serves its first key; options and errors as with one server."""
        way = self._ways[args[0]]
        key = first_key(way.route.words, args)
        nodes = self._know()
        if key is None:
            return self._execute_keyless(way, args, options, nodes=nodes)
        call = Call(args, key, time.monotonic(), way.read_only or bool(options.get("idempotent")))
        try:
            return self.node_client(self._nodes.owner_of(key)).execute_command(*args, **dict(options))
        except AGAIN_IF_HARMLESS as error:
            reply = drive(_redirects.again(self._nodes, self._redirected, call, error=error))
        if isinstance(reply, Exception):
            return or_empty(reply, options)
        return reply if way.plain else self._shape(way.callback, reply, options)

    def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``."""
        return self.execute_command("GET", name)

    def _execute_keyless(self, way: Way, args: Command, options: dict[str, Any], *, nodes: list[Address]) -> Any:
        everywhere = _redirects.is_everywhere(way.route, args)
        clients = [self.node_client(address) for address in (nodes if everywhere else nodes[:1])]
        return _redirects.joined(way.name, [client.execute_command(*args, **dict(options)) for client in clients])

    def ask_many(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands as one batch; the answer holds the server's own replies, an exception for each failure."""
        return list(map(settled, self.run_raw(commands)))

    def run_raw(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, each to its node; raw replies in order, an exception for each failure."""
        keys = [first_key(self._ways[args[0]].route.words, args) for args in commands]
        self._know()
        since = time.monotonic()

        def call_of(i: int) -> Call | None:
            return None if keys[i] is None else Call(commands[i], keys[i], since, self._ways[commands[i][0]].read_only)

        parts = _redirects.groups(self._nodes, keys)
        sending = [
            partial(self.node_client(address).ask_many, [commands[i] for i in group])
            for address, group in parts.items()
        ]
        replies = _redirects.together(parts.values(), self._nodes.crew.at_once(sending), len(commands))
        return drive(_redirects.rest(self._nodes, self._redirected, replies, call_of=call_of))

    def run_unit(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that stand or fall together to the node that serves their one slot; errors as in asyncio."""
        key = _redirects.one_key(commands, lambda name: self._ways[name].route.words)
        self._know()
        return drive(_redirects.united(self._nodes, self._redirected, commands, key=key))

    def supports(self, name: str) -> bool:
        """Return whether the servers have a command."""
        return self.node_client(self._know()[0]).supports(name)
