"""What became of an invalidation."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

__all__ = ["Receipt"]

_PAUSE: Final = 0.05


class Receipt:
    """The outcome of an invalidation. This process is fresh in any case.

    Attributes:
        delivered: the remote level knows, or there is none.

    Args:
        settle: tries again to deliver, and returns whether that worked.
        delivered: the state at the beginning.
    """

    __slots__ = ("_settle", "delivered")

    delivered: bool

    def __init__(self, settle: Callable[[], Coroutine[Any, Any, bool]], *, delivered: bool) -> None:
        self._settle = settle
        self.delivered = delivered

    @property
    def queued(self) -> bool:
        """The remote level could not be reached; it is told before it is believed again."""
        return not self.delivered

    def wait(self, timeout: float) -> Coroutine[Any, Any, None]:
        """Wait until the remote level knows.

        Args:
            timeout: seconds >= 0.

        Raises:
            TimeoutError: it could not be told within ``timeout``.
        """
        return self._wait(asyncio.timeout(timeout))

    async def _wait(self, limit: asyncio.Timeout) -> None:
        async with limit:
            while not self.delivered:
                self.delivered = await self._settle()
                if not self.delivered:
                    await asyncio.sleep(_PAUSE)

    def __repr__(self) -> str:
        return f"Receipt(delivered={self.delivered})"
