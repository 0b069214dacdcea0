"""How a channel tells a manager what changed, without keeping it alive."""

from collections.abc import Sequence
from weakref import ref

from isp_perf.typing import Listener

__all__ = ["Ear"]


class Ear:
    """Listens for a manager; once that is gone, for nobody.

    Args:
        listener: who is told.
    """

    __slots__ = ("_listener",)

    def __init__(self, listener: "ref[Listener]") -> None:
        self._listener = listener

    def changed(self, keys: Sequence[bytes] | None, /) -> None:
        """Pass on what changed."""
        if (listener := self._listener()) is not None:
            listener.changed(keys)

    def connected(self) -> None:
        """Pass on that changes are reported."""
        if (listener := self._listener()) is not None:
            listener.connected()

    def lost(self) -> None:
        """Pass on that changes may have been missed."""
        if (listener := self._listener()) is not None:
            listener.lost()
