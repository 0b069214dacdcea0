"""The drop-in asyncio client: redis-py's commands, names and types over shared links.

Only the way of the bytes is ours. Command methods, response callbacks, pub/sub, WATCH and the connections themselves
are redis-py's.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ResponseError

from isp_perf._core.learnt import family_of, size_of
from isp_perf._core.routing import Lane as Kind
from isp_perf._core.routing import Route, blocks_for, plan, route
from isp_perf.errors import ConfigurationError
from isp_perf.redis._errors import UNEXECUTED, settled
from isp_perf.redis._lane import RETRYABLE, Lane
from isp_perf.redis._link import LARGE_BYTES
from isp_perf.redis._pack import pack, pack_all, pack_get
from isp_perf.redis._sender import Staged
from isp_perf.redis._staged import has_error
from isp_perf.redis._state import LoopState, States

__all__ = ["PipelinedRedis", "Way", "Ways", "decoded", "or_empty", "packed", "refused"]

_FAILURES = (*RETRYABLE, ResponseError)
_NAME = itemgetter(0)
_PART_ARGUMENTS = 1024
_MAX_NAMES = 4096  # distinct command names remembered; a program that invents names must not grow without bound


def _pack_words(words: tuple[str, ...], args: tuple[Any, ...]) -> bytes:
    """Return the bytes of a command whose name redis-py passes as one string of several words."""
    return pack((*words, *args[1:]))


class Way:
    """What is known from a command's name: its route, its words, and redis-py's callback for its reply."""

    __slots__ = ("bulk", "callback", "fast", "name", "pack", "plain", "read_only", "route")

    def __init__(self, found: Route, callback: Callable[..., Any] | None, *, decode: bool) -> None:
        self.route = found
        self.name = found.words[0]
        self.read_only = found.read_only
        self.fast = found.lane is Kind.FAST and not found.inspect
        self.bulk = found.lane is Kind.BULK
        self.pack = pack if len(found.words) == 1 else partial(_pack_words, found.words)
        self.callback = callback
        self.plain = callback is None and not decode  # the reply is handed out as it came


class Ways(dict[Any, Way]):
    """Ways by command name, filled on first use."""

    def __init__(self, callbacks: Any, *, decode: bool = False) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._decode = decode

    def __missing__(self, name: Any) -> Way:
        way = Way(plan(name), self._callbacks.get(name) if isinstance(name, str) else None, decode=self._decode)
        if len(self) >= _MAX_NAMES:
            self.clear()
        self[name] = way
        return way

    def of(self, commands: Sequence[tuple[Any, ...]]) -> dict[Any, Way]:
        """Return the ways of a batch by name, each looked up once."""
        return {name: self[name] for name in set(map(_NAME, commands))}

    def are_plain(self, commands: Sequence[Staged], replies: list[Any]) -> bool:
        """Return whether the replies to a batch are handed out as they came, and none is an error."""
        return not has_error(replies) and all(self[name].plain for name in {args[0] for args, _ in commands})

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on a connection that others use at the same time.

        Raises:
            ConfigurationError: it may run on no pooled connection at all.
        """
        found = self[name].route
        if found.lane is Kind.REFUSED:
            raise refused(found)
        return found.lane is not Kind.DEDICATED and not found.inspect


def decoded(reply: Any) -> Any:
    """Return a reply with its bytes as text, at every depth; errors stay as they are.

    Raises:
        UnicodeDecodeError: a value that is no UTF-8, as in redis-py.
    """
    shape = _SHAPES.get(type(reply))
    return reply if shape is None else shape(reply)


_SHAPES: dict[Any, Callable[[Any], Any]] = {
    bytes: bytes.decode,
    dict: lambda reply: {decoded(name): decoded(value) for name, value in reply.items()},
    list: lambda reply: [decoded(part) for part in reply],
    set: lambda reply: {decoded(part) for part in reply},
}


