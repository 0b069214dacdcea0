"""What became of an invalidation, and what became of a warm-up."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Receipt", "WarmReport"]

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


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmReport:
    """What ``warm_cache`` did.

    Attributes:
        loaded: names whose values are in the cache now.
        failed: name -> error of those whose loader failed.
        seconds: how long it took.
    """

    loaded: tuple[str, ...] = ()
    failed: Mapping[str, Exception] = field(default_factory=dict[str, Exception])
    seconds: float = 0.0
