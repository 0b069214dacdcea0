"""What the cache asks of Redis: orders over shared links, and channels that hear of every change under a prefix.

A channel is a link of its own on which client-side caching is on in broadcast mode (RESP3, Redis 6 and later): pushes
and replies come over one connection in one order. Whether the server can do that is found out by trying. Where it
cannot, changes are heard of by a subscription beside the orders, see ``_bulletin``; where there is not even that, the
channel carries orders all the same and never calls ``connected``.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from secrets import token_bytes
from typing import Any

from redis.exceptions import AuthenticationError, InvalidResponse, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf._runtime.patience import patience
from isp_perf.errors import RemoteError
from isp_perf.redis._bulletin import BlockingNews, Bulletin, Hearing, News, mispaired
from isp_perf.redis._combine import Combiner
from isp_perf.redis._config import RedisSettings
from isp_perf.redis._entry import LinkLostError, unheard
from isp_perf.redis._errors import (
    LostNotSentError,
    TimedOutMaybeExecutedError,
    TimedOutNotSentError,
    lost_error,
)
from isp_perf.redis._lane import Hooks, Lane
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack
from isp_perf.redis._scripts import Command, Dialect, reply_for
from isp_perf.redis._state import States
from isp_perf.redis._stats import LaneStats
from isp_perf.redis._sync import BlockingRedis
from isp_perf.typing import Identity, Listener, Order

__all__ = ["BlockingTrackedChannel", "TrackedChannel", "perform_blocking", "perform_on"]

_NAME = "a cache order"
_RESP2 = 2
_CHECK_SECONDS = 0.5  # between two PINGs beside the orders
_LONGEST_RETRY = 0.15  # seconds between two attempts to connect: the cache wants to be back soon after the server is
_LONGEST_LAG = 10.0  # seconds after which a loop that never had its turn gives up connecting all the same
_LATE_SHARE = 0.25  # a wait that ended later than this share of its limit was our own loop's delay, not the server's


def _tracking(prefix: str) -> Command:
    return ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix.encode("utf-8", "surrogatepass"), "NOLOOP")


def _take_push(listener: Listener, push: Sequence[Any]) -> None:
    if push[0] == b"invalidate":
        listener.changed(push[1])


def _meanings(orders: Sequence[Order], replies: Sequence[Any], *, node: str, since: float) -> list[Any]:
    """Return what the replies mean; the first failure is raised."""
    answers: list[Any] = []
    for order, reply in zip(orders, replies, strict=True):
        if isinstance(reply, LinkLostError):
            raise lost_error(_NAME, node, reply, elapsed=time.monotonic() - since)
        if isinstance(order, Identity) and isinstance(reply, NoPermissionError):
            answers.append("")
            continue
        answers.append(reply_for(order, reply))
    return answers


# -- for tasks


async def perform_on(
    lane: Lane, dialect: Dialect, orders: Sequence[Order], *, within: float, connect_within: float
) -> list[Any]:
    """Carry out ``orders`` on the link of ``lane``, in one round trip if the server knows the scripts.

    Args:
        lane: where to.
        dialect: what the server understands.
        orders: what to do.
        within: seconds without a sign of life from the server after which the caller waits no longer.
        connect_within: seconds to wait for the link where there is none.
    """
    started = lane.loop.time()
    link = lane.link
    if link is None:
        link = await _connected(lane, within=connect_within)
    commands = dialect.commands(orders)
    replies = await _replies(link, lane, commands, within=within)
    if again := dialect.again(orders, commands, replies):
        for i, reply in zip(again, await _replies(link, lane, list(again.values()), within=within), strict=True):
            replies[i] = reply
    if mispaired(orders, replies):
        link.fail(InvalidResponse("an answer belongs to another command"))
        raise LostNotSentError(f"{_NAME} on {lane.node}: the link lost its order", 0.0)
    return _meanings(orders, replies, node=lane.node, since=started)


async def _connected(lane: Lane, *, within: float) -> Link:
    """Return the link of ``lane``, connecting first; the delays of our own loop do not count."""
    try:
        async with patience(within):
            return await lane.acquire(_NAME, lane.loop.time() + within + _LONGEST_LAG)
    except TimeoutError as late:
        text = f"{_NAME} on {lane.node}: not sent, no connection within {within:.3f} s"
        raise TimedOutNotSentError(text, lane.retry_after()) from (lane.down or late)


async def _replies(link: Link, lane: Lane, commands: Sequence[Command], *, within: float) -> list[Any]:
    """Send ``commands`` and return their replies."""
    future = link.send_many([pack(command) for command in commands])
    try:
        return await _waited(future, link, lane, within=within)
    finally:
        future.cancel()


async def _waited(future: "asyncio.Future[list[Any]]", link: Link, lane: Lane, *, within: float) -> list[Any]:
    """Wait while bytes come in, or until our own loop has had its chance to read them."""
    watch = _Watch(future, link, lane.node, within=within)
    try:
        return await future
    finally:
        watch.end()


class _Watch:
    """Ends the wait for replies when nothing was heard, and nothing could be sent, for too long.

    Args:
        future: who waits.
        link: where the replies come from.
        node: the server, for the message.
        within: seconds without a byte in either direction.
    """

    __slots__ = ("_due", "_future", "_give_up", "_link", "_node", "_timer", "_unsent", "_within")

    def __init__(self, future: "asyncio.Future[list[Any]]", link: Link, node: str, *, within: float) -> None:
        self._future, self._link, self._node, self._within = future, link, node, within
        now = link.loop.time()
        self._give_up = now + max(1.0, within)
        self._due = now + within
        self._unsent = link.transport.get_write_buffer_size()
        self._timer = link.loop.call_at(self._due, self._look)

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._future.done():
            return
        now, within = self._link.loop.time(), self._within
        late = now - self._due > within * _LATE_SHARE
        unsent, self._unsent = self._unsent, self._link.transport.get_write_buffer_size()
        moving = self._unsent < unsent or now - self._link.progress_at < within
        if now < self._give_up and (late or moving):
            self._due = now + within
            self._timer = self._link.loop.call_at(self._due, self._look)
            return
        text = f"{_NAME} on {self._node}: sent, no answer within {within:.3f} s"
        self._future.set_exception(TimedOutMaybeExecutedError(text))


class TrackedChannel(Hearing[News]):
    """A lane of the running loop that hears of changes; made by ``RedisPool.channel``.

    Args:
        states: the pool's lanes.
        prefix: of the keys to hear of.
        listener: who hears.
    """

    def __init__(self, states: States, prefix: str, listener: Listener) -> None:
        self._states = states
        self._bulletin = Bulletin(prefix, listener)
        self._dialect = Dialect()
        self._listener = listener
        self._news: News | None = None
        self._handshake = (_tracking(prefix),) if states.settings.protocol > _RESP2 else ()
        self._tracks = bool(self._handshake)
        self._lane: Lane | None = None
        self._asked: tuple[Link, bytes, asyncio.Future[Any], float] | None = None
        self._ever = False
        self._closed = False

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; see ``RemoteLevel.perform``. The first connection may take ``connect_timeout``."""
        lane = self._lane
        if lane is None:
            lane = self._lane = await self._open()
        if lane.link is not None:
            self._check(lane.link)
        try:
            return await self._answered(lane, orders, within=within)
        except RemoteError:
            if self._tracks and _refused(lane.down):
                self._tracks = False
                self.close()
                self._lane, self._closed = None, False
                return await self.perform(orders, within=within)
            raise
        finally:
            self._ever = True

    async def _answered(self, lane: Lane, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; where news come beside the answers, all that was published before has come as well."""
        patience, news = within if self._ever else max(within, self._states.settings.connect_timeout), self._news
        number = 0 if news is None else news.ask(lane.link)
        answers = await perform_on(lane, self._dialect, orders, within=within, connect_within=patience)
        if news is not None:
            await news.caught_up(number, within=within)
        return answers

    def _check(self, link: Link) -> None:
        """Follow a PING beside the orders: slow is not dead, but no answer at all is, or that to another question.

        Its answer may take as long as the pool's timeout; after bytes that a broken network swallowed answers arrive,
        and belong to other commands.
        """
        asked = self._asked
        if asked is None or asked[0] is not link:
            self._ask(link)
            return
        _, nonce, future, since = asked
        waited = link.loop.time() - since
        if not future.done():
            if waited > self._states.settings.timeout:
                link.fail(TimeoutError("no answer to a PING"))
        elif not _answers(future, nonce):
            link.fail(InvalidResponse("an answer belongs to another command"))
        elif waited > _CHECK_SECONDS:
            self._ask(link)

    def _ask(self, link: Link) -> None:
        nonce = token_bytes(8)
        future = link.send(pack(("PING", nonce)))
        future.add_done_callback(unheard)
        self._asked = (link, nonce, future, link.loop.time())

    async def _open(self) -> Lane:
        if self._closed:
            raise LostNotSentError(f"{_NAME}: not sent, the channel was closed", 0.0)
        state = await self._states.current()
        listener = self._listener
        if not self._tracks:
            self._dialect = Dialect(self._bulletin.sender)
            self._news = News(state.pool, self._bulletin)
        hooks = Hooks(on_lost=self._lost)
        if self._tracks:
            hooks = Hooks(self._handshake, lambda push: _take_push(listener, push), listener.connected, listener.lost)
        retry = replace(self._states.settings.retry, maximum=_LONGEST_RETRY)
        return state.open_lane("tracking", hooks, retry=retry)

    @property
    def closed(self) -> bool:
        """Whether it was closed, by itself or with its pool."""
        return self._closed or (self._lane is not None and self._lane.ended)

    def close(self) -> None:
        """End the link."""
        self._closed = True
        if self._news is not None:
            self._news.stop()
        lane = self._lane
        if lane is not None and not lane.loop.is_closed():
            lane.close()


def _answers(future: "asyncio.Future[Any]", nonce: bytes) -> bool:
    """Return whether a PING was answered with what it carried."""
    return not future.cancelled() and future.exception() is None and bool(future.result() == nonce)


def _refused(down: BaseException | None) -> bool:
    """Return whether the server understood the handshake and said no to it."""
    return isinstance(down, ResponseError) and not isinstance(down, AuthenticationError)


# -- for threads


def perform_blocking(
    combiner: Combiner,
    dialect: Dialect,
    orders: Sequence[Order],
    *,
    node: str,
    within: float,
    connect_within: float,
    ahead: Sequence[bytes] = (),
) -> list[Any]:
    """Carry out ``orders`` on the connection of ``combiner``, behind packed commands whose replies nobody reads."""
    started = time.monotonic()
    commands = dialect.commands(orders)
    limit = within if combiner.sockets()[0] else connect_within
    replies = _execute(combiner, commands, node, within=limit, ahead=ahead)
    if again := dialect.again(orders, commands, replies):
        for i, reply in zip(again, _execute(combiner, list(again.values()), node, within=within), strict=True):
            replies[i] = reply
    if mispaired(orders, replies):
        combiner.close()
        raise LostNotSentError(f"{_NAME} on {node}: the link lost its order", 0.0)
    return _meanings(orders, replies, node=node, since=started)


def _execute(
    combiner: Combiner, commands: Sequence[Command], node: str, *, within: float, ahead: Sequence[bytes] = ()
) -> list[Any]:
    started = time.monotonic()
    try:
        return combiner.execute([*ahead, *map(pack, commands)], deadline=started + within)[len(ahead) :]
    except LinkLostError as lost:
        raise lost_error(_NAME, node, lost, elapsed=time.monotonic() - started) from lost.cause


class BlockingTrackedChannel(Hearing[BlockingNews]):
    """A connection for threads that hears of changes; made by ``RedisPool.blocking.channel``.

    Pushes are read together with replies, so somebody has to ask now and then: the cache's heartbeat does.

    Args:
        client: the pool's client for threads.
        settings: the pool's settings.
        prefix: of the keys to hear of.
        listener: who hears.
    """

    def __init__(self, client: BlockingRedis, settings: RedisSettings, *, prefix: str, listener: Listener) -> None:
        self._bulletin = Bulletin(prefix, listener)
        self._client = client
        self._dialect = Dialect()
        self._settings = settings
        self._prefix = prefix
        self._listener = listener
        self._news: BlockingNews | None = None
        self._tracks = settings.protocol > _RESP2
        self._ever = False
        self._closed = False
        self._combiner = Combiner(
            self._open,
            check_after=0,
            stats=LaneStats(),
            on_push=lambda push: _take_push(listener, push),
            on_lost=self._lost,
        )

    def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders``; see ``RemoteLevel.perform``. The first connection may take ``connect_timeout``."""
        patience = within if self._ever else max(within, self._settings.connect_timeout)
        number, ahead = 0, list[bytes]()
        if self._news is not None:
            number, ahead = self._news.ask(connected=self._combiner.sockets()[0] > 0)
        try:
            answers = perform_blocking(
                self._combiner,
                self._dialect,
                orders,
                node=self._client.node,
                within=within,
                connect_within=patience,
                ahead=ahead,
            )
        finally:
            self._ever = True
        if self._news is not None and number:
            self._news.caught_up(number, within=within)
        return answers

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        self._combiner.close()
        if self._news is not None:
            self._news.close()

    def _open(self, seconds: float) -> Any:
        limit = min(seconds, self._settings.connect_timeout)
        try:
            connection = self._client.connect_alone(limit)
            if self._tracks:
                self._shake_hands(connection)
            if not self._tracks and self._news is None:
                self._dialect = Dialect(self._bulletin.sender)
                self._news = BlockingNews(self._client.connection_pool, self._bulletin)
        except (DriverTimeoutError, TimeoutError) as error:
            raise TimedOutNotSentError(f"{_NAME} on {self._client.node}: not sent, no connection", 0.0) from error
        except (DriverConnectionError, OSError) as error:
            raise LostNotSentError(f"{_NAME} on {self._client.node}: not sent, no connection", 0.0) from error
        return connection

    def _shake_hands(self, connection: Any) -> None:
        try:
            connection.send_packed_command([pack(_tracking(self._prefix))])
            connection.read_response()
        except AuthenticationError:
            connection.disconnect()
            raise
        except ResponseError:
            self._tracks = False
            return
        except BaseException:
            connection.disconnect()
            raise
        self._listener.connected()
