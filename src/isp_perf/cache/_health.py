"""How the remote level is, as the cache sees it: one log line per change, none per call."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal

from isp_perf.typing import Observer

__all__ = ["Condition", "Tally"]

_log: Final = logging.getLogger("isp_perf.cache")
State = Literal["up", "down", "recovering"]


@dataclass(slots=True)
class Tally:
    """What the protocol with the remote level counted since the start.

    Attributes:
        errors: failures of the remote level by kind.
        rejected: bytes in the remote level that were not believed, by reason.
        skew: bytes that another deployment may need, so that they were left alone.
        fill_refused: loads that ended after their key was invalidated, so that nothing was stored.
        too_large: values above the limit for the remote level.
        past: calls that were served past the remote level.
        waits: calls that waited for the load of another process.
        outages: times the remote level went down.
    """

    errors: dict[str, int] = field(default_factory=dict[str, int])
    rejected: dict[str, int] = field(default_factory=dict[str, int])
    skew: int = 0
    fill_refused: int = 0
    too_large: int = 0
    past: int = 0
    waits: int = 0
    outages: int = 0

    def count_error(self, kind: str) -> None:
        """Count a failure."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def count_rejected(self, reason: str, *, skew: bool) -> None:
        """Count bytes that were not believed."""
        if skew:
            self.skew += 1
        else:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1


class Condition:
    """Whether the remote level is up.

    Args:
        name: the namespace, for log lines.
        observer: hears of changes.

    Attributes:
        state: ``"up"``, ``"down"`` or ``"recovering"``: it answers, and is told first what it missed.
        kind: of the last failure.
        since: monotonic seconds of the beginning of the outage.
        attempts: probes that failed since.
    """

    __slots__ = ("_name", "_observer", "attempts", "kind", "since", "state")

    state: State
    kind: str | None
    since: float
    attempts: int

    def __init__(self, name: str, observer: Observer | None) -> None:
        self.state = "up"
        self.kind = None
        self.since = 0.0
        self.attempts = 0
        self._name = name
        self._observer = observer

    def down(self, kind: str) -> bool:
        """Take note of a failure; return whether it begins an outage."""
        self.kind = kind
        began = self.state == "up"
        if began:
            self.since, self.attempts = monotonic(), 0
            _log.warning("the remote level of %s is down (%s); calls go to their loaders", self._name, kind)
            self._tell("cache.remote_down", {"kind": kind})
        self.state = "down"
        return began

    def recovering(self) -> None:
        """Take note that it answers again."""
        self.state = "recovering"

    def up(self) -> None:
        """Take note that it may be believed again."""
        seconds = monotonic() - self.since
        self.state = "up"
        _log.info("the remote level of %s is up again after %.2f s", self._name, seconds)
        self._tell("cache.remote_up", {"seconds": seconds})

    def _tell(self, event: str, attributes: Mapping[str, Any]) -> None:
        if self._observer is not None:
            tell: Callable[[str, Mapping[str, Any]], None] = self._observer.event
            with suppress(Exception):  # an observer may fail in any way, and never reaches a caller
                tell(event, attributes)
