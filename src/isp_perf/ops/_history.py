"""What the live page remembers: the figures of the last minutes, and what was saved before today."""

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from isp_perf.metrics._group import start_time
from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._picture import recent_hit_ratio, savings
from isp_perf.ops._svg import trace

__all__ = ["Checkpoints", "History", "Today", "started_at"]

_WINDOW: Final = 10.0  # seconds that rates and quantiles look back
_APART: Final = 2.0  # seconds between two checkpoints
_SPAN: Final = 900.0  # seconds of a line over time, at most
_SHORTEST: Final = 60.0  # seconds of a line when there is little to show
_POINT_EVERY: Final = 1.0
_LINES: Final = ("rate", "errors", "p99", "hits")


class Checkpoints:
    """Some snapshots of the last seconds, to compare the present with."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, Snapshot]] = deque()

    def before(self, at: float, now: Snapshot) -> tuple[float, Snapshot]:
        """Return time and snapshot of about ten seconds ago, or the oldest there is; keep ``now`` for later."""
        kept = self._kept
        while len(kept) > 1 and at - kept[1][0] >= _WINDOW:
            kept.popleft()
        found = kept[0] if kept else (at, now)
        if not kept or at - kept[-1][0] >= _APART:
            kept.append((at, now))
        return found


class History:
    """The lines over time."""

    def __init__(self) -> None:
        self._points: dict[str, deque[tuple[float, float]]] = {name: deque(maxlen=int(_SPAN)) for name in _LINES}
        self._paths: dict[str, str] = {}
        self._last, self._first = float("-inf"), float("inf")

    def add(self, at: float, picture: Mapping[str, Any]) -> dict[str, str]:
        """Note the figures of a moment, once a second at most, and return the paths of the lines by name."""
        if at - self._last < _POINT_EVERY:
            return self._paths
        self._last = at
        requests = picture["requests"]
        figures = (
            requests["per_second"],
            requests["error_ratio"],
            requests["p99_seconds"],
            recent_hit_ratio(picture),
        )
        for name, value in zip(_LINES, figures, strict=True):
            if value is not None:
                self._points[name].append((at, value))
        self._first = min(self._first, at)
        span = min(max(at - self._first, _SHORTEST), _SPAN)
        self._paths = {name: trace(points, span=span) for name, points in self._points.items()}
        return self._paths


class Today:
    """What was saved since midnight, local time, or since the service started if that was later.

    Args:
        since: unix time from which the totals count; ``None``: unknown, so it begins with the first look.
    """

    def __init__(self, since: float | None) -> None:
        self._day: tuple[int, int] | None = None
        self._began = since
        self._since = 0.0
        self._before: dict[str, float] = {}

    def saved(self, now: Snapshot, at: float) -> dict[str, Any]:
        """Return what was saved today as JSON-ready values; ``at`` is the present unix time."""
        totals = savings(now)
        local = time.localtime(at)
        day = (local.tm_year, local.tm_yday)
        if day != self._day:
            self._turn(day, totals, at=at)
        begun = time.localtime(self._since)
        return {
            "since": round(self._since, 3),
            "since_text": f"since {time.strftime('%H:%M %Z', begun).strip()}",
            **{name: max(0, round(value - self._before.get(name, 0), 6)) for name, value in totals.items()},
        }

    def _turn(self, day: tuple[int, int], totals: dict[str, float], *, at: float) -> None:
        """Begin a day."""
        first, self._day = self._day is None, day
        began = self._began
        midnight = time.mktime((*time.localtime(at)[:3], 0, 0, 0, 0, 0, -1))
        if first and began is not None and began >= midnight:
            self._since, self._before = began, {}  # everything was today
        else:
            self._since, self._before = (at if first else midnight), totals


def started_at(pid: int) -> float | None:
    """Return the unix time at which a process started; ``None`` where the system does not tell."""
    ticks = start_time(pid)
    try:
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    return time.time() - uptime + int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None
