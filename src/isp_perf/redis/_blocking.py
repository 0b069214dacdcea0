"""The pool's own methods for threads: the blocking twin of what ``RedisPool`` offers to asyncio."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from isp_perf._core.ranges import one_of
from isp_perf.errors import NotSentError, RemoteError
from isp_perf.redis import _flow, _flow_apart
from isp_perf.redis._config import RedisSettings
from isp_perf.redis._stats import BulkResult
from isp_perf.typing import BlockingChannel, Listener, Order

if TYPE_CHECKING:
    from isp_perf.redis._cluster import Cluster
    from isp_perf.redis._scripts import Dialect
    from isp_perf.redis._sync import BlockingRedis
    from isp_perf.redis._sync_pipeline import LeavingPipeline

__all__ = ["BlockingPool"]

Key = str | bytes


class BlockingPool:
    """``get``, ``set``, ``delete`` and the bulk methods for threads; made by ``RedisPool.blocking``.

    Names, meanings and errors are those of ``RedisPool``.

    Args:
        settings: the pool's settings.
        client: returns the blocking client.
        cluster: the nodes, where there is a cluster.
    """

    def __init__(
        self, settings: RedisSettings, client: Callable[[], "BlockingRedis"], cluster: "Cluster | None" = None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._bulk: Any = _flow if cluster is None else _flow_apart
        self._client = client
        self._dialect: Dialect | None = None

    def get(self, key: Key) -> bytes | None:
        """Return the value of ``key``, or ``None``."""
        if self._settings.target is None:
            return None
        try:
            value: bytes | None = self._client().ask("GET", key)
        except RemoteError:
            if self._settings.on_down == "raise":
                raise
            return None
        return value

    def set(self, key: Key, value: bytes | str, *, ttl: float | timedelta | None = None, nx: bool = False) -> bool:
        """Store ``value`` under ``key`` for ``ttl`` seconds (``None``: for ever) and return whether it was stored.

        With ``nx`` only if the key does not exist.
        """
        command = _flow.set_arguments(key, value, ttl, nx=nx)
        if self._settings.target is None:
            return False
        try:
            return bool(self._client().ask(*command))
        except NotSentError:
            if self._settings.on_down == "raise":
                raise
            return False

    def delete(self, *keys: Key) -> int:
        """Remove ``keys`` and return how many existed."""
        return self.delete_many(keys)

    def get_many(self, keys: Iterable[Key]) -> dict[Any, bytes]:
        """Return the values of those ``keys`` that are stored, by key."""
        if self._settings.target is None:
            return {}
        try:
            found: dict[Any, bytes] = self._drive(self._bulk.get_many(keys))
        except RemoteError:
            if self._settings.on_down == "raise":
                raise
            return {}
        return found

    def set_many(
        self, mapping: Mapping[Any, bytes | str], *, ttl: float | timedelta | None = None, jitter: float = 0.0
    ) -> BulkResult:
        """Store every item of ``mapping`` for ``ttl`` seconds, less up to the share ``jitter``, and report per key."""
        life = _flow.Life.of(ttl, jitter)
        if self._settings.target is None:
            return BulkResult(0, dict.fromkeys(mapping, NotSentError("SET: not sent, no server is configured")))
        together = self._cluster is None and (ttl is None or self._client().supports("MSETEX"))
        result: BulkResult = self._drive(_flow.set_many(mapping, life, draw=os.urandom, together=together))
        return result

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove ``keys`` and return how many existed."""
        return self._write(self._bulk.delete_many(keys))

    def delete_pattern(self, glob: str | bytes, *, dry_run: bool = False, force: bool = False) -> int:
        """Remove every key that matches the Redis glob and return their number; ``dry_run`` only counts.

        ``force`` allows a pattern that matches every key.
        """
        _flow.check_glob(glob, force=force)
        if self._cluster is not None:
            return self._delete_pattern_everywhere(glob, dry_run=dry_run, force=force)
        return self._write(_flow.delete_pattern(glob, dry_run=dry_run, force=force))

    def _delete_pattern_everywhere(self, glob: str | bytes, **options: bool) -> int:
        cluster = cast("Cluster", self._cluster)
        if not cluster.known_primaries():
            cluster.refresh_blocking()
        clients = [cluster.pool(address).sync() for address in cluster.known_primaries()]
        return sum(_driven(_flow_apart.delete_pattern(glob, **options), client.ask_many) for client in clients)

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out the cache's ``orders`` in one round trip within so many seconds; see ``RemoteLevel.perform``.

        Raises:
            NotSentError, MaybeExecutedError: the server could not be asked, or did not answer in time.
        """
        if self._cluster is not None:
            from isp_perf.redis._cluster_channel import perform_blocking_at

            cluster = self._cluster
            return perform_blocking_at(
                cluster, orders, within=within, target=lambda address: cluster.pool(address).blocking
            )
        from isp_perf.redis._scripts import Dialect
        from isp_perf.redis._tracking import perform_blocking

        client = self._client()
        if self._dialect is None:
            self._dialect = Dialect()
        return perform_blocking(
            client.combiner, self._dialect, orders, node=client.node, within=within, connect_within=within
        )

    def channel(self, prefix: str, listener: Listener, /) -> BlockingChannel:
        """Return a channel for keys that begin with ``prefix``, of which ``listener`` hears."""
        if self._cluster is not None:
            from isp_perf.redis._cluster_channel import BlockingClusterChannel

            return BlockingClusterChannel(self._cluster, prefix, listener)
        from isp_perf.redis._tracking import BlockingTrackedChannel

        return BlockingTrackedChannel(self._client(), self._settings, prefix=prefix, listener=listener)

    def pipeline(
        self, *, limit: int = 1024, on_error: Literal["raise", "collect"] = "raise", transaction: bool = False
    ) -> "LeavingPipeline":
        """Return a context manager on which commands queue up; ``execute()`` sends them, so does leaving the block.

        Args:
            limit: commands per chunk, 1-100,000; between two chunks other threads have their turn.
            on_error: ``"raise"`` raises the first error after everything was answered, ``"collect"`` returns errors
                in their places.
            transaction: one MULTI ... EXEC block.

        Raises:
            ConfigurationError: the pool is disabled, or a setting is outside its range.
        """
        from isp_perf.redis._sync_pipeline import LeavingPipeline

        one_of("on_error", on_error, ("raise", "collect"))
        return LeavingPipeline(self._client(), transaction, collect=on_error == "collect", limit=limit)

    def stream(
        self,
        commands: Iterable[tuple[Any, ...]],
        *,
        limit: int = 1024,
        on_error: Literal["raise", "collect"] = "raise",
    ) -> Generator[Any, None, None]:
        """Yield the server's own replies to any number of commands, in order and in constant memory.

        Args:
            commands: commands as tuples, the name first; drawn as replies are taken.
            limit: commands per chunk, 1-100,000; one chunk is on its way at a time.
            on_error: ``"raise"`` raises the first error reply or failure, ``"collect"`` yields it in its place.

        Raises:
            ConfigurationError: the pool is disabled, a setting is outside its range, or a command that needs a
                connection of its own.
        """
        from isp_perf.redis._sync_pipeline import stream

        return stream(self._client(), commands, limit=limit, on_error=on_error)

    def _write(self, flow: _flow.Flow) -> int:
        if self._settings.target is None:
            return 0
        try:
            return int(self._drive(flow))
        except NotSentError:
            if self._settings.on_down == "raise":
                raise
            return 0

    def _drive(self, flow: _flow.Flow) -> Any:
        return _driven(flow, self._client().ask_many)


def _driven(flow: _flow.Flow, run: Callable[[list[tuple[Any, ...]]], list[Any]]) -> Any:
    try:
        commands = next(flow)
        while True:
            commands = flow.send(run(list(commands)))
    except StopIteration as end:
        return end.value
