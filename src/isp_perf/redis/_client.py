"""The drop-in asyncio client: redis-py's commands, names and types over shared links.

Only the way of the bytes is ours. Command methods, response callbacks, pub/sub, WATCH and the connections themselves
are redis-py's.
"""

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ResponseError

from isp_perf._core.routing import Lane as Kind
from isp_perf._core.routing import Route, blocks_for, plan, route
from isp_perf.errors import ConfigurationError
from isp_perf.redis._errors import UNEXECUTED, settled
from isp_perf.redis._lane import RETRYABLE, Lane
from isp_perf.redis._pack import pack
from isp_perf.redis._sender import Staged
from isp_perf.redis._state import LoopState, States

__all__ = ["PipelinedRedis", "Way", "Ways", "or_empty", "refused"]

_MAX_NAMES = 4096  # distinct command names remembered; a program that invents names must not grow without bound


class Way:
    """What is known from a command's name: its route, its words, and redis-py's callback for its reply."""

    __slots__ = ("bulk", "callback", "fast", "name", "read_only", "route", "words")

    def __init__(self, found: Route, callback: Callable[..., Any] | None) -> None:
        self.route = found
        self.name = found.words[0]
        self.read_only = found.read_only
        self.fast = found.lane is Kind.FAST and not found.inspect
        self.bulk = found.lane is Kind.BULK
        self.words = found.words if len(found.words) > 1 else None  # None: one word, nothing to split
        self.callback = callback


class Ways(dict[Any, Way]):
    """Ways by command name, filled on first use."""

    def __init__(self, callbacks: Any) -> None:
        super().__init__()
        self._callbacks = callbacks

    def __missing__(self, name: Any) -> Way:
        way = Way(plan(name), self._callbacks.get(name) if isinstance(name, str) else None)
        if len(self) >= _MAX_NAMES:
            self.clear()
        self[name] = way
        return way


def or_empty(error: Exception, options: dict[str, Any]) -> Any:
    """Return what redis-py's command method wants in place of an error, or raise the error."""
    if EMPTY_RESPONSE in options and isinstance(error, ResponseError):
        return options[EMPTY_RESPONSE]
    raise error


class _NoState:
    """Stands for the lanes before the first use: no event loop is its own."""

    loop = None
    fast: Lane


_NO_STATE = _NoState()


