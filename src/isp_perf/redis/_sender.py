"""What pipelines and streams ask of a client, so that neither module needs to know the other."""

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Sender", "Staged"]

Staged = tuple[tuple[Any, ...], dict[str, Any]]
"""A command that waits to be sent: its arguments, the name first, and redis-py's options for its reply."""


class Sender(Protocol):
    """A client over shared links."""

    states: Any
    response_callbacks: Any

    @property
    def connection_pool(self) -> Any:
        """redis-py's pool of dedicated connections for the running event loop."""
        ...

    async def run(self, commands: Sequence[Staged]) -> list[Any]:
        """Send commands as one batch; shaped replies in order, an exception for each failure."""
        ...

    async def run_raw(self, commands: Sequence[tuple[Any, ...]], *, within: float | None = None) -> list[Any]:
        """Send commands as one batch; the server's own replies in order, an exception for each failure."""
        ...

    async def run_unit(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands that stand or fall together; their raw replies."""
        ...

    async def shape_all(self, commands: Sequence[Staged], replies: list[Any]) -> list[Any]:
        """Put raw replies into redis-py's shape, in place; exceptions stay as they are."""
        ...

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on a shared link."""
        ...
