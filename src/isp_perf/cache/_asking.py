"""Questions to the remote level: what is under a key, and if nothing, may I fill it?

The questions of one tick of an event loop leave as one order, so any number of concurrent misses is one command. Who
asks seals its load when the order leaves: a later caller's question may have another answer, so it asks for itself.
"""

import asyncio
from collections.abc import Callable
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
    """The questions of one tick: wire key -> who asks, the versions they need, and what seals them."""

    __slots__ = ("asked", "names", "seals")

    def __init__(self) -> None:
        self.asked: dict[str, list[asyncio.Future[Reply | None]]] = {}
        self.names: dict[str, None] = {}
        self.seals: list[Callable[[], None]] = []


class Asker:
    """Asks for one manager.

    Args:
        second: the remote level.
    """

    def __init__(self, second: SecondLevel) -> None:
        self._second = second
        self._batches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Batch] = WeakKeyDictionary()
        self._running: set[asyncio.Task[None]] = set()

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
        batch = self._batches.get(loop)
        if batch is None:
            batch = self._batches[loop] = _Batch()
            loop.call_soon(self._send, loop, batch)
        future: asyncio.Future[Reply | None] = loop.create_future()
        batch.asked.setdefault(wire, []).append(future)
        batch.names.update(dict.fromkeys(names))
        batch.seals.append(seal)
        return await future

    def _send(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        del self._batches[loop]
        for seal in batch.seals:
            seal()
        task = loop.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: _Batch) -> None:
        """Ask, and hand out the replies; a lease whose asker is gone meanwhile is an orphan."""
        second, token = self._second, token_bytes(16)
        wires, names = tuple(batch.asked), tuple(batch.names)
        fresh = token_bytes(8)
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
                lost = [wire for wire, askers in batch.asked.items() if _lost(replies.get(wire), askers)]
                second.orphan_locked(lost, token)
            for wire, askers in batch.asked.items():
                _hand_out(replies.get(wire), askers)

    def _replies(self, orders: list[Lease], answers: list[Answer]) -> dict[str, Reply]:
        versions = dict(zip(orders[0].beside, answers[0].beside, strict=True))
        self._second.epoch = versions[self._second.epoch_name]
        made = orders[0].fresh in versions.values()
        return {
            wire: Reply(data, left, order.token, versions, made)
            for order, answer in zip(orders, answers, strict=True)
            for wire, (data, left) in zip(order.keys, answer.found, strict=True)
        }


def _hand_out(reply: Reply | None, askers: list["asyncio.Future[Reply | None]"]) -> None:
    """Give everybody the reply; of several who asked for one key the first gets the lease."""
    for future in askers:
        if not future.done():
            future.set_result(reply)
            if reply is not None and reply.data is None:
                reply = reply._replace(data=held_bytes(reply.token))


def _lost(reply: Reply | None, askers: list["asyncio.Future[Reply | None]"]) -> bool:
    """Return whether a lease may have been granted that nobody knows of."""
    return reply is None or (reply.data is None and all(future.done() for future in askers))
