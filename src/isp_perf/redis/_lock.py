"""A lock between processes whose safety comes from its fencing token.

A lease on a server can be lost without its holder noticing in time: a paused process, a slow network, a failover. So
each acquisition gets a number that only grows; a resource that refuses numbers smaller than one it has seen is safe
whatever the lock does. See M. Kleppmann, "How to do distributed locking", 2016.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

from isp_perf.errors import ConfigurationError, MaybeExecutedError, RemoteError

if TYPE_CHECKING:
    from isp_perf.redis._client import PipelinedRedis
    from isp_perf.redis._state import LoopState

__all__ = ["LockLostError", "RedisLock"]

# Answers the fence, or 0 while somebody else holds the lock. Asking again with the same token is harmless, so an
# acquisition whose answer was lost may be repeated.
_ACQUIRE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return tonumber(redis.call('GET', KEYS[2])) end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('INCR', KEYS[2]) end
return 0
"""
_EXTEND = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class LockLostError(RemoteError):
    """The lock was lost while its holder worked: somebody else may hold it. The body was cancelled."""

    code = "lock-lost"


class RedisLock:
    """Held by one task at a time, over all processes; made by ``RedisPool.lock()``. Use it with ``async with``.

    While it is held it is extended every third of its ttl. When it is lost (it expired, or somebody removed it) the
    body is cancelled, and leaving the block raises ``LockLostError``. Waiting has no limit of its own: use
    ``asyncio.timeout``.

    Args:
        client: the pool's client.
        name: the lock's name, not empty; the keys are ``lock:{name}`` and ``lock:{name}:fence``.
        ttl: seconds until a lock whose holder died is free again.
        home: returns the lanes to the server of a key.

    Attributes:
        fence: a number that is larger for each later holder of the same name; 0 before it was acquired. Hand it to
            the resource the lock protects.
        lost: whether the lock was lost.

    Raises:
        ConfigurationError: an empty name.
    """

    fence: int
    lost: bool

    def __init__(
        self, client: "PipelinedRedis", name: str, ttl: float, *, home: Callable[[str], Awaitable["LoopState"]]
    ) -> None:
        if not name:
            raise ConfigurationError("name", name, "must not be empty", "name what the lock protects")
        self.fence = 0
        self.lost = False
        self._client = client
        self._home = home
        self._ttl = ttl
        self._keys = (f"lock:{{{name}}}", f"lock:{{{name}}}:fence")
        self._token = ""
        self._asked = 0.0  # when the answer that it is ours was asked for: the ttl may have begun then
        self._holder: asyncio.Task[Any] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Wait for the lock.

        Raises:
            NotSentError: the server cannot be reached.
            MaybeExecutedError: no answer came, also when asked again; the lock may be held until its ttl ends.
        """
        if self._holder is not None:
            raise RuntimeError("this lock object is in use; make one per block")
        self.lost = False
        self._token = secrets.token_hex(16)
        self.fence = await self._acquire() or await self._wait()
        self._holder = asyncio.current_task()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, *_rest: object) -> None:
        """Release the lock if it is still ours."""
        holder, self._holder = self._holder, None
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if not self.lost:
            await self._release()
            return
        if kind is asyncio.CancelledError and holder is not None:
            holder.uncancel()
        if kind is None or kind is asyncio.CancelledError:
            raise LockLostError("the lock was lost while it was held") from error

    async def _wait(self) -> int:
        """Return the fence, once the lock was free."""
        from isp_perf.redis._released import waiting_for

        key, settings = self._keys[0], self._client.states.settings
        async with waiting_for(key, await self._home(key), protocol=settings.protocol) as waiter:
            while True:
                waiter.look()
                if fence := await self._acquire():
                    return fence
                await waiter.pause()

    async def _release(self) -> None:
        """Remove the lock if it is still ours: by one command where the server has it, else by a script."""
        if await self._client.supports("DELIFEQ"):
            await self._client.ask("DELIFEQ", self._keys[0], self._token)
        else:
            await self._run(_RELEASE, self._keys[:1], self._token)

    async def _acquire(self) -> int:
        ttl = max(1, round(self._ttl * 1000))
        self._asked = asyncio.get_running_loop().time()
        try:
            return int(await self._run(_ACQUIRE, self._keys, self._token, ttl))
        except MaybeExecutedError:
            return int(await self._run(_ACQUIRE, self._keys, self._token, ttl))

    async def _keep(self) -> None:
        """Extend the lock; when that fails for the whole ttl, or it is not ours any more, tell the holder."""
        loop = asyncio.get_running_loop()
        safe_until = self._asked + self._ttl
        while loop.time() < safe_until:
            await asyncio.sleep(min(self._ttl / 3, max(0.0, safe_until - loop.time())))
            asked = loop.time()
            try:
                held = await self._run(_EXTEND, self._keys[:1], self._token, max(1, round(self._ttl * 1000)))
            except RemoteError:
                continue
            if not held:
                break
            safe_until = asked + self._ttl
        self.lost = True
        if self._holder is not None:
            self._holder.cancel("the lock was lost")

    async def _run(self, script: str, keys: tuple[str, ...], *arguments: Any) -> Any:
        return await self._client.ask("EVAL", script, len(keys), *keys, *arguments)
