"""A remote level behind a bad network: what is sent is slow, late, lost or done twice, by the draw of a seed."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from isp_perf._core.ranges import seconds, share
from isp_perf.errors import MaybeExecutedError, NotSentError
from isp_perf.testing._memory_level import MemoryLevel
from isp_perf.typing import BlockingRemoteLevel, Listener, Order

__all__ = ["ChaosLevel"]

_Messages: TypeAlias = deque[tuple[float, Callable[[], None]]]
_SLOT_SECONDS: Final = 1e-6  # what is due within the same microsecond arrives together, in order


def _draws(seed: int) -> Callable[[], float]:
    """Return a function whose answers are spread over 0-1, the same for the same seed on every machine."""
    numbers = count()

    def draw() -> float:
        digest = blake2b(f"{seed}/{next(numbers)}".encode(), digest_size=7).digest()
        return int.from_bytes(digest) / (1 << 56)

    return draw


class ChaosLevel:
    """A ``RemoteLevel`` in memory as one process sees it over a bad network; give each manager one of its own.

    Messages of one connection arrive in order, after a time that is drawn for each. A connection that was cut, or on
    which an answer did not come in time, is never used again; what was on its way to the server may still arrive
    there. Inside ``simulate`` a seed is a schedule, the same in every run.

    Args:
        level: what all processes share.
        seed: of every draw.
        slowest: seconds >= 0 that a message takes at most; default 0.002.
        late: share of the messages (0-1) that take up to 0.1 s; default 0.
        cut: share of the messages that break their connection instead of arriving; default 0.
        silent: share of the messages after which nothing arrives on their connection, in neither direction; default 0.
        repeat: share of the requests that the server gets twice; default 0.

    Attributes:
        level: as given.
        calm: ``True``: nothing goes wrong from now on; messages still take their time.

    Raises:
        ConfigurationError: a number out of range.
    """

    calm: bool
    level: MemoryLevel

    def __init__(
        self,
        level: MemoryLevel,
        *,
        seed: int,
        slowest: float = 0.002,
        late: float = 0.0,
        cut: float = 0.0,
        silent: float = 0.0,
        repeat: float = 0.0,
    ) -> None:
        self.level = level
        self.calm = False
        self._draw = _draws(seed)
        self._slowest = seconds("slowest", slowest, zero=True)
        self._late = share("late", late, zero=True)
        self._cut = share("cut", cut, zero=True)
        self._silent = share("silent", silent, zero=True)
        self._repeat = share("repeat", repeat, zero=True)
        self._lines: WeakSet[_Line] = WeakSet()
        self._reachable = True
        self._own = _ChaosChannel(self, "", None)

    @property
    def blocking(self) -> BlockingRemoteLevel:
        """The shared level for threads, without any faults."""
        return self.level.blocking

    # -- what the network does on demand

    def partition(self) -> None:
        """Let nothing arrive, in neither direction, until ``heal``; nobody is told."""
        self._reachable = False
        for line in list(self._lines):
            line.silent = True

    def crash(self) -> None:
        """As if the process was killed: connections end, later ones are refused; what was sent may still arrive."""
        self._reachable = False
        self.cut()

    def cut(self) -> None:
        """End every connection."""
        for line in list(self._lines):
            line.end()

    def heal(self) -> None:
        """Let new connections work again."""
        self._reachable = True

    # -- the remote level

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Carry out ``orders`` ``within`` so many seconds, if the network lets them; see ``RemoteLevel.perform``."""
        return await self._own.perform(orders, within=within)

    async def delete_pattern(self, glob: str, *, force: bool = False) -> int:
        """Remove keys that match the glob and return their number, without any faults; ``force`` as in ``RedisPool``.

        Raises:
            NotSentError: the network is partitioned.
        """
        if not self._reachable:
            raise NotSentError("the simulated network is partitioned")
        return await self.level.delete_pattern(glob, force=force)

    def channel(self, prefix: str, listener: Listener, /) -> "_ChaosChannel":
        """Return a channel for keys that begin with ``prefix``, of which ``listener`` hears; see ``RemoteLevel``."""
        return _ChaosChannel(self, prefix, listener)

    async def aclose(self) -> None:
        """End every connection."""
        self.cut()

    # -- draws

    def line(self, prefix: str, listener: Listener | None) -> "_Line":
        """Return a new connection that hears of keys under ``prefix`` for ``listener``, if there is one."""
        made = _Line(self, prefix, listener)
        made.silent = not self._reachable
        self._lines.add(made)
        return made

    def delay(self) -> float:
        """Draw the seconds that a message takes."""
        late = not self.calm and self._draw() < self._late
        return self._draw() * (0.1 if late else self._slowest)

    def fate(self) -> str:
        """Draw what becomes of a message: ``"arrives"``, ``"cut"`` or ``"silent"``."""
        draw = self._draw()
        if self.calm or draw >= self._cut + self._silent:
            return "arrives"
        return "cut" if draw < self._cut else "silent"

    def repeats(self) -> bool:
        """Draw whether the server gets a request twice."""
        return not self.calm and self._draw() < self._repeat


