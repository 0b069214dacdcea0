"""What the pool holds for each event loop: its lanes and redis-py's pool of dedicated connections.

A loop that ends takes its lanes with it: an async generator, which ``asyncio.run`` closes before the loop, ends them.
After a fork the child forgets the lanes without touching the parent's sockets.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any
from weakref import WeakKeyDictionary

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._core.learnt import LearntSizes
from isp_perf.errors import RejectedError, RemoteError
from isp_perf.redis._config import RedisSettings, RetryPolicy, Target
from isp_perf.redis._connect import async_pool, close_async, describe, sockets
from isp_perf.redis._errors import (
    UNEXECUTED,
    LoginNotSentError,
    LostMaybeExecutedError,
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
    vetoed,
)
from isp_perf.redis._lane import Hooks, Lane
from isp_perf.redis._link import Link
from isp_perf.redis._stats import LaneStats
from isp_perf.typing import Guard

__all__ = ["LoopState", "States"]


def decoding(pool: Any) -> Any:
    """Return the pool, whose connections from now on hand out text instead of bytes."""
    pool.connection_kwargs["decode_responses"] = True
    return pool


class LoopState:
    """The lanes of one event loop.

    ``thread`` and ``running`` are the cheap way to know on the hot path that the running loop is this one:
    ``asyncio.get_running_loop`` asks the kernel for the process id on CPython 3.11, which costs more than packing a
    command. A loop that ran in this thread and is running now is the running loop; after a fork the lanes are gone.
    """

    bulk: Lane
    decoding_pool: Any
    fast: Lane
    loop: asyncio.AbstractEventLoop
    pool: Any
    running: Callable[[], bool]
    thread: int

    def __init__(
        self, settings: RedisSettings, target: Target, stats: dict[str, LaneStats], *, guard: Guard | None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.running = self.loop.is_running
        self.thread = get_ident()
        self.pool = async_pool(settings, target)
        self.decoding_pool = decoding(async_pool(settings, target))
        self._guard = guard
        node = describe(target)
        self.fast = Lane(node, self._open, settings=settings, stats=stats["fast"], guard=guard)
        self.bulk = Lane(node, self._open, settings=settings, stats=stats["bulk"], guard=guard)
        self._node, self._settings, self._stats = node, settings, stats
        self._own: list[tuple[str, Lane]] = []
        self._watcher = self._close_with_loop()

    def here(self) -> Link | None:
        """Return the fast link, if there is one and the running loop is this one."""
        return self.fast.link if self.thread == get_ident() and self.running() else None

    def refuse(self, name: str) -> None:
        """Raise what a command means while the server is away, if that is known and the running loop is this one.

        Raises:
            NotSentError: the fast lane is down.
        """
        if self.fast.down is not None and self.thread == get_ident() and self.running():
            raise self.fast.down_error(name)

    async def watch(self) -> None:
        """Have the lanes closed when the loop closes its async generators."""
        await anext(self._watcher)

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()
            await close_async(self.pool)
            await close_async(self.decoding_pool)

    async def _open(self) -> Any:
        connection = self.pool.make_connection()
        connection.socket_connect_timeout = None  # the lane's patience bounds it: redis-py counts our loop's delays too
        try:
            await connection.connect()
        except BaseException:  # the time was over: nothing half-open may stay behind
            await connection.disconnect(nowait=True)
            raise
        return connection

    def open_lane(self, purpose: str, hooks: Hooks, *, retry: RetryPolicy | None = None) -> Lane:
        """Return a new lane of its own to the same server; it ends with the loop, or by ``close_lane``.

        Args:
            purpose: the name its counters have in ``stats()``; lanes of one purpose share them.
            hooks: its handshake, and who hears of pushes, new links and lost ones.
            retry: when it connects again; default: as the pool.
        """
        stats = self._stats.setdefault(purpose, LaneStats())
        settings = self._settings if retry is None else replace(self._settings, retry=retry)
        lane = Lane(self._node, self._open, settings=settings, stats=stats, hooks=hooks, guard=self._guard)
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
        guard: may veto what is sent, and hears how it ended.
    """

    learnt: LearntSizes
    stats: dict[str, LaneStats]

    def __init__(self, settings: RedisSettings, target: Target, *, guard: Guard | None = None) -> None:
        self.settings = settings
        self.target = target
        self.guard = guard
        self.learnt = LearntSizes()
        self.stats = {name: LaneStats() for name in ("fast", "bulk", "dedicated", "blocking")}
        self._templates = (async_pool(settings, target), decoding(async_pool(settings, target)))
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopState] = WeakKeyDictionary()
        self._forgotten: list[Any] = []  # kept, so that nothing of the parent is closed by being freed

    async def current(self) -> LoopState:
        """Return the state of the running loop, new on first use."""
        loop = asyncio.get_running_loop()
        state = self._by_loop.get(loop)
        if state is None:
            self._drop_closed()
            state = self._by_loop[loop] = LoopState(self.settings, self.target, self.stats, guard=self.guard)
            await state.watch()
        state.thread = get_ident()
        return state

    def present(self) -> LoopState | None:
        """Return the state of the running loop if there is one."""
        try:
            return self._by_loop.get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    def pool(self, *, decode: bool = False) -> Any:
        """Return redis-py's pool for the running loop, or one that never connects where no loop runs."""
        state = self.present()
        if state is None:
            return self._templates[decode]
        return state.decoding_pool if decode else state.pool

    def links(self) -> list[Link]:
        """Return the links that are up, over all open event loops."""
        return [lane.link for state in self._open_states() for lane in state.lanes if lane.link is not None]

    def sockets(self, blocking: Iterable[Any]) -> tuple[int, int, list[str]]:
        """Return the open sockets, how many of them would take a command now, and the names of lanes that are down.

        Args:
            blocking: the blocking clients.
        """
        links = self.links()
        counts = [(len(links), sum(not link.busy for link in links))]
        counts += [sockets(pool) for state in self._open_states() for pool in (state.pool, state.decoding_pool)]
        for client in blocking:
            counts += [sockets(client.connection_pool), client.combiner.sockets()]
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
        for state in self._by_loop.values():
            self._forgotten += [lane.forget() for lane in state.lanes]
            self._forgotten.append(state)
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
        connection, state = await self._lend(name)
        try:
            self.stats["dedicated"].commands += 1
            async with self.translated(name):
                yield connection
        finally:
            await asyncio.shield(state.pool.release(connection))

    async def _lend(self, name: str) -> tuple[Any, LoopState]:
        state = await self.current()
        node, stats = describe(self.target), self.stats["dedicated"]
        try:
            if self.guard is not None:
                self.guard.before()
            async with asyncio.timeout(self.settings.timeout):
                return await state.pool.get_connection(), state
        except RejectedError as veto:
            raise vetoed(f"{name} on {node}: not sent, rejected by the guard", veto) from veto
        except TimeoutError:
            raise TimedOutNotSentError(f"{name} on {node}: not sent, no connection became free in time") from None
        except AuthenticationError as error:
            raise LoginNotSentError(f"{name} on {node}: not sent, the server refuses user or password") from error
        except (DriverConnectionError, DriverTimeoutError, OSError) as error:
            stats.failed_connects += 1
            self._blame(error)
            raise LostNotSentError(f"{name} on {node}: not sent, the server cannot be reached") from error

    def _blame(self, error: BaseException) -> None:
        if self.guard is not None:
            self.guard.failure(error)

    @asynccontextmanager
    async def translated(self, name: str) -> AsyncGenerator[None, None]:
        """Say by type what a failure after sending on a dedicated connection means."""
        node = describe(self.target)
        try:
            yield
            if self.guard is not None:
                self.guard.success()
        except (AuthenticationError, RemoteError, *UNEXECUTED):
            raise
        except (DriverTimeoutError, TimeoutError) as error:
            self.stats["dedicated"].timeouts_server += 1
            self._blame(error)
            raise TimedOutMaybeExecutedError(f"{name} on {node}: sent, no answer in time") from error
        except (DriverConnectionError, OSError) as error:
            self._blame(error)
            raise LostMaybeExecutedError(f"{name} on {node}: sent, then the connection was lost") from error
