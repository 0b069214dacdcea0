"""Questions to the remote level: what is under a key, and if nothing, may I fill it?

The questions of one tick of an event loop leave as one order, so any number of concurrent misses is one command. Who
asks seals its load when the order leaves: a later caller's question may have another answer, so it asks for itself.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_bytes
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from isp_perf._core.leases import LEASE_SECONDS, held_bytes
from isp_perf._runtime.drive import adrive
from isp_perf.cache._remote import SecondLevel, Steps
from isp_perf.typing import Answer, Lease

__all__ = ["Asker", "Reply"]

_MOST_KEYS: Final = 500
_LONE: Final = 3  # so many questions in a row that stayed alone make the next one leave at once


class Reply(NamedTuple):
    """What a question found.

    Attributes:
        data: the bytes under the key; ``None``: nothing, and the lease ``token`` is the asker's now.
        left: seconds that the bytes have left; ``None``: no end.
        token: the lease asked for.
        versions: name -> version of what a value under the key depends on, before any load.
        made: the question made one of the versions, which did not exist.
    """

    data: bytes | None
    left: float | None
    token: bytes
    versions: dict[str, bytes]
    made: bool


class _Batch:
    """The questions of one tick: wire key -> who asks beside the first, the versions needed, what seals the loads."""

    __slots__ = ("asked", "first", "names", "seals")

    def __init__(self) -> None:
        self.asked: dict[str, list[asyncio.Future[Reply | None]]] = {}
        self.names: dict[str, None] = {}
        self.seals: list[Callable[[], None]] = []
        self.first = ""

    def add(
        self,
        wire: str,
        names: tuple[str, ...],
        seal: Callable[[], None],
        *,
        asker: "asyncio.Future[Reply | None] | None" = None,
    ) -> None:
        """Take in a question; the first one has no future to be answered by."""
        if asker is None:
            self.first = wire
        self.asked.setdefault(wire, []).extend(() if asker is None else (asker,))
        self.names.update(dict.fromkeys(names))
        self.seals.append(seal)

    def lost(self, replies: Mapping[str, Reply]) -> list[str]:
        """Return the keys whose lease may have been granted to nobody."""
        return [
            wire
            for wire, askers in self.asked.items()
            if (reply := replies.get(wire)) is None
            or (reply.data is None and wire != self.first and all(future.done() for future in askers))
        ]

    def hand_out(self, replies: Mapping[str, Reply]) -> None:
        """Give everybody the reply; of several who asked for one key the first gets the lease."""
        for wire, askers in self.asked.items():
            reply = replies.get(wire)
            for future in askers:
                if not future.done():
                    future.set_result(reply)
                    if reply is not None and reply.data is None:
                        reply = reply._replace(data=held_bytes(reply.token))


class _Turn:
    """What one event loop is asking: the batch that still takes questions, batches on their way, lone ones in a row."""

    __slots__ = ("batch", "flying", "lone")

    def __init__(self) -> None:
        self.batch: _Batch | None = None
        self.flying = 0
        self.lone = 0

    @property
    def quiet(self) -> bool:
        """Whether a question will probably stay alone, so that waiting for others would only cost a turn."""
        return not self.flying and self.lone >= _LONE


class Asker:
    """Asks for one manager.

    Args:
        second: the remote level.
    """

    def __init__(self, second: SecondLevel) -> None:
        self._second = second
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()

    def ask(self, wire: str, names: tuple[str, ...], seal: Callable[[], None], *, tasks: bool) -> Steps:
        """Return what is under ``wire``, with the versions ``names``; ``None`` if the level failed."""
        if tasks:
            return (yield partial(self._ask, wire, names, seal))
        seal()
        token = token_bytes(16)
        order = Lease((wire,), names, token, LEASE_SECONDS, token_bytes(8))
        answers = yield from self._second.attempt([order], tasks=False)
        if answers is None:
            with self._second.local.lock:
                self._second.orphan_locked((wire,), token)
            return None
        return self._replies([order], answers)[wire]

    async def _ask(self, wire: str, names: tuple[str, ...], seal: Callable[[], None]) -> Reply | None:
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = _Turn()
        if turn.batch is not None:
            future: asyncio.Future[Reply | None] = loop.create_future()
            turn.batch.add(wire, names, seal, asker=future)
            try:
                return await future
            except BaseException:
                self._leave(wire, future)
                raise
        batch = turn.batch = _Batch()
        batch.add(wire, names, seal)
        # Whoever asks first in a tick asks for all of it. Cancelled, it sends the others back to ask again.
        replies: dict[str, Reply] = {}
        try:
            try:
                if not turn.quiet:
                    await asyncio.sleep(0)
            finally:
                turn.batch = None
                turn.flying += 1
                turn.lone = turn.lone + 1 if len(batch.seals) == 1 else 0
            replies = await self._send(batch)
        finally:
            turn.flying -= 1
            own = replies.get(wire)
            if own is not None and own.data is None:
                replies[wire] = own._replace(data=held_bytes(own.token))
            batch.hand_out(replies)
        return own

    def _leave(self, wire: str, future: "asyncio.Future[Reply | None]") -> None:
        """Let somebody else have the lease that was granted to a task in the moment in which it was cancelled."""
        reply = future.result() if future.done() and not future.cancelled() else None
        if reply is not None and reply.data is None:
            with self._second.local.lock:
                self._second.orphan_locked((wire,), reply.token)

    async def _send(self, batch: _Batch) -> dict[str, Reply]:
        """Ask, and return the replies; leases that may have been granted to nobody are orphans."""
        for seal in batch.seals:
            seal()
        second, token, fresh = self._second, token_bytes(16), token_bytes(8)
        wires, names = tuple(batch.asked), tuple(batch.names)
        orders = [
            Lease(wires[start : start + _MOST_KEYS], names, token, LEASE_SECONDS, fresh)
            for start in range(0, len(wires), _MOST_KEYS)
        ]
        replies: dict[str, Reply] = {}
        try:
            answers = await adrive(second.attempt(orders, tasks=True))
            if answers is not None:
                replies = self._replies(orders, answers)
        finally:
            with second.local.lock:
                second.orphan_locked(batch.lost(replies), token)
        return replies

    def _replies(self, orders: list[Lease], answers: list[Answer]) -> dict[str, Reply]:
        versions = dict(zip(orders[0].beside, answers[0].beside, strict=True))
        self._second.epoch = versions[self._second.epoch_name]
        made = orders[0].fresh in versions.values()
        return {
            wire: Reply(data, left, order.token, versions, made)
            for order, answer in zip(orders, answers, strict=True)
            for wire, (data, left) in zip(order.keys, answer.found, strict=True)
        }