class _ChaosChannel:
    """A channel: it connects when it is used."""

    def __init__(self, chaos: ChaosLevel, prefix: str, listener: Listener | None) -> None:
        self._chaos = chaos
        self._prefix = prefix
        self._listener = listener
        self._line: _Line | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        line = self._line
        if line is None or line.ended:
            line = self._line = self._chaos.line(self._prefix, self._listener)
        return await line.perform(orders, within=within)

    def close(self) -> None:
        self._closed = True
        if self._line is not None:
            self._line.end()


class _Line:
    """One connection.

    Attributes:
        silent: nothing arrives any more.
        ended: nobody uses it any more.
    """

    ended: bool
    silent: bool

    def __init__(self, chaos: ChaosLevel, prefix: str, listener: Listener | None) -> None:
        self.silent = False
        self.ended = False
        self._chaos = chaos
        self._listener = listener
        self._up: _Messages = deque()
        self._down: _Messages = deque()
        self._waiting: set[asyncio.Future[list[Any]]] = set()
        self._loop = asyncio.get_running_loop()
        self._server = chaos.level.blocking if listener is None else chaos.level.blocking.channel(prefix, self)

    async def perform(self, orders: Sequence[Order], *, within: float) -> list[Any]:
        """Send ``orders`` and wait for their answers."""
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.add(answer)
        self._send(self._up, partial(self._execute, orders, answer))
        try:
            return await asyncio.wait_for(answer, within)
        except TimeoutError as error:
            self.end()
            raise MaybeExecutedError("no answer in time over the simulated network") from error
        finally:
            self._waiting.discard(answer)

    def end(self) -> None:
        """End the connection, and tell who waits or listens."""
        if self.ended:
            return
        self.ended = True
        self._down.clear()
        for answer in list(self._waiting):
            if not answer.done():
                answer.set_exception(MaybeExecutedError("the simulated connection was cut"))
        if self._listener is not None:
            self._server.close()
            self._listener.lost()

    # -- what the server reports

    def changed(self, keys: Sequence[bytes] | None, /) -> None:
        """Send news to the listener."""
        if self._listener is not None:
            self._send(self._down, partial(self._listener.changed, keys))

    def connected(self) -> None:
        """Send the listener word that news will come."""
        if self._listener is not None:
            self._send(self._down, self._listener.connected)

    def lost(self) -> None:
        """Do nothing: the server notices the end of a connection after its client."""

    # -- messages

    def _send(self, queue: _Messages, action: Callable[[], None]) -> None:
        fate = self._chaos.fate()
        if fate == "cut":
            self._loop.call_soon(self.end)
        self.silent = self.silent or fate == "silent"
        if fate != "arrives" or self.silent or self.ended:
            return
        due = max(self._loop.time() + self._chaos.delay(), queue[-1][0] if queue else 0.0)
        queue.append((due, action))
        self._loop.call_at(due, self._arrive, queue)

    def _arrive(self, queue: _Messages) -> None:
        while queue and queue[0][0] <= self._loop.time() + _SLOT_SECONDS:
            _, action = queue.popleft()
            action()

    def _execute(self, orders: Sequence[Order], answer: "asyncio.Future[list[Any]]") -> None:
        """Let the server carry ``orders`` out, once or twice, and send the first answer back."""
        server = self._chaos.level.blocking if self.ended else self._server
        try:
            answers = server.perform(orders, within=1.0)
            if self._chaos.repeats():
                server.perform(orders, within=1.0)
        except NotSentError as error:
            self._send(self._down, partial(_fail, answer, error))
        else:
            self._send(self._down, partial(_settle, answer, answers))


def _settle(answer: "asyncio.Future[list[Any]]", answers: list[Any]) -> None:
    if not answer.done():
        answer.set_result(answers)


def _fail(answer: "asyncio.Future[list[Any]]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
