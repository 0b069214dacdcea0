"""redis-py's pipeline in a cluster: what it watches decides to which node its connection goes."""

from typing import Any, Protocol

from isp_perf.redis._pipeline import LinkPipeline
from isp_perf.redis._sender import Sender

__all__ = ["SlotPipeline"]


class Routed(Sender, Protocol):
    """A client over several nodes."""

    async def node_of(self, key: Any) -> Sender:
        """Return the client of the node that serves ``key``."""
        ...


class SlotPipeline(LinkPipeline):
    """``LinkPipeline`` over a cluster; from WATCH to its end it belongs to the node of the first watched key.

    Args:
        client: the client it was made by.
        transaction: wrap the commands in MULTI and EXEC (default, as in redis-py).
        shard_hint: ignored, as in redis-py.
    """

    def __init__(self, client: Routed, transaction: Any = None, shard_hint: str | None = None) -> None:
        super().__init__(client, transaction, shard_hint)
        self._cluster = client

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Run WATCH, or a command after it, on a connection to the node of the first watched key.

        Raises:
            NotSentError: no node could be asked, or the cluster serves this slot nowhere.
        """
        if not self.watching:
            self._client = self._cluster if len(args) == 1 else await self._cluster.node_of(args[1])
        return await super().immediate_execute_command(*args, **options)

    async def execute(self, *args: Any, **options: Any) -> list[Any]:
        """Send everything staged, as ``LinkPipeline`` does; without WATCH its keys decide where to."""
        if not self.watching:
            self._client = self._cluster
        return await super().execute(*args, **options)