class PipelinedRedis(Redis):
    """``redis.asyncio.Redis`` whose commands share links; made by ``RedisPool.client()``.

    Every command of one event-loop tick goes out in one write. Commands that block or that change a connection's
    state take a connection of their own. Failures are ``NotSentError`` and ``MaybeExecutedError``, which are also
    redis-py's ``ConnectionError`` or ``TimeoutError``. Closing the client closes nothing: the pool owns the links.
    """

    def __init__(self, states: States) -> None:
        self.states = states
        self._state: LoopState | _NoState = _NO_STATE
        cast("Any", Redis).__init__(self, connection_pool=states.template)
        self._ways = Ways(self.response_callbacks)
        self._known: dict[str, tuple[int, bool]] = {}

    @property
    def connection_pool(self) -> Any:
        """redis-py's pool of dedicated connections for the running event loop."""
        return self.states.pool()

    @connection_pool.setter
    def connection_pool(self, pool: Any) -> None:
        """Ignore redis-py's assignment: the pool depends on the event loop."""

    def set_response_callback(self, command: str, callback: Any) -> None:
        """Set a callback for a command's reply, as in redis-py."""
        super().set_response_callback(command, callback)
        self._ways.clear()

    # -- commands

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return its parsed reply.

        Raises:
            NotSentError: surely not executed; repeating is safe.
            MaybeExecutedError: sent, and no answer came; never for a command that only reads and could be repeated.
            PoolBusyError: more commands in flight than allowed, with ``overflow="error"``.
            ConfigurationError: a command that would break a shared connection (``SELECT``, ``CLIENT REPLY`` ...).
            redis.exceptions.RedisError: the server's own error, or an argument that cannot be sent (``DataError``).
        """
        way = self._ways[args[0]]
        state = self._state
        if not way.fast or state.loop is not get_running_loop() or (link := state.fast.link) is None:
            return await self._execute_slowly(way, args, options)
        data = pack(args if way.words is None else (*way.words, *args[1:]))
        try:
            reply = await link.send(data)
        except RETRYABLE as error:
            reply = await self._recover(error, state.fast, data, way=way)
        except ResponseError as error:
            return or_empty(error, options)
        return reply if way.callback is None else await self._shape(way.callback, reply, options)

    @staticmethod
    async def _shape(callback: Callable[..., Any], reply: Any, options: dict[str, Any]) -> Any:
        for name in (EMPTY_RESPONSE, NEVER_DECODE, "keys"):
            options.pop(name, None)
        shaped = callback(reply, **options)
        return await shaped if inspect.isawaitable(shaped) else shaped

    async def _recover(self, error: Exception, lane: Lane, data: bytes, *, way: Way) -> Any:
        since = getattr(error, "since", lane.loop.time())
        deadline = since + self.states.settings.timeout
        return await lane.recover(error, data, way.name, read_only=way.read_only, deadline=deadline)

    async def _execute_slowly(self, way: Way, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        found = way.route
        state = self._state = await self.states.current()
        if way.fast and state.fast.down is not None:
            raise state.fast.down_error(way.name)
        lane = route(found, args) if found.inspect else found.lane
        if lane is Kind.REFUSED:
            raise refused(found)
        data = pack((*(way.words or args[:1]), *args[1:]))
        try:
            reply = await self._execute_on(lane, data, way, args=args)
        except ResponseError as error:
            return or_empty(error, options)
        return reply if way.callback is None else await self._shape(way.callback, reply, options)

    async def _execute_on(self, lane: Kind, data: bytes, way: Way, *, args: tuple[Any, ...]) -> Any:
        if lane is Kind.DEDICATED:
            return await self._execute_alone(data, way.route, args)
        state = await self.states.current()
        shared = state.bulk if lane is Kind.BULK else state.fast
        deadline = state.loop.time() + self.states.settings.timeout
        return await shared.call(data, way.name, read_only=way.read_only, deadline=deadline)

    async def _execute_alone(self, data: bytes, found: Route, args: tuple[Any, ...]) -> Any:
        """Run one command on a connection of its own; it is never repeated."""
        name, timeout = found.words[0], self.states.settings.timeout
        blocks = blocks_for(found, args)
        limit = None if blocks is None else blocks + timeout
        async with self.states.dedicated(name) as connection, asyncio.timeout(limit):
            await connection.send_packed_command(data)
            return await connection.read_response()

    async def run(self, commands: Sequence[Staged]) -> list[Any]:
        """Send commands as one batch; the answer holds shaped replies in order, an exception for each failure."""
        replies = await self.run_raw([args for args, _ in commands])
        for i, (args, options) in enumerate(commands):
            replies[i] = await self.shape(args, replies[i], options)
        return replies

    async def run_raw(self, commands: Sequence[tuple[Any, ...]], *, within: float | None = None) -> list[Any]:
        """Send commands as one batch; the answer holds the server's own replies, an exception for each failure."""
        ways = [self._ways[args[0]] for args in commands]
        data = [
            pack(args if way.words is None else (*way.words, *args[1:]))
            for way, args in zip(ways, commands, strict=True)
        ]
        state = await self.states.current()
        lane = state.bulk if any(way.bulk for way in ways) else state.fast
        deadline = state.loop.time() + (self.states.settings.timeout if within is None else within)
        return await lane.call_many(data, lambda i: (ways[i].name, ways[i].read_only), deadline=deadline)

    async def supports(self, name: str) -> bool:
        """Return whether the server has a command; asked once per link."""
        connects = self.states.stats["fast"].connects
        if self._known.get(name, (-1, False))[0] != connects:
            (answer,) = await self.run_raw([("COMMAND INFO", name)])
            if isinstance(answer, Exception):
                return False
            self._known[name] = (self.states.stats["fast"].connects, bool(answer and answer[0]))
        return self._known[name][1]

    async def ask(self, *args: Any) -> Any:
        """Execute a command; a server that refuses to work just now counts as one that was not reached."""
        try:
            return await self.execute_command(*args)
        except UNEXECUTED as error:
            raise settled(error) from error

    async def fetch(self, key: str | bytes) -> Any:
        """Return the value of a key; failures as with ``ask``."""
        return await self.ask("GET", key)

    async def ask_many(self, commands: Sequence[tuple[Any, ...]], *, within: float | None = None) -> list[Any]:
        """Send a batch as ``run_raw``; a server that refuses to work just now counts as one that was not reached."""
        replies = await self.run_raw(commands, within=within)
        return [settled(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def shape(self, args: tuple[Any, ...], reply: Any, options: dict[str, Any]) -> Any:
        """Return a raw reply in redis-py's shape; an exception stays as it is."""
        callback = self._ways[args[0]].callback
        if isinstance(reply, Exception):
            return options[EMPTY_RESPONSE] if EMPTY_RESPONSE in options and isinstance(reply, ResponseError) else reply
        return reply if callback is None else await self._shape(callback, reply, options)

    async def run_unit(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands that stand or fall together in one piece and return their raw replies."""
        state = await self.states.current()
        deadline = state.loop.time() + self.states.settings.timeout
        data = [pack((*(self._ways[args[0]].words or args[:1]), *args[1:])) for args in commands]
        return await state.fast.call_unit(data, str(commands[0][0]), deadline=deadline)

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on a shared link.

        Raises:
            ConfigurationError: it may run on no pooled connection at all.
        """
        found = self._ways[name].route
        if found.lane is Kind.REFUSED:
            raise refused(found)
        return found.lane is not Kind.DEDICATED and not found.inspect

    # -- what redis-py builds from its pool

    def pipeline(self, *args: Any, **options: Any) -> Pipeline:
        """Return a pipeline, with redis-py's arguments; without WATCH it goes over the shared link in one piece."""
        from isp_perf.redis._pipeline import LinkPipeline

        return LinkPipeline(self, *args, **options)

    def client(self) -> Redis:
        """Return redis-py's own client over one dedicated connection, for commands that change its state."""
        return cast("Redis", cast("Any", Redis)(connection_pool=self.connection_pool, single_connection_client=True))

    async def aclose(self, *_args: Any, **_options: Any) -> None:
        """Do nothing: connections belong to the pool, which closes them."""


def refused(found: Route) -> ConfigurationError:
    """Return the error for a command that no pooled connection may run."""
    rule = "would change the state of a shared connection for everybody"
    return ConfigurationError("command", " ".join(found.words), rule, "use pipeline(), pubsub() or another pool")
