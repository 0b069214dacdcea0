"""Write intents: readers everywhere go past keys whose truth is being changed."""

import asyncio
from collections.abc import Sequence
from secrets import token_bytes
from types import TracebackType
from typing import Final, Protocol, Self

from isp_perf._runtime.drive import adrive, drive
from isp_perf.cache._engine import Flow
from isp_perf.cache._remote import SecondLevel
from isp_perf.cache._removal import Removal
from isp_perf.typing import Commit, Intent

__all__ = ["INTENT_SECONDS", "PlacedIntent", "WriteIntent"]

INTENT_SECONDS: Final = 2.0
"""Life of an intent whose writer died, or whose body takes longer."""


class Placed(Protocol):
    """An intent as flows for both colours."""

    @property
    def delivered(self) -> bool:
        """Whether every process goes past the keys."""
        ...

    def enter(self, *, tasks: bool) -> Flow:
        """Place the intent."""
        ...

    def leave(self, *, tasks: bool) -> Flow:
        """Remove the keys."""
        ...


class PlacedIntent:
    """The intent of one manager.

    Args:
        second: the remote level, if there is one.
        removal: removes keys here.
        keys: logical keys.
    """

    __slots__ = ("_keys", "_names", "_removal", "_second", "_writer", "delivered")

    delivered: bool

    def __init__(self, second: SecondLevel | None, removal: Removal, keys: Sequence[str]) -> None:
        self.delivered = False
        self._second = second
        self._removal = removal
        self._keys = tuple(dict.fromkeys(keys))
        self._names: tuple[str, ...] = ()
        self._writer = b""

    def enter(self, *, tasks: bool) -> Flow:
        """Place the intent; from here on nothing that was loaded before can be stored."""
        self._removal.remove_here(self._keys)
        second = self._second
        if second is None or not self._keys:
            self.delivered = True
            return
        self._writer = token_bytes(8)
        self._names = tuple(second.everywhere(map(second.wire, self._keys)))
        second.home(tasks=tasks)
        if second.ready:
            answers = yield from second.attempt([Intent(self._names, self._writer, INTENT_SECONDS)], tasks=tasks)
            self.delivered = answers is not None

    def leave(self, *, tasks: bool) -> Flow:
        """Remove the keys, here and everywhere."""
        self._removal.remove_here(self._keys)
        second = self._second
        if second is not None and self._keys:
            yield from second.deliver([Commit(self._names, self._writer)], self._names, tasks=tasks)


class WriteIntent:
    """The intent to change what some keys are loaded from; made by ``CacheManager.writing``.

    With ``async with``, or ``with`` in a thread.

    Args:
        placed: its flows.
    """

    __slots__ = ("_placed",)

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    @property
    def delivered(self) -> bool:
        """Whether every process goes past the keys now.

        If not, the remote level could not be told; a caller that must not be read stale raises before it commits.
        """
        return self._placed.delivered

    async def __aenter__(self) -> Self:
        try:
            await adrive(self._placed.enter(tasks=True))
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """Remove the keys, also when the caller is cancelled meanwhile: the commit's outcome may be unknown."""
        await asyncio.shield(asyncio.ensure_future(adrive(self._placed.leave(tasks=True))))

    def __enter__(self) -> Self:
        drive(self._placed.enter(tasks=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        drive(self._placed.leave(tasks=False))