def _parts(commands: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut commands into parts of about equal length, a long command counting for many short ones."""
    source = iter(commands)
    for first in source:
        yield [first, *islice(source, max(0, _PART_ARGUMENTS // len(first) - 1))]


def packed(ways: dict[Any, Way], commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Return the bytes of every command; those of one-word commands are made without a step of Python for each."""
    if all(way.pack is pack for way in ways.values()):
        return pack_all(commands)
    return [ways[args[0]].pack(args) for args in commands]


def or_empty(error: Exception, options: dict[str, Any]) -> Any:
    """Return what redis-py's command method wants in place of an error, or raise the error."""
    if EMPTY_RESPONSE in options and isinstance(error, ResponseError):
        return options[EMPTY_RESPONSE]
    raise error


class _NoState:
    """Stands for the lanes before the first use: no event loop is its own."""

    fast: Lane

    def here(self) -> None:
        """Return no link."""

    def refuse(self, name: str) -> None:
        """Refuse nothing."""


_NO_STATE = _NoState()


class PipelinedRedis(Redis):
    """``redis.asyncio.Redis`` whose commands share links; made by ``RedisPool.client()``.

    Every command of one event-loop tick goes out in one write. Commands that block or that change a connection's
    state take a connection of their own. Failures are ``NotSentError`` and ``MaybeExecutedError``, which are also
    redis-py's ``ConnectionError`` or ``TimeoutError``. Closing the client closes nothing: the pool owns the links.

    Args:
        states: the pool's states.
        decode: hand out text instead of bytes, as redis-py does with ``decode_responses``.
    """

    def __init__(self, states: States, *, decode: bool = False) -> None:
        self.states = states
        self.decode = decode
        self._state: LoopState | _NoState = _NO_STATE
        self._learnt = states.learnt
        cast("Any", Redis).__init__(self, connection_pool=states.pool(decode=decode))
        self._ways = Ways(self.response_callbacks, decode=decode)
        self._plain_get = self._ways["GET"].plain
        self._known: dict[str, tuple[int, bool]] = {}

    @property
    def connection_pool(self) -> Any:
        """redis-py's pool of dedicated connections for the running event loop."""
        return self.states.pool(decode=self.decode)

    @connection_pool.setter
    def connection_pool(self, pool: Any) -> None:
        """Ignore redis-py's assignment: the pool depends on the event loop."""

    def set_response_callback(self, command: str, callback: Any) -> None:
        """Set a callback for a command's reply, as in redis-py."""
        super().set_response_callback(command, callback)
        self._ways.clear()
        self._plain_get = self._ways["GET"].plain

    # -- commands

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return its parsed reply.

        Beside redis-py's options, ``idempotent=True`` says that executing the command twice does no harm: it is then
        repeated like one that only reads.

        Raises:
            NotSentError: surely not executed; repeating is safe.
            MaybeExecutedError: sent, and no answer came; never for a command that only reads and could be repeated.
            PoolBusyError: more commands in flight than allowed, with ``overflow="error"``.
            ConfigurationError: a command that would break a shared connection (``SELECT``, ``CLIENT REPLY`` ...).
            redis.exceptions.RedisError: the server's own error, or an argument that cannot be sent (``DataError``).
        """
        way = self._ways[args[0]]
        if not way.fast:
            return await self._execute_slowly(way, args, options)
        if (link := self._state.here()) is None:
            self._state.refuse(way.name)
            return await self._execute_slowly(way, args, options)
        if self._learnt.families and self._is_large(way, args):
            return await self._execute_slowly(way, args, options)
        data = way.pack(args)
        try:
            reply = await link.send(data)
        except _FAILURES as error:
            reply = await self._recover(error, data, way, options=options)
        if link.large:
            self._weigh(way, args, reply)
        return reply if way.plain else await self._shape(way.callback, reply, options)

    async def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``: redis-py's ``get`` without its detours, for it is the hot one."""
        link = self._state.here()
        if link is None:
            self._state.refuse("GET")
        if link is None or self._learnt.families or not self._plain_get:
            return await self.execute_command("GET", name, keys=[name])
        try:
            reply = await link.send(pack_get(name))
        except RETRYABLE as error:
            return await self._recover(error, pack_get(name), self._ways["GET"], options={})
        if link.large:
            self._weigh(self._ways["GET"], ("GET", name), reply)
        return reply

    async def _shape(self, callback: Callable[..., Any] | None, reply: Any, options: dict[str, Any]) -> Any:
        if self.decode and NEVER_DECODE not in options:
            reply = decoded(reply)
        if callback is None:
            return reply
        for name in (EMPTY_RESPONSE, NEVER_DECODE, "keys", "idempotent"):
            options.pop(name, None)
        shaped = callback(reply, **options)
        return await shaped if inspect.isawaitable(shaped) else shaped

    async def _recover(self, error: Exception, data: bytes, way: Way, *, options: dict[str, Any]) -> Any:
        """Return the reply to a command that failed, repeated where that is safe, or raise what the failure means."""
        if not isinstance(error, RETRYABLE):
            return or_empty(error, options)
        lane = self._state.fast
        since = getattr(error, "since", lane.loop.time())
        deadline = since + self.states.settings.timeout
        harmless = way.read_only or bool(options.get("idempotent"))
        return await lane.recover(error, data, way.name, read_only=harmless, deadline=deadline)

    def _is_large(self, way: Way, args: tuple[Any, ...]) -> bool:
        """Return whether large replies were seen for this command and this kind of key."""
        return family_of(way.name, args[1] if len(args) > 1 else None) in self._learnt.families

    def _weigh(self, way: Way, args: tuple[Any, ...], reply: Any) -> None:
        """Learn from the size of a reply; asked only when one was large, or is expected to be."""
        family = family_of(way.name, args[1] if len(args) > 1 else None)
        self._learnt.note(family, large=size_of(reply) >= LARGE_BYTES)

    async def _execute_slowly(self, way: Way, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        state = self._state = await self.states.current()
        if way.fast and state.fast.down is not None:
            raise state.fast.down_error(way.name)
        lane = self._lane_of(way, args)
        learnt = lane is Kind.BULK and not way.bulk
        try:
            reply = await self._execute_on(lane, way.pack(args), way, args=args, options=options)
        except ResponseError as error:
            reply = or_empty(error, options)
        if learnt:
            self._weigh(way, args, reply)
        return reply if way.plain else await self._shape(way.callback, reply, options)

    def _lane_of(self, way: Way, args: tuple[Any, ...]) -> Kind:
        """Return the lane of one command: by its name, its arguments, and what was learnt about its replies."""
        lane = route(way.route, args) if way.route.inspect else way.route.lane
        if lane is Kind.REFUSED:
            raise refused(way.route)
        return Kind.BULK if lane is Kind.FAST and self._is_large(way, args) else lane

    async def _execute_on(
        self, lane: Kind, data: bytes, way: Way, *, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        if lane is Kind.DEDICATED:
            return await self._execute_alone(data, way.route, args)
        state = await self.states.current()
        shared = state.bulk if lane is Kind.BULK else state.fast
        deadline = state.loop.time() + self.states.settings.timeout
        harmless = way.read_only or bool(options.get("idempotent"))
        return await shared.call(data, way.name, read_only=harmless, deadline=deadline)

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
        return await self.shape_all(commands, await self.run_raw([args for args, _ in commands]))

    async def run_raw(
        self, commands: Sequence[tuple[Any, ...]], *, within: float | None = None, idempotent: bool = False
    ) -> list[Any]:
        """Send commands as one batch; the answer holds the server's own replies, an exception for each failure."""
        ways = self._ways.of(commands)

        def describe(position: int) -> tuple[str, bool]:
            way = ways[commands[position][0]]
            return way.name, way.read_only or idempotent

        data = packed(ways, commands)
        state = await self.states.current()
        lane = state.bulk if self._is_bulky(ways, commands) else state.fast
        deadline = state.loop.time() + (self.states.settings.timeout if within is None else within)
        seen = lane.stats.large_replies
        replies = await lane.call_many(data, describe, deadline=deadline)
        if lane.stats.large_replies != seen or lane is state.bulk:
            any(map(self._weigh, (ways[args[0]] for args in commands), commands, replies))
        return replies

    def _is_bulky(self, ways: dict[Any, Way], commands: Sequence[tuple[Any, ...]]) -> bool:
        """Return whether one command of a batch has its place on the bulk lane, by name or as learnt."""
        if any(way.bulk for way in ways.values()):
            return True
        return bool(self._learnt.families) and any(self._is_large(ways[args[0]], args) for args in commands)

    async def supports(self, name: str) -> bool:
        """Return whether the server has a command; asked once per link."""
        connects = self.states.stats["fast"].connects
        if self._known.get(name, (-1, False))[0] != connects:
            (answer,) = await self.run_raw([("COMMAND INFO", name)])
            if isinstance(answer, Exception):
                return False
            self._known[name] = (self.states.stats["fast"].connects, bool(answer and answer[0]))
        return self._known[name][1]

    async def ask(self, *args: Any, **options: Any) -> Any:
        """Execute a command; a server that refuses to work just now counts as one that was not reached."""
        try:
            return await self.execute_command(*args, **options)
        except UNEXECUTED as error:
            raise settled(error) from error

    async def fetch(self, key: str | bytes) -> Any:
        """Return the value of a key; failures as with ``ask``."""
        try:
            return await self.get(key)
        except UNEXECUTED as error:
            raise settled(error) from error

    async def ask_many(
        self, commands: Iterable[tuple[Any, ...]], *, within: float | None = None, idempotent: bool = False
    ) -> list[Any]:
        """Send a batch as ``run_raw``; a server that refuses to work just now counts as one that was not reached.

        A list is packed before anything is sent. Any other iterable is sent while it is drawn, so that the server
        starts on the first commands while the next are made.
        """
        if isinstance(commands, list):
            replies = await self.run_raw(commands, within=within, idempotent=idempotent)
        else:
            replies = await self._run_parts(commands, within=within, idempotent=idempotent)
        return [settled(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _run_parts(self, commands: Iterable[tuple[Any, ...]], **options: Any) -> list[Any]:
        sent: list[asyncio.Task[list[Any]]] = []
        try:
            for part in _parts(commands):
                sent.append(asyncio.create_task(self.run_raw(part, **options)))
                await asyncio.sleep(0)  # it is written now
            return list(chain.from_iterable([await task for task in sent]))
        finally:
            for task in sent:
                task.cancel()

    async def shape_all(self, commands: Sequence[Staged], replies: list[Any]) -> list[Any]:
        """Put raw replies into redis-py's shape, in place; exceptions stay as they are."""
        if not self._ways.are_plain(commands, replies):
            for i, (args, options) in enumerate(commands):
                replies[i] = await self._shape_one(self._ways[args[0]], replies[i], options)
        return replies

    async def _shape_one(self, way: Way, reply: Any, options: dict[str, Any]) -> Any:
        if isinstance(reply, Exception):
            return options[EMPTY_RESPONSE] if EMPTY_RESPONSE in options and isinstance(reply, ResponseError) else reply
        return reply if way.plain else await self._shape(way.callback, reply, options)

    async def run_unit(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands that stand or fall together in one piece and return their raw replies."""
        state = await self.states.current()
        deadline = state.loop.time() + self.states.settings.timeout
        data = [self._ways[args[0]].pack(args) for args in commands]
        return await state.fast.call_unit(data, str(commands[0][0]), deadline=deadline)

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on a shared link; ``ConfigurationError`` if on none at all."""
        return self._ways.shareable(name)

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
