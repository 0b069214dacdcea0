"""The blocking client for threads: redis-py's commands, sent together with those of other threads."""

import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from random import SystemRandom
from typing import Any, cast

from redis import Redis
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._core.backoff import full_jitter
from isp_perf._core.routing import Lane as Kind
from isp_perf._core.routing import blocks_for, route
from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis._client import Way, Ways, decoded, or_empty, packed, refused
from isp_perf.redis._combine import Combiner
from isp_perf.redis._connect import blocking_pool, bound, close_blocking, describe
from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._errors import (
    UNEXECUTED,
    LoginNotSentError,
    LostMaybeExecutedError,
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
    is_veto,
    lost_error,
    settled,
)
from isp_perf.redis._pack import pack_get
from isp_perf.redis._sender import Staged
from isp_perf.redis._state import States, decoding
from isp_perf.redis._sync_pipeline import BlockingPipeline

__all__ = ["BlockingRedis"]

_draw = SystemRandom().random
_DRIVER = cast("Any", Redis)  # redis-py leaves most of it without annotations
_LOST = (DriverConnectionError, DriverTimeoutError, OSError)
_REPEATABLE = (NotSentError, MaybeExecutedError, *UNEXECUTED)


class BlockingRedis(Redis):
    """``redis.Redis`` for threads; made by ``RedisPool.sync()``.

    Short commands of concurrent threads share one connection and one write; commands that block, change a
    connection's state or have large replies take one from redis-py's pool.

    Args:
        states: the pool's states.
        decode: hand out text instead of bytes, as redis-py does with ``decode_responses``.
    """

    combiner: Combiner

    def __init__(self, states: States, *, decode: bool = False) -> None:
        self._settings = settings = states.settings
        self._pool: Any = blocking_pool(settings, states.target)
        if decode:
            decoding(self._pool)
        _DRIVER.__init__(self, connection_pool=self._pool)
        self._decode = decode
        self._node = describe(states.target)
        self._stats = stats = states.stats["blocking"]
        self._ways = Ways(self.response_callbacks, decode=decode)
        self._down: Exception | None = None
        self._retry_at = 0.0
        self._failures = 0
        self._known: dict[str, bool] = {}
        self.combiner = Combiner(
            self._open, check_after=settings.health_check_interval, stats=stats, guard=states.guard
        )

    def set_response_callback(self, command: str, callback: Any) -> None:
        """Set a callback for a command's reply, as in redis-py."""
        _DRIVER.set_response_callback(self, command, callback)
        self._ways.clear()

    # -- commands

    def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``: redis-py's ``get`` without its detours, for it is the hot one."""
        way = self._ways["GET"]
        if not way.plain:
            return self.execute_command("GET", name, keys=[name])
        reply = self._repeat([pack_get(name)], way, ("GET", name), shared=True)[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return its parsed reply; options and errors as with the asyncio client."""
        way = self._ways[args[0]]
        data = way.pack(args)
        lane = route(way.route, args) if way.route.inspect else way.route.lane
        if lane is Kind.REFUSED:
            raise refused(way.route)
        harmless = way.read_only or bool(options.pop("idempotent", False))
        reply = self._repeat([data], way, args, shared=lane is Kind.FAST, harmless=harmless)[0]
        if isinstance(reply, Exception):
            return or_empty(reply, options)
        return reply if way.plain else self._shape(way.callback, reply, options)

    def _shape(self, callback: Callable[..., Any] | None, reply: Any, options: dict[str, Any]) -> Any:
        if self._decode and NEVER_DECODE not in options:
            reply = decoded(reply)
        if callback is None:
            return reply
        for name in (EMPTY_RESPONSE, NEVER_DECODE, "keys"):
            options.pop(name, None)
        return callback(reply, **options)

    def ask(self, *args: Any) -> Any:
        """Execute a command; a server that refuses to work just now counts as one that was not reached."""
        try:
            return self.execute_command(*args)
        except UNEXECUTED as error:
            raise settled(error) from error

    def ask_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands as one batch; the answer holds the server's own replies, an exception for each failure."""
        if all(self._ways[args[0]].fast for args in commands):
            return list(map(settled, self.run_raw(commands)))
        return [self._ask_alone(self._ways[args[0]], args) for args in commands]

    def _ask_alone(self, way: Way, args: tuple[Any, ...]) -> Any:
        data = way.pack(args)
        try:
            return self._repeat([data], way, args, shared=way.fast)[0]
        except RedisError as error:
            return settled(error)

    # -- pipelines

    def pipeline(self, *args: Any, **options: Any) -> Any:
        """Return a pipeline, with redis-py's arguments; without WATCH it goes over the shared connection in chunks."""
        return BlockingPipeline(self, *args, **options)

    def run_raw(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands as one batch; the answer holds the server's own replies, an exception for each failure."""
        ways = self._ways.of(commands)
        weakest = min(ways.values(), key=attrgetter("read_only"))  # one write makes the batch a write
        try:
            return self._repeat(packed(ways, commands), weakest, commands[0], shared=True)
        except (NotSentError, MaybeExecutedError, *UNEXECUTED) as error:
            return [error] * len(commands)

    def run_unit(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands that stand or fall together in one piece and return their raw replies."""
        data = [self._ways[args[0]].pack(args) for args in commands]
        return self._repeat(data, self._ways[commands[0][0]], commands[0], shared=True)

    def shape_all(self, commands: Sequence[Staged], replies: list[Any]) -> list[Any]:
        """Put raw replies into redis-py's shape, in place; exceptions stay as they are."""
        if not self._ways.are_plain(commands, replies):
            for i, (args, options) in enumerate(commands):
                replies[i] = self._shape_one(self._ways[args[0]], replies[i], options)
        return replies

    def _shape_one(self, way: Way, reply: Any, options: dict[str, Any]) -> Any:
        if isinstance(reply, Exception):
            return options[EMPTY_RESPONSE] if EMPTY_RESPONSE in options and isinstance(reply, ResponseError) else reply
        return reply if way.plain else self._shape(way.callback, reply, options)

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on the shared connection; ``ConfigurationError`` if on none at all."""
        return self._ways.shareable(name)

    def translated(self, name: str, call: Callable[[], Any]) -> Any:
        """Call something of redis-py's, and say by type what its failure means."""
        try:
            return call()
        except (AuthenticationError, RemoteError, *UNEXECUTED):
            raise
        except _LOST as error:
            raise self._lost(name, error) from error

    def supports(self, name: str) -> bool:
        """Return whether the server has a command; asked once."""
        if name not in self._known:
            (answer,) = self.ask_many([("COMMAND INFO", name)])
            if isinstance(answer, Exception):
                return False
            self._known[name] = bool(answer and answer[0])
        return self._known[name]

    # -- attempts

    def _repeat(
        self, data: list[bytes], way: Way, args: tuple[Any, ...], /, *, shared: bool, harmless: bool | None = None
    ) -> list[Any]:
        """Send commands, and again where that is safe and time is left; ``harmless``: it is safe to run them twice."""
        harmless = way.read_only if harmless is None else harmless
        started = time.monotonic()
        attempt = 0
        while True:
            try:
                replies = (
                    self._share(data, way, started) if shared else [self._alone(data[0], way, args, started=started)]
                )
                if len(replies) != 1 or not isinstance(replies[0], UNEXECUTED):
                    return replies
                raise replies[0]
            except _REPEATABLE as error:
                if not self._again(error, attempt, harmless=harmless, started=started):
                    raise
            attempt += 1

    def _again(self, error: Exception, attempt: int, *, harmless: bool, started: float) -> bool:
        """Return whether to repeat, after the wait that comes before it."""
        left = started + self._settings.timeout - time.monotonic()
        if attempt >= self._settings.retry.attempts or left <= 0 or self._is_final(error, harmless=harmless):
            return False
        self._count_retry(error)
        if attempt:
            retry = self._settings.retry
            time.sleep(min(left, full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw())))
        return True

    def _is_final(self, error: Exception, *, harmless: bool) -> bool:
        """Return whether repeating is unsafe, or of no use."""
        unsafe = isinstance(error, MaybeExecutedError) and not harmless
        return unsafe or isinstance(error, TimeoutError) or self._down is not None or is_veto(error)

    def _count_retry(self, error: Exception) -> None:
        if isinstance(error, NotSentError):
            self._stats.retries_unsent += 1
        elif isinstance(error, MaybeExecutedError):
            self._stats.retries_read += 1
        else:
            self._stats.retries_refused += 1

    def _share(self, data: list[bytes], way: Way, started: float) -> list[Any]:
        """Send over the connection that all threads share."""
        try:
            return self.combiner.execute(data, deadline=started + self._settings.timeout)
        except LinkLostError as lost:
            raise lost_error(way.name, self._node, lost, elapsed=time.monotonic() - started) from lost.cause

    def _alone(self, data: bytes, way: Way, args: tuple[Any, ...], *, started: float) -> Any:
        """Send over a connection of redis-py's pool, for the time the command may take."""
        connection = self._lend(way.name)
        blocks = blocks_for(way.route, args)
        left = max(0.001, started + self._settings.timeout - time.monotonic())
        try:
            bound(connection, None if blocks is None else left + blocks)
            connection.send_packed_command([data])
            self._stats.count_batch(1, len(data))
            return connection.read_response(disable_decoding=True)  # decoding is up to the reply, see _shape
        except UNEXECUTED:
            raise
        except (ResponseError, AuthenticationError) as error:
            return error
        except _LOST as error:
            connection.disconnect()
            raise self._lost(way.name, error) from error
        except BaseException:
            connection.disconnect()  # an unread reply must never meet the next command
            raise
        finally:
            self._pool.release(connection)

    def _lost(self, name: str, error: Exception) -> MaybeExecutedError:
        self._stats.lost_links += 1
        if isinstance(error, DriverTimeoutError | TimeoutError):
            self._stats.timeouts_server += 1
            return TimedOutMaybeExecutedError(f"{name} on {self._node}: sent, no answer in time")
        return LostMaybeExecutedError(f"{name} on {self._node}: sent, then the connection was lost")

    # -- connecting

    def _open(self, seconds: float) -> Any:
        """Return a new connection for the combiner, made within ``seconds``."""

        def connect() -> Any:
            return self.connect_alone(min(seconds, self._settings.connect_timeout))

        return self._connected("a command", connect)

    def _lend(self, name: str) -> Any:
        """Return a connection of redis-py's pool."""
        return self._connected(name, self._pool.get_connection)

    def _connected(self, name: str, connect: Any) -> Any:
        """Connect; while the server is down only one call per backoff step tries."""
        wait = self._retry_at - time.monotonic()
        if self._down is not None and wait > 0:
            raise LostNotSentError(f"{name} on {self._node}: not sent, the server cannot be reached", wait)
        try:
            connection = connect()
        except AuthenticationError as error:
            text = f"{name} on {self._node}: not sent, the server refuses user or password"
            raise LoginNotSentError(text, 0.0) from error
        except _LOST as error:
            raise self._unreachable(name, error) from error
        self._down, self._failures = None, 0
        return connection

    def _unreachable(self, name: str, error: Exception) -> NotSentError:
        if "No connection available" in str(error):
            return TimedOutNotSentError(f"{name} on {self._node}: not sent, no connection became free in time", 0.0)
        retry = self._settings.retry
        wait = full_jitter(retry.base, retry.maximum, attempt=self._failures, draw=_draw())
        self._stats.failed_connects += 1
        self._retry_at = time.monotonic() + wait
        self._failures += 1
        self._down = error
        return LostNotSentError(f"{name} on {self._node}: not sent, the server cannot be reached", wait)

    @property
    def node(self) -> str:
        """The server, for messages."""
        return self._node

    def connect_alone(self, seconds: float) -> Any:
        """Return a new connection that nobody else uses, made within ``seconds``; failures are the driver's."""
        connection = self._pool.make_connection()
        connection.socket_connect_timeout = connection.socket_timeout = seconds
        connection.connect()
        return connection

    # -- the end

    def close(self) -> None:
        """Do nothing: connections belong to the pool, which closes them."""

    def disconnect(self) -> None:
        """Close every connection; later calls open new ones."""
        self.combiner.close()
        close_blocking(self._pool)
