"""The blocking client for threads: redis-py's commands with the pool's deadlines, retries and errors."""

import time
from random import SystemRandom
from typing import Any, cast

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._core.backoff import full_jitter
from isp_perf._core.routing import Lane as Kind
from isp_perf._core.routing import Route, blocks_for
from isp_perf.errors import MaybeExecutedError, NotSentError
from isp_perf.redis._client import Staged, Ways, pack, refused
from isp_perf.redis._config import RedisSettings, Target
from isp_perf.redis._connect import blocking_pool, bound, describe
from isp_perf.redis._errors import (
    LoginNotSentError,
    LostMaybeExecutedError,
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
)
from isp_perf.redis._lane import UNEXECUTED, settled
from isp_perf.redis._stats import LaneStats

__all__ = ["BlockingRedis"]

_draw = SystemRandom().random
_DRIVER = cast("Any", Redis)  # redis-py leaves most of it without annotations
_LOST = (DriverConnectionError, DriverTimeoutError, OSError)


class BlockingRedis(Redis):
    """``redis.Redis`` for threads; made by ``RedisPool.sync()``. Connections are shared through redis-py's pool.

    Args:
        settings: the pool's settings.
        target: where the server is.
        stats: counters of the blocking lane.
    """

    def __init__(self, settings: RedisSettings, target: Target, stats: LaneStats) -> None:
        self._pool: Any = blocking_pool(settings, target)
        _DRIVER.__init__(self, connection_pool=self._pool)
        self._settings = settings
        self._node = describe(target)
        self._stats = stats
        self._ways = Ways(self.response_callbacks)
        self._down: Exception | None = None
        self._retry_at = 0.0
        self._failures = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return its parsed reply; errors as with the asyncio client."""
        way = self._ways[args[0]]
        found = way.route
        if found.lane is Kind.REFUSED:
            raise refused(found)
        data = pack((*(way.words or args[:1]), *args[1:]))
        started = time.monotonic()
        for attempt in range(self._settings.retry.attempts + 1):
            try:
                return self._once(data, found, args, options=options, started=started)
            except (NotSentError, MaybeExecutedError, *UNEXECUTED) as error:
                if not self._again(error, found, attempt, started=started):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _again(self, error: Exception, found: Route, attempt: int, *, started: float) -> bool:
        """Return whether to repeat, after the wait that comes before it."""
        left = started + self._settings.timeout - time.monotonic()
        timed_out = isinstance(error, TimeoutError)
        unsafe = isinstance(error, MaybeExecutedError) and not found.read_only
        if attempt == self._settings.retry.attempts or left <= 0 or unsafe or timed_out or self._down is not None:
            return False
        self._count_retry(error)
        if attempt:
            retry = self._settings.retry
            time.sleep(min(left, full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw())))
        return True

    def _count_retry(self, error: Exception) -> None:
        if isinstance(error, NotSentError):
            self._stats.retries_unsent += 1
        elif isinstance(error, MaybeExecutedError):
            self._stats.retries_read += 1
        else:
            self._stats.retries_refused += 1

    def _once(
        self, data: bytes, found: Route, args: tuple[Any, ...], /, *, options: dict[str, Any], started: float
    ) -> Any:
        name = found.words[0]
        connection = self._connected(name)
        blocks = blocks_for(found, args)
        left = max(0.001, started + self._settings.timeout - time.monotonic())
        try:
            bound(connection, None if blocks is None else left + blocks)
            connection.send_packed_command([data])
            self._stats.count_batch(1, len(data))
            reply: Any = _DRIVER.parse_response(self, connection, args[0], **options)
        except ResponseError:
            raise
        except (AuthenticationError, *UNEXECUTED):
            raise
        except _LOST as error:
            connection.disconnect()
            raise self._lost(name, error) from error
        except BaseException:
            connection.disconnect()  # an unread reply must never meet the next command
            raise
        finally:
            self._pool.release(connection)
        return reply

    def _lost(self, name: str, error: Exception) -> MaybeExecutedError:
        self._stats.lost_links += 1
        if isinstance(error, DriverTimeoutError | TimeoutError):
            self._stats.timeouts_server += 1
            return TimedOutMaybeExecutedError(f"{name} on {self._node}: sent, no answer in time")
        return LostMaybeExecutedError(f"{name} on {self._node}: sent, then the connection was lost")

    def _connected(self, name: str) -> Any:
        """Lend a connection; while the server is down only one call per backoff step tries."""
        wait = self._retry_at - time.monotonic()
        if self._down is not None and wait > 0:
            raise LostNotSentError(f"{name} on {self._node}: not sent, the server cannot be reached", wait)
        try:
            connection = self._pool.get_connection()
        except AuthenticationError as error:
            text = f"{name} on {self._node}: not sent, the server refuses user or password"
            raise LoginNotSentError(text, 0.0) from error
        except _LOST as error:
            if "No connection available" in str(error):
                text = f"{name} on {self._node}: not sent, no connection became free in time"
                raise TimedOutNotSentError(text, 0.0) from error
            self._note_down(error)
            wait = max(0.0, self._retry_at - time.monotonic())
            raise LostNotSentError(f"{name} on {self._node}: not sent, the server cannot be reached", wait) from error
        self._down, self._failures = None, 0
        return connection

    def _note_down(self, error: Exception) -> None:
        retry = self._settings.retry
        self._stats.failed_connects += 1
        self._retry_at = time.monotonic() + full_jitter(retry.base, retry.maximum, attempt=self._failures, draw=_draw())
        self._failures += 1
        self._down = error

    def ask(self, *args: Any) -> Any:
        """Execute a command; a server that refuses to work just now counts as one that was not reached."""
        try:
            return self.execute_command(*args)
        except UNEXECUTED as error:
            raise settled(error) from error

    def run(self, commands: list[Staged]) -> list[Any]:
        """Execute commands one after the other; the answer holds replies in order, an exception for each failure."""
        return [self._outcome(args, options) for args, options in commands]

    def _outcome(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return self.execute_command(*args, **options)
        except RedisError as error:
            return settled(error)
