"""``RedisPool``: one object for a server, from any event loop, thread or forked process.

redis-py is imported with the first use, so that a program without Redis never pays for it.
"""

import os
from asyncio import gather
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakSet

from isp_perf._core.ranges import one_of, seconds, whole
from isp_perf.errors import ConfigurationError, NotSentError, RemoteError
from isp_perf.redis import _flow, _flow_apart
from isp_perf.redis._blocking import BlockingPool
from isp_perf.redis._config import RedisSettings
from isp_perf.redis._pulse import Pulse, snapshot
from isp_perf.redis._stats import BulkResult, Gap, Message, RedisHealth, RedisStats
from isp_perf.typing import Channel, Guard, Listener, Order

if TYPE_CHECKING:
    from isp_perf.redis._client import PipelinedRedis
    from isp_perf.redis._cluster import Cluster
    from isp_perf.redis._lock import RedisLock
    from isp_perf.redis._pipeline import PoolPipeline
    from isp_perf.redis._scripts import Dialect
    from isp_perf.redis._state import LoopState, States
    from isp_perf.redis._sync import BlockingRedis

__all__ = ["RedisPool", "pools"]

Key = str | bytes

pools: WeakSet["RedisPool"] = WeakSet()
"""Every pool alive, for metrics."""


class RedisPool:
    """Redis for asyncio and threads: shared links, honest failures, and nothing to start.

    Making a pool connects to nothing; the first use does. Without a server configured it is disabled: reads answer as
    absent, writes as not stored, and whatever needs a real server raises ``ConfigurationError``. Values are bytes.

    Args:
        settings: ``RedisSettings``, a URL, or ``None`` for a disabled pool.
        guard: a circuit breaker or another ``isp_perf.typing.Guard``: asked before every write to the server, told of
            every write that was answered, of every one that was not, and of attempts to connect that failed. What it
            rejects ends in ``NotSentError`` with the guard's ``retry_after``.

    Raises:
        ConfigurationError: the URL is malformed.
    """

    settings: RedisSettings

    def __init__(self, settings: RedisSettings | str | None = None, *, guard: Guard | None = None) -> None:
        if isinstance(settings, str):
            settings = RedisSettings(url=settings)
        self.settings = RedisSettings() if settings is None else settings
        self._cluster = self._new_cluster()
        self._bulk: Any = _flow if self._cluster is None else _flow_apart
        self._states: States | None = None
        self._guard = guard
        self._clients: dict[bool, PipelinedRedis] = {}
        self._syncs: dict[bool, BlockingRedis] = {}
        self._blocking: BlockingPool | None = None
        self._pulse = Pulse()
        self._dialect: Dialect | None = None
        pools.add(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "RedisPool":
        """Return a pool for REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINELS; disabled if none is set.

        Args:
            environ: the environment to read; default ``os.environ``.

        Raises:
            ConfigurationError: more than one of them is set, or one is malformed.
        """
        return cls(RedisSettings.from_env(environ))

    @property
    def enabled(self) -> bool:
        """Whether a server is configured."""
        return self.settings.target is not None

    def __repr__(self) -> str:
        return f"RedisPool({self.settings!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection of the running event loop and of the blocking client; later calls open new ones."""
        if self._states is not None:
            await self._states.aclose()
        if self._cluster is not None:
            await self._cluster.aclose()
        for sync in self._syncs.values():
            sync.disconnect()

    # -- clients

    def client(self, *, decode_responses: bool = False) -> "PipelinedRedis":
        """Return the drop-in ``redis.asyncio.Redis``; always the same object for the same argument.

        Args:
            decode_responses: whether it hands out text instead of bytes (default: bytes, as redis-py does).

        Raises:
            ConfigurationError: the pool is disabled.
        """
        client = self._clients.get(decode_responses)
        if client is None:
            client = self._clients[decode_responses] = self._new_client(decode=decode_responses)
        return client

    def _new_client(self, *, decode: bool) -> "PipelinedRedis":
        if self._cluster is not None:
            from isp_perf.redis._cluster_client import ClusterRedis

            return ClusterRedis(self._cluster, decode=decode)
        from isp_perf.redis._client import PipelinedRedis
        from isp_perf.redis._coalesce import CoalescingRedis

        kind = CoalescingRedis if self.settings.coalesce else PipelinedRedis
        return kind(self._shared(), decode=decode)

    def _new_cluster(self) -> "Cluster | None":
        target = self.settings.target
        if target is None or target.kind != "cluster":
            return None
        from isp_perf.redis._cluster import Cluster

        return Cluster(self.settings, target, self._node)

    def _node(self, settings: RedisSettings) -> "RedisPool":
        """Return a pool for one node of the cluster; this one answers for it to metrics and after a fork."""
        pool = RedisPool(settings, guard=self._guard)
        pool._bulk = _flow_apart
        pools.discard(pool)
        return pool

    def sync(self, *, decode_responses: bool = False) -> "BlockingRedis":
        """Return the drop-in ``redis.Redis`` for threads; always the same object for the same argument.

        Args:
            decode_responses: whether it hands out text instead of bytes (default: bytes, as redis-py does).

        Raises:
            ConfigurationError: the pool is disabled.
        """
        sync = self._syncs.get(decode_responses)
        if sync is None:
            sync = self._syncs[decode_responses] = self._new_sync(decode=decode_responses)
        return sync

    def _new_sync(self, *, decode: bool) -> "BlockingRedis":
        if self._cluster is not None:
            from isp_perf.redis._cluster_sync import ClusterBlockingRedis

            return ClusterBlockingRedis(self._cluster, decode=decode)
        from isp_perf.redis._sync import BlockingRedis

        return BlockingRedis(self._shared(), decode=decode)

    @property
    def blocking(self) -> BlockingPool:
        """The pool's own methods for threads."""
        if self._blocking is None:
            self._blocking = BlockingPool(self.settings, self.sync, self._cluster)
        return self._blocking

    def _shared(self) -> "States":
        if self._states is None:
            target = self.settings.target
            if target is None:
                rule = "no server is configured"
                raise ConfigurationError("settings", None, rule, "give a URL, or set REDIS_URL")
            from isp_perf.redis._state import States

            self._states = States(self.settings, target, guard=self._guard)
        return self._states

    # -- one key

    async def get(self, key: Key) -> bytes | None:
        """Return the value of ``key``, or ``None``.

        Raises:
            NotSentError: the server could not be asked (not with ``on_down="miss"``).
            MaybeExecutedError: no answer came in time.
        """
        if self.settings.target is None:
            return None
        try:
            value: bytes | None = await self.client().fetch(key)
        except RemoteError:
            if self.settings.on_down == "raise":
                raise
            return None
        return value

    async def set(
        self,
        key: Key,
        value: bytes | str,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        idempotent: bool = False,
    ) -> bool:
        """Store ``value`` for ``ttl`` seconds (``None``: for ever) and return whether it was stored.

        Args:
            key: str or bytes.
            value: bytes, or text that is stored as UTF-8.
            ttl: seconds above 0, at a resolution of 1 ms, or a timedelta.
            nx: store only if the key does not exist.
            idempotent: storing twice does no harm, so repeat the call if its answer was lost.

        Raises:
            NotSentError: surely not stored (``False`` instead with ``on_down="miss"``).
            MaybeExecutedError: sent, and no answer came.
            ConfigurationError: a ttl of 0 or less, or ``nx`` and ``idempotent`` together.
        """
        command = _flow.set_arguments(key, value, ttl, nx=nx)
        if nx and idempotent:
            rule = "a repeated SET NX would find its own first value"
            raise ConfigurationError("idempotent", value=True, rule=rule, fix="drop one of nx and idempotent")
        if self.settings.target is None:
            return False
        try:
            return bool(await self.client().ask(*command, idempotent=idempotent))
        except NotSentError:
            if self.settings.on_down == "raise":
                raise
            return False

    async def delete(self, *keys: Key) -> int:
        """Remove ``keys`` and return how many existed; errors as with ``delete_many``."""
        return await self.delete_many(keys)

    # -- many keys

    def get_many(self, keys: Iterable[Key], *, timeout: float | None = None) -> Coroutine[Any, Any, dict[Any, bytes]]:
        """Return the values of those ``keys`` that are stored, by key.

        Args:
            keys: any iterable; sent in chunks that are in flight together.
            timeout: seconds for the whole call, at most (and by default) the pool's ``timeout``.

        Raises:
            NotSentError, MaybeExecutedError: the first failure of a chunk.
            ConfigurationError: a timeout that is no number above 0.
        """
        within = None if timeout is None else min(seconds("timeout", timeout), self.settings.timeout)
        return self._read(self._bulk.get_many(keys), {}, within)

    async def mget(self, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the values in the order of ``keys``, ``None`` where there is none; errors as with ``get_many``."""
        wanted = list(keys)
        found = await self.get_many(wanted)
        return [found.get(key) for key in wanted]

    async def set_many(
        self,
        mapping: Mapping[Any, bytes | str],
        *,
        ttl: float | timedelta | None = None,
        jitter: float = 0.0,
        idempotent: bool = False,
    ) -> BulkResult:
        """Store every item and report per key; a failure of some keys is a result, not an exception.

        Args:
            mapping: values by key.
            ttl: seconds above 0 or a timedelta, ``None`` for ever.
            jitter: share of the ttl, 0-1, that is taken off at random per key, so that they do not expire together.
            idempotent: storing twice does no harm, so repeat what was sent and not answered.

        Raises:
            ConfigurationError: ttl or jitter outside its range.
        """
        life = _flow.Life.of(ttl, jitter)
        if self.settings.target is None:
            return BulkResult(0, dict.fromkeys(mapping, NotSentError("SET: not sent, no server is configured")))
        together = self._bulk is _flow and (ttl is None or await self.client().supports("MSETEX"))
        flow = _flow.set_many(mapping, life, draw=os.urandom, together=together)
        result: BulkResult = await self._drive(flow, idempotent=idempotent)
        return result

    async def mset(self, mapping: Mapping[Any, bytes | str], *, ttl: float | timedelta | None = None) -> BulkResult:
        """Store every item of ``mapping`` for ``ttl`` seconds, as ``set_many``; not atomic, unlike the MSET command."""
        return await self.set_many(mapping, ttl=ttl)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove ``keys`` and return how many existed.

        Raises:
            NotSentError: surely not executed (0 instead with ``on_down="miss"``).
            MaybeExecutedError: sent, and no answer came.
        """
        return int(await self._write(self._bulk.delete_many(keys)))

    async def delete_pattern(self, glob: str | bytes, *, dry_run: bool = False, force: bool = False) -> int:
        """Remove every key that matches the Redis glob, by SCAN and UNLINK, and return their number.

        Args:
            glob: as in the KEYS command; ``*`` alone needs ``force``.
            dry_run: only count.
            force: allow a pattern that matches every key.

        Raises:
            ConfigurationError: the pattern matches every key and ``force`` is not set.
            NotSentError, MaybeExecutedError: the first failure; keys removed before it stay removed.
        """
        _flow.check_glob(glob, force=force)
        if self._cluster is not None:
            nodes = [self._cluster.pool(address) for address in await self._cluster.primaries()]
            return sum(await gather(*(node.delete_pattern(glob, dry_run=dry_run, force=force) for node in nodes)))
        return int(await self._write(self._bulk.delete_pattern(glob, dry_run=dry_run, force=force)))

    async def _read(self, flow: _flow.Flow, absent: Any, within: float | None) -> Any:
        if self.settings.target is None:
            return absent
        try:
            return await self._drive(flow, within)
        except RemoteError:
            if self.settings.on_down == "raise":
                raise
            return absent

    async def _write(self, flow: _flow.Flow) -> Any:
        if self.settings.target is None:
            return 0
        try:
            return await self._drive(flow)
        except NotSentError:
            if self.settings.on_down == "raise":
                raise
            return 0

    async def _drive(self, flow: _flow.Flow, within: float | None = None, *, idempotent: bool = False) -> Any:
        run = self.client().ask_many
        try:
            commands = next(flow)
            while True:
                commands = flow.send(await run(commands, within=within, idempotent=idempotent))
        except StopIteration as end:
            return end.value

    def pipeline(
        self, *, limit: int = 256, on_error: Literal["raise", "collect"] = "raise", transaction: bool = False
    ) -> "PoolPipeline":
        """Return an async context manager on which commands queue up; ``execute()`` sends them, so does leaving it.

        Args:
            limit: commands per chunk, 1-100,000.
            on_error: ``"raise"`` raises the first error after everything was answered, ``"collect"`` returns errors
                in their places.
            transaction: one MULTI ... EXEC block.

        Raises:
            ConfigurationError: the pool is disabled, or a setting is outside its range.
        """
        from isp_perf.redis._pipeline import PoolPipeline

        return PoolPipeline(self.client(), limit=limit, on_error=on_error, transaction=transaction)

    async def stream(
        self,
        commands: Iterable[tuple[Any, ...]],
        *,
        limit: int = 256,
        on_error: Literal["raise", "collect"] = "raise",
    ) -> AsyncGenerator[Any, None]:
        """Yield the server's own replies to any number of commands, in order and in constant memory.

        Args:
            commands: commands as tuples, the name first; drawn as replies are taken.
            limit: commands per chunk, 1-100,000; at most four chunks are on their way.
            on_error: ``"raise"`` raises the first error reply or failure, ``"collect"`` yields it in its place.

        Raises:
            ConfigurationError: the pool is disabled, a setting is outside its range, or a command cannot share a link.
        """
        from isp_perf.redis._stream import in_chunks

        whole("limit", limit, least=1, most=100_000)
        one_of("on_error", on_error, ("raise", "collect"))
        async with aclosing(in_chunks(self.client(), commands, limit=limit)) as chunks:
            async for chunk in chunks:
                for reply in chunk:
                    if isinstance(reply, Exception) and on_error == "raise":
                        raise reply
                    yield reply

    # -- coordination

    def lock(self, name: str, *, ttl: float | timedelta = 10) -> "RedisLock":
        """Return a lock between processes, for one ``async with`` block, with a fencing token in ``.fence``.

        Args:
            name: what it protects; not empty.
            ttl: seconds after which a lock whose holder died is free again; it is extended while it is held.

        Raises:
            ConfigurationError: an empty name, a ttl of 0 or less, or a disabled pool.
        """
        from isp_perf.redis._lock import RedisLock

        return RedisLock(self.client(), name, seconds("ttl", ttl), home=self._home)

    async def _home(self, key: str) -> "LoopState":
        """Return the lanes to the server of a key."""
        if self._cluster is None:
            return await self._shared().current()
        node: RedisPool = self._cluster.pool(await self._cluster.owner(key))
        return await node._home(key)

    def subscribe(self, *channels: str | bytes) -> AsyncGenerator[Message | Gap, None]:
        """Return an async iterator over the messages of ``channels``; closing it unsubscribes.

        After a lost connection it subscribes again by itself and yields a ``Gap`` first. In a cluster any primary will
        do, and another one is asked if one cannot be reached. A consumer that is too slow is
        disconnected by the server in the end, and sees a ``Gap`` too.

        Raises:
            ConfigurationError: no channel, or a disabled pool.
        """
        if not channels:
            raise ConfigurationError("channels", (), "must name at least one channel", "give the channels to listen to")
        from isp_perf.redis._subscribe import listen

        if self._cluster is not None:
            return listen(self._cluster.listener, channels, tries=5)
        return listen(partial(_always, self.client()), channels)

    # -- for the cache

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out the cache's ``orders`` in one round trip within so many seconds; see ``RemoteLevel.perform``.

        Raises:
            NotSentError, MaybeExecutedError: the server could not be asked, or did not answer in time.
            ConfigurationError: the pool is disabled.
        """
        if self._cluster is not None:
            from isp_perf.redis._cluster_channel import perform_at

            return await perform_at(self._cluster, orders, within=within, target=self._cluster.pool)
        from isp_perf.redis._scripts import Dialect
        from isp_perf.redis._tracking import perform_on

        if self._dialect is None:
            self._dialect = Dialect()
        state = await self._shared().current()
        return await perform_on(state.fast, self._dialect, orders, within=within, connect_within=within)

    def channel(self, prefix: str, listener: Listener, /) -> Channel:
        """Return a channel of the running loop for keys that begin with ``prefix``, of which ``listener`` hears.

        Raises:
            ConfigurationError: the pool is disabled.
        """
        if self._cluster is not None:
            from isp_perf.redis._cluster_channel import ClusterChannel

            return ClusterChannel(self._cluster, prefix, listener)
        from isp_perf.redis._tracking import TrackedChannel

        return TrackedChannel(self._shared(), prefix, listener)

    # -- how it is

    def stats(self) -> RedisStats:
        """Return a snapshot of the counters; over a cluster those of every node, ``lane@host:port``."""
        if self._cluster is not None:
            return self._cluster.stats()
        return snapshot(self._states)

    def sockets(self) -> tuple[int, int]:
        """Return how many sockets are open now, over all lanes, and how many of them would take a command at once."""
        if self._cluster is not None:
            return self._cluster.sockets()
        if self._states is None:
            return 0, 0
        created, available, _ = self._states.sockets(self._syncs.values())
        return created, available

    @property
    def last_ping(self) -> float | None:
        """The round trip measured last, in seconds; ``None`` before the first."""
        ping_ms = self._pulse.ping_ms
        return None if ping_ms is None else ping_ms / 1000

    async def health(self) -> RedisHealth:
        """Return how the pool is; never raises, and never takes longer than ``connect_timeout`` and a little.

        A busy pool is judged by its traffic; only one that was silent for ``health_check_interval`` sends a PING.
        """
        if self.settings.target is None:
            return RedisHealth("disabled", reason="no server is configured")
        if self._cluster is not None:
            return await self._cluster.health()
        return await self._pulse.health(self.client(), self._syncs.values())

    def forget_connections(self) -> None:
        """Drop every connection without touching its socket; called in a forked child, whose parent owns them."""
        if self._states is not None:
            self._states.forget()
        for sync in self._syncs.values():
            sync.combiner.forget()
        if self._cluster is not None:
            self._cluster.forget()


async def _always(client: "PipelinedRedis", _attempt: int) -> "PipelinedRedis":
    return client


def _after_fork() -> None:
    for pool in list(pools):
        pool.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
