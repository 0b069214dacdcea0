"""What the pool holds for each event loop: its lanes and redis-py's pool of dedicated connections.

A loop that ends takes its lanes with it: an async generator, which ``asyncio.run`` closes before the loop, ends them.
After a fork the child forgets the lanes without touching the parent's sockets.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf.errors import RemoteError
from isp_perf.redis._config import RedisSettings, Target
from isp_perf.redis._connect import async_pool, close_async, describe, sockets
from isp_perf.redis._errors import (
    UNEXECUTED,
    LoginNotSentError,
    LostMaybeExecutedError,
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
)
from isp_perf.redis._lane import Hooks, Lane
from isp_perf.redis._link import Link
from isp_perf.redis._stats import LaneStats

__all__ = ["LoopState", "States"]


class LoopState:
    """The lanes of one event loop."""

    bulk: Lane
    fast: Lane
    loop: asyncio.AbstractEventLoop
    pool: Any

    def __init__(self, settings: RedisSettings, target: Target, stats: dict[str, LaneStats]) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = async_pool(settings, target)
        node = describe(target)
        self.fast = Lane(node, self._open, settings=settings, stats=stats["fast"])
        self.bulk = Lane(node, self._open, settings=settings, stats=stats["bulk"])
        self._node, self._settings, self._stats = node, settings, stats
        self._own: list[tuple[str, Lane]] = []
        self._watcher = self._close_with_loop()

    async def watch(self) -> None:
        """Have the lanes closed when the loop closes its async generators."""
        await anext(self._watcher)

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()
            await close_async(self.pool)

    async def _open(self) -> Any:
        connection = self.pool.make_connection()
        try:
            await connection.connect()
        except BaseException:  # the time was over: nothing half-open may stay behind
            await connection.disconnect(nowait=True)
            raise
        return connection

    def open_lane(self, purpose: str, hooks: Hooks) -> Lane:
        """Return a new lane of its own to the same server; it ends with the loop, or by ``close_lane``.

        Args:
            purpose: the name its counters have in ``stats()``; lanes of one purpose share them.
            hooks: its handshake, and who hears of pushes, new links and lost ones.
        """
        stats = self._stats.setdefault(purpose, LaneStats())
        lane = Lane(self._node, self._open, settings=self._settings, stats=stats, hooks=hooks)
        self._own.append((purpose, lane))
        return lane

    def close_lane(self, lane: Lane) -> None:
        """End a lane that ``open_lane`` made."""
        self._own = [item for item in self._own if item[1] is not lane]
        lane.close()

    def by_name(self) -> list[tuple[str, Lane]]:
        """Return every lane of this loop, by purpose."""
        return [("fast", self.fast), ("bulk", self.bulk), *self._own]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Every lane of this loop."""
        return tuple(lane for _, lane in self.by_name())

    def close(self) -> None:
        """End the links of this loop."""
        for lane in self.lanes:
            lane.close()

    async def aclose(self) -> None:
        """End links and dedicated connections."""
        await self._watcher.aclose()


class States:
    """The pool's states by event loop.

    Args:
        settings: the pool's settings.
        target: where the server is.
    """

    stats: dict[str, LaneStats]
    template: Any

    def __init__(self, settings: RedisSettings, target: Target) -> None:
        self.settings = settings
        self.target = target
        self.stats = {name: LaneStats() for name in ("fast", "bulk", "dedicated", "blocking")}
        self.template = async_pool(settings, target)
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopState] = WeakKeyDictionary()
        self._forgotten: list[LoopState] = []

    async def current(self) -> LoopState:
        """Return the state of the running loop, new on first use."""
        loop = asyncio.get_running_loop()
        state = self._by_loop.get(loop)
        if state is None:
            self._drop_closed()
            state = self._by_loop[loop] = LoopState(self.settings, self.target, self.stats)
            await state.watch()
        return state

    def present(self) -> LoopState | None:
        """Return the state of the running loop if there is one."""
        try:
            return self._by_loop.get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    def pool(self) -> Any:
        """Return redis-py's pool for the running loop, or one that never connects where no loop runs."""
        state = self.present()
        return self.template if state is None else state.pool

    def links(self) -> list[Link]:
        """Return the links that are up, over all open event loops."""
        return [lane.link for state in self._open_states() for lane in state.lanes if lane.link is not None]

    def sockets(self, blocking: Any) -> tuple[int, int, list[str]]:
        """Return the open sockets, how many of them would take a command now, and the names of lanes that are down.

        Args:
            blocking: the blocking client, or ``None``.
        """
        links = self.links()
        counts = [(len(links), sum(not link.busy for link in links))]
        counts += [sockets(state.pool) for state in self._open_states()]
        if blocking is not None:
            counts += [sockets(blocking.connection_pool), blocking.combiner.sockets()]
        opened, idle = map(sum, zip(*counts, strict=True))
        return opened, idle, self._down()

    def _down(self) -> list[str]:
        lanes = [item for state in self._open_states() for item in state.by_name()]
        return [name for name, lane in lanes if lane.down is not None]

    def _open_states(self) -> list[LoopState]:
        return [state for state in self._by_loop.values() if not state.loop.is_closed()]

    def _drop_closed(self) -> None:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            self._by_loop.pop(loop).close()

    def forget(self) -> None:
        """In a forked child: drop every state without touching the sockets, which are the parent's."""
        self._forgotten.extend(self._by_loop.values())
        self._by_loop = WeakKeyDictionary()

    async def aclose(self) -> None:
        """Close what belongs to the running loop, and the links of loops that are gone."""
        self._drop_closed()
        state = self._by_loop.pop(asyncio.get_running_loop(), None)
        if state is not None:
            await state.aclose()

    # -- the dedicated lane

    @asynccontextmanager
    async def dedicated(self, name: str) -> AsyncGenerator[Any, None]:
        """Lend a connection for one command that cannot share one, and say by type what a failure means."""
        state = await self.current()
        node, stats = describe(self.target), self.stats["dedicated"]
        try:
            async with asyncio.timeout(self.settings.timeout):
                connection = await state.pool.get_connection()
        except TimeoutError:
            raise TimedOutNotSentError(f"{name} on {node}: not sent, no connection became free in time") from None
        except AuthenticationError as error:
            raise LoginNotSentError(f"{name} on {node}: not sent, the server refuses user or password") from error
        except (DriverConnectionError, DriverTimeoutError, OSError) as error:
            stats.failed_connects += 1
            raise LostNotSentError(f"{name} on {node}: not sent, the server cannot be reached") from error
        try:
            stats.commands += 1
            async with self.translated(name):
                yield connection
        finally:
            await asyncio.shield(state.pool.release(connection))

    @asynccontextmanager
    async def translated(self, name: str) -> AsyncGenerator[None, None]:
        """Say by type what a failure after sending on a dedicated connection means."""
        node = describe(self.target)
        try:
            yield
        except (AuthenticationError, RemoteError, *UNEXECUTED):
            raise
        except (DriverTimeoutError, TimeoutError) as error:
            self.stats["dedicated"].timeouts_server += 1
            raise TimedOutMaybeExecutedError(f"{name} on {node}: sent, no answer in time") from error
        except (DriverConnectionError, OSError) as error:
            raise LostMaybeExecutedError(f"{name} on {node}: sent, then the connection was lost") from error
