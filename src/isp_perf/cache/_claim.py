"""What one load may do, as the remote level has answered it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isp_perf._runtime.flights import Flight
from isp_perf.cache._ages import MISSING

if TYPE_CHECKING:
    from isp_perf.cache._marks import Mark
    from isp_perf.cache._remote import SecondLevel

__all__ = ["Claim"]


class Claim:
    """What one load may do.

    Attributes:
        found: the value in the remote level and the seconds it has left there; ``MISSING``: load.
        joins: the load of this process that holds the lease: its outcome is the answer.
        token: the lease to fill with; ``None``: store nothing in the remote level.
        versions: versions of what the value depends on, from before the load.
        mark: stands while nobody changed the key; ``None``: the local level may not keep the value, or need not ask.
        watch: stands while nobody changed the versions.
        past: the remote level is out of use.
        tags: of what was found.
        wire: the key that is leased instead of the value's own, for an early refresh.
        stale: what an early refresh returns if it fails; ``MISSING``: its error.
        seen: digest of the value that an early refresh replaces.
    """

    __slots__ = ("found", "joins", "mark", "past", "seen", "stale", "tags", "token", "versions", "watch", "wire")

    found: Any
    joins: Flight | None
    mark: "Mark | None"
    past: bool
    seen: str
    stale: Any
    tags: frozenset[str]
    token: bytes | None
    versions: Mapping[str, bytes]
    watch: "Mark | None"
    wire: str

    def __init__(
        self,
        *,
        token: bytes | None = None,
        versions: Mapping[str, bytes] | None = None,
        mark: "Mark | None" = None,
        watch: "Mark | None" = None,
        found: Any = MISSING,
        joins: Flight | None = None,
        past: bool = False,
    ) -> None:
        self.found = found
        self.joins = joins
        self.token = token
        self.versions = {} if versions is None else versions
        self.mark = mark
        self.watch = watch
        self.past = past
        self.tags = frozenset()
        self.seen = self.wire = ""
        self.stale = MISSING

    def mark_again_locked(self, second: "SecondLevel", wire: str) -> None:
        """Mark the key anew before it is filled.

        Our own lease was news too. An accepted fill proves that nobody touched the key up to it, but not that no later
        truth was returned here meanwhile.
        """
        if second.unsure_locked(wire):
            self.lift_locked(second)
        elif self.mark is not None:
            second.marks.lift_locked(self.mark)
            self.mark = second.marks.set_locked((wire,))

    def lift_locked(self, second: "SecondLevel") -> None:
        """Take the marks away: the local level will not keep the value."""
        for mark in (self.mark, self.watch):
            if mark is not None:
                second.marks.lift_locked(mark)
        self.mark = self.watch = None
