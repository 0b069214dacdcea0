"""A lane: one link's life (absent, connecting, up, down) and what may be repeated when it ends.

Connecting is single-flight: however many callers wait, one attempt is on its way. After a failed attempt the lane is
down: new calls fail at once, while a background task probes with full jitter until the server answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from redis.exceptions import AuthenticationError, ReadOnlyError

from isp_perf._core.backoff import full_jitter
from isp_perf._runtime.patience import patience
from isp_perf.errors import RemoteError
from isp_perf.redis._config import RedisSettings
from isp_perf.redis._entry import LinkLostError, unheard
from isp_perf.redis._errors import (
    UNEXECUTED,
    LoginNotSentError,
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
    lost_error,
)
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack
from isp_perf.redis._stats import LaneStats
from isp_perf.typing import Guard

__all__ = ["RETRYABLE", "Describe", "Hooks", "Lane"]

_draw = SystemRandom().random

RETRYABLE = (LinkLostError, *UNEXECUTED)
"""Failures after which a command may be repeated, if it only reads or surely was not executed."""


Describe = Callable[[int], tuple[str, bool]]
"""Name of the command at a position of a batch, and whether it only reads."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a lane of its own does beside carrying commands; client-side tracking is made of it.

    Args:
        handshake: commands, as tuples, that every new link is sent before anybody may use it. If one is answered by an
            error, or not in time, the link is given up and the attempt counts as a failed one. Pushes that it causes
            reach ``on_push`` already.
        on_push: receives each RESP3 push, in the order of the wire; see ``Link``.
        on_ready: called each time a new link has passed the handshake, before the first caller gets it.
        on_lost: called each time a link that was ready ends, after its callers were told. Whatever was sent unasked
            between this call and the next ``on_ready`` is lost.
    """

    handshake: Sequence[tuple[Any, ...]] = ()
    on_push: Callable[[list[Any]], None] | None = None
    on_ready: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None


_NO_HOOKS = Hooks()


class Lane:
    """The link of one purpose to one server in one event loop.

    Args:
        node: the server, for messages.
        open_connection: returns a connected redis-py connection.
        settings: the pool's settings.
        stats: the lane's counters.
        hooks: commands for every new link, and who hears of pushes, new links and lost ones.
        guard: may veto writes, and hears how they and the attempts to connect ended.
    """

    loop: asyncio.AbstractEventLoop
    retry_at: float

    def __init__(
        self,
        node: str,
        open_connection: Callable[[], Awaitable[Any]],
        *,
        settings: RedisSettings,
        stats: LaneStats,
        hooks: Hooks = _NO_HOOKS,
        guard: Guard | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.node = node
        self.link: Link | None = None
        self.down: BaseException | None = None
        self.retry_at = 0.0
        self.stats = stats
        self._open = open_connection
        self._settings = settings
        self._hooks = hooks
        self._guard = guard
        self._keeper: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[None] = self.loop.create_future()
        self._ping: asyncio.TimerHandle | None = None
        self._ended = False

    # -- life

    async def acquire(self, name: str, deadline: float, *, patient: bool = False) -> Link:
        """Return the link, connecting first if there is none.

        Args:
            name: the command, for messages.
            deadline: when to give up, in the loop's time.
            patient: wait for a later attempt although the lane is down, for calls that already lost a link.

        Raises:
            NotSentError: no connection could be had in time; it is redis-py's ``AuthenticationError`` too where the
                server refuses user or password.
        """
        while self.link is None:
            if self._ended:
                raise LostNotSentError(f"{name} on {self.node}: not sent, the pool was closed", 0.0)
            if self.down is not None and not patient:
                raise self.down_error(name)
            if self._keeper is None:
                self._keeper = self.loop.create_task(self._keep())
            started = self.loop.time()
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(self._outcome)
            except TimeoutError:
                waited = self.loop.time() - started
                text = f"{name} on {self.node}: not sent, no connection within {waited:.3f} s (timeout: connect)"
                raise TimedOutNotSentError(text, self.retry_after()) from self.down
        return self.link

    @property
    def ended(self) -> bool:
        """Whether it was closed for good, as with its pool."""
        return self._ended

    def retry_after(self) -> float:
        """Return the seconds until the next connection attempt."""
        return max(0.0, self.retry_at - self.loop.time())

    def down_error(self, name: str) -> Exception:
        """Return the error for a call that arrives while the lane is down."""
        if isinstance(self.down, AuthenticationError):
            text = f"{name} on {self.node}: not sent, the server refuses user or password"
            refused = LoginNotSentError(text, self.retry_after())
            refused.__cause__ = self.down
            return refused
        error = LostNotSentError(f"{name} on {self.node}: not sent, the server cannot be reached", self.retry_after())
        error.__cause__ = self.down
        return error

    async def _keep(self) -> None:
        """Connect, and while that fails go on trying."""
        attempt = 0
        while self.link is None:
            opened: Sequence[Link | BaseException] = await asyncio.gather(self._open_in_time(), return_exceptions=True)
            link = opened[0]
            if isinstance(link, BaseException):
                await self._fail(link, attempt)
                attempt += 1
            elif link.closed:
                await self._fail(ConnectionResetError("the server closed the connection at once"), attempt)
                attempt += 1
            else:
                self._take(link)

    async def _fail(self, error: BaseException, attempt: int) -> None:
        """Note that an attempt failed, tell who waits, and wait before the next one."""
        self.stats.failed_connects += 1
        if self._guard is not None:
            self._guard.failure(error)
        patience = 1 if self.stats.connects else 0  # a server that worked a moment ago gets a second attempt
        if attempt >= patience:
            self.down = error
        retry = self._settings.retry
        delay = full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw())
        self.retry_at = self.loop.time() + delay
        if self.down is not None:
            self._announce()
        await asyncio.sleep(delay)

    async def _open_in_time(self) -> Link:
        settings = self._settings
        async with patience(settings.connect_timeout):
            link = Link(
                await self._open(),
                timeout=settings.timeout,
                in_flight=settings.in_flight,
                reject=settings.overflow == "error",
                stats=self.stats,
                on_lost=self._lost,
                on_push=self._hooks.on_push,
                guard=self._guard,
            )
            if self._hooks.handshake:
                await self._shake_hands(link)
        return link

    async def _shake_hands(self, link: Link) -> None:
        try:
            replies = await link.send_many([pack(command) for command in self._hooks.handshake])
        except BaseException as error:
            link.fail(error)
            raise
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            link.fail(refused)
            raise refused

    def _take(self, link: Link) -> None:
        self.link = link
        self.stats.connects += 1
        self.down = None
        self._keeper = None
        if self._hooks.on_ready is not None:
            self._hooks.on_ready()
        self._announce()
        if self._settings.health_check_interval:
            self._ping = self.loop.call_later(self._settings.health_check_interval, self._check_health)

    def _announce(self) -> None:
        outcome, self._outcome = self._outcome, self.loop.create_future()
        outcome.set_result(None)

    def _lost(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            if not self._ended:
                self.stats.lost_links += 1
            if self._hooks.on_lost is not None:
                self._hooks.on_lost()

    def _check_health(self) -> None:
        """Ask a link that was silent for the interval; without an answer its own timer ends it."""
        link, interval = self.link, self._settings.health_check_interval
        if link is None:
            return
        silent = self.loop.time() - link.progress_at
        if silent >= interval and not link.pending:
            link.send(b"*1\r\n$4\r\nPING\r\n").add_done_callback(unheard)
            silent = 0.0
        self._ping = self.loop.call_later(interval - silent, self._check_health)

    def close(self) -> None:
        """End the link and the probing for good; entries in flight fail, and who waits for a link is told."""
        self._ended = True
        if self._ping is not None:
            self._ping.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if self.link is not None:
            self.link.fail(ConnectionAbortedError("the pool was closed"))
        if not self.loop.is_closed():
            self._announce()

    def forget(self) -> Link | None:
        """In a forked child: go without the parent's link, and return it untouched."""
        link, self.link = self.link, None
        return link

    # -- calls

    async def call(self, data: bytes, name: str, *, read_only: bool, deadline: float) -> Any:
        """Send one packed command and return its reply, with every safe repetition before ``deadline``."""
        link = await self.acquire(name, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await link.send(data)
        except TimeoutError:
            raise TimedOutMaybeExecutedError(f"{name} on {self.node}: sent, no answer in time") from None
        except RETRYABLE as error:
            return await self.recover(error, data, name, read_only=read_only, deadline=deadline)

    async def recover(self, error: Exception, data: bytes, name: str, /, *, read_only: bool, deadline: float) -> Any:
        """Repeat a command that ended with ``error`` where that is safe, else raise what it means."""
        started = deadline - self._settings.timeout
        for attempt in range(self._settings.retry.attempts):
            self._may_repeat(error, name, read_only=read_only, elapsed=self.loop.time() - started)
            await self._pause(attempt, deadline)
            link = await self.acquire(name, deadline, patient=True)
            try:
                async with asyncio.timeout_at(deadline):
                    return await link.send(data)
            except TimeoutError:
                raise TimedOutMaybeExecutedError(f"{name} on {self.node}: sent, no answer in time") from None
            except RETRYABLE as again:
                error = again
        if isinstance(error, LinkLostError):
            raise lost_error(name, self.node, error, elapsed=self.loop.time() - started)
        raise error

    async def call_many(self, data: Sequence[bytes], describe: Describe, *, deadline: float) -> list[Any]:
        """Send commands next to each other; the answer holds replies in order, and an exception where there is none.

        Each command that is safe to repeat is repeated alone, in the order given.

        Args:
            data: the packed commands.
            describe: returns name and repeatability of the command at a position; asked only after a failure.
            deadline: when to give up, in the loop's time.
        """
        replies = await self._attempt_many(data, describe(0)[0], deadline=deadline, patient=False)
        for attempt in range(self._settings.retry.attempts + 1):
            last = attempt == self._settings.retry.attempts
            again = self._judge(replies, describe, deadline=deadline, last=last)
            if not again:
                break
            await self._pause(attempt, deadline)
            first = describe(again[0])[0]
            got = await self._attempt_many([data[i] for i in again], first, deadline=deadline, patient=True)
            for i, reply in zip(again, got, strict=True):
                replies[i] = reply
        return replies

    def _judge(self, replies: list[Any], describe: Describe, *, deadline: float, last: bool) -> list[int]:
        """Put what it means in the place of each failure, and return the positions that are to be repeated."""
        again: list[int] = []
        if not any(issubclass(kind, RETRYABLE) for kind in set(map(type, replies))):
            return again
        for i, reply in enumerate(replies):
            if isinstance(reply, RETRYABLE):
                verdict = self._verdict(reply, describe(i), deadline=deadline, last=last)
                replies[i] = verdict
                if verdict is None:
                    again.append(i)
        return again

    async def _attempt_many(self, data: Sequence[bytes], name: str, *, deadline: float, patient: bool) -> list[Any]:
        try:
            link = await self.acquire(name, deadline, patient=patient)
            async with asyncio.timeout_at(deadline):
                return await link.send_many(data)
        except RemoteError as error:
            return [error] * len(data)
        except TimeoutError:
            return [TimedOutMaybeExecutedError(f"{name} on {self.node}: sent, no answer in time")] * len(data)

    def _verdict(self, error: Exception, command: tuple[str, bool], *, deadline: float, last: bool) -> Exception | None:
        """Return what the command's error means, or ``None`` if it is to be repeated."""
        name, read_only = command
        elapsed = self.loop.time() - deadline + self._settings.timeout
        if last:
            return lost_error(name, self.node, error, elapsed=elapsed) if isinstance(error, LinkLostError) else error
        try:
            self._may_repeat(error, name, read_only=read_only, elapsed=elapsed)
        except (RemoteError, *UNEXECUTED) as verdict:
            return verdict
        return None

    async def call_unit(self, data: Sequence[bytes], name: str, *, deadline: float) -> list[Any]:
        """Send commands that stand or fall together (MULTI ... EXEC); they are repeated only if none was written."""
        error: LinkLostError | None = None
        for attempt in range(self._settings.retry.attempts + 1):
            link = await self.acquire(name, deadline, patient=error is not None)
            try:
                async with asyncio.timeout_at(deadline):
                    replies = await link.send_many(data)
            except TimeoutError:
                raise TimedOutMaybeExecutedError(f"{name} on {self.node}: sent, no answer in time") from None
            error = next((reply for reply in replies if isinstance(reply, LinkLostError)), None)
            if error is None:
                return replies
            elapsed = self.loop.time() - deadline + self._settings.timeout
            self._may_repeat(error, name, read_only=False, elapsed=elapsed)
            await self._pause(attempt, deadline)
        raise LostNotSentError(f"{name} on {self.node}: not sent after every attempt", 0.0) from error

    def _may_repeat(self, error: Exception, name: str, *, read_only: bool, elapsed: float) -> None:
        """Return if the command may be repeated; otherwise raise what its failure means."""
        over = elapsed >= self._settings.timeout
        if isinstance(error, LinkLostError):
            if over or error.final or (error.written and not read_only):
                raise lost_error(name, self.node, error, elapsed=elapsed)
            self._count_retry(written=error.written)
            return
        if over:
            raise error
        self.stats.retries_refused += 1
        if isinstance(error, ReadOnlyError):
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        """The primary moved: connect anew, through discovery where there is one."""
        if self.link is not None:
            self.link.fail(error)

    def _count_retry(self, *, written: bool) -> None:
        if written:
            self.stats.retries_read += 1
        else:
            self.stats.retries_unsent += 1

    async def _pause(self, attempt: int, deadline: float) -> None:
        """Wait before a repetition; the first follows at once, because a lost link is usually replaced at once."""
        if attempt:
            retry = self._settings.retry
            delay = full_jitter(retry.base, retry.maximum, attempt=attempt, draw=_draw())
            await asyncio.sleep(max(0.0, min(delay, deadline - self.loop.time())))
