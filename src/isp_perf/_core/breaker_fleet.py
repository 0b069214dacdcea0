"""What a worker does when it hears of the fleet: the rules by which shared circuits are merged.

Workers decide for themselves and share *transitions*. The store keeps one record per circuit with a version that only
grows; a ``View`` is that record as one worker reads it. ``followed`` answers which state the worker's own circuit has
to take, and ``None`` if it may stay as it is. Nothing here knows of Redis, threads or clocks.

- Older versions lose, and so do equal ones: what is known already changes nothing.
- What a person decided (isolated, disabled, metrics only, reset) holds for every worker.
- An opening that the fleet did not share, because fewer workers than the quorum saw failures, stays the worker's own:
  no closing of the fleet ends it, only its own probe does, or a reset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from isp_perf._core.breaker_states import State

__all__ = ["Target", "View", "followed"]

Target = Literal["open", "closed", "ramp", "isolated", "disabled", "metrics_only"]

_BY_HAND = {"isolated", "disabled", "metrics_only"}


@dataclass(frozen=True, slots=True)
class View:
    """The record of one circuit, as the store tells it at one moment.

    Attributes:
        version: grows with every change; 0: the store knows nothing of the circuit.
        mode: ``auto``, or what a person set.
        state: ``closed`` or ``open``; means something in mode ``auto`` only.
        why: what the last change was.
        by: the worker that made it.
        left: seconds until the break of an open circuit is over; negative afterwards.
        round: openings without a closing between them.
        error: class name of the failure that opened it.
        held: isolations by worker: seconds left (``None``: until released) and the reasons.
        wait: answer to a request for the probe: seconds to wait; 0.0: the worker may probe.
    """

    version: int
    mode: Literal["auto", "isolated", "disabled", "metrics_only"] = "auto"
    state: Literal["closed", "open"] = "closed"
    why: str = ""
    by: str = ""
    left: float = 0.0
    round: int = 0
    error: str | None = None
    held: Mapping[str, tuple[float | None, str]] = field(default_factory=dict[str, tuple[float | None, str]])
    wait: float = 0.0

    def held_by_others(self, me: str) -> dict[str, tuple[float | None, str]]:
        """Return the isolations of all workers but ``me``."""
        return {worker: entry for worker, entry in self.held.items() if worker != me}


def followed(view: View, *, known: int, me: str, local: State, own: bool) -> Target | None:
    """Return the state that ``view`` asks of a worker's circuit; ``None``: it stays as it is.

    Args:
        view: what the store says.
        known: the version that the worker has followed before.
        me: the worker.
        local: the state of its circuit.
        own: whether its opening is its own, not the fleet's.
    """
    if view.version <= known:
        return None
    if view.mode == "isolated":
        return _isolated(view, me, local)
    if view.by == me:
        return None  # the change is our own, and done already
    if view.mode != "auto":
        return None if local == view.mode else view.mode
    if view.why == "reset":
        return "closed"
    return "open" if view.state == "open" else _closed(view, local, own=own)


def _isolated(view: View, me: str, local: State) -> Target | None:
    """Join the isolations of others; with only our own left there is nothing to join, but perhaps others to let go."""
    return "isolated" if local == "isolated" or view.held_by_others(me) else None


def _closed(view: View, local: State, *, own: bool) -> Target | None:
    if local in _BY_HAND:
        return "closed"
    if local == "closed" or own:
        return None
    return "ramp" if view.why == "ramp" else "closed"
