"""What the live page remembers: the figures of the last minutes and hours, and what was saved before today."""

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isp_perf.metrics._group import start_time
from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._picture import recent_hit_ratio, savings
from isp_perf.ops._svg import strip, trace

__all__ = ["FIGURES", "MARKS", "STATES", "Checkpoints", "History", "Today", "Traces", "started_at"]

_WINDOW: Final = 10.0  # seconds that rates and quantiles look back
_APART: Final = 2.0  # seconds between two checkpoints
_SHORTEST: Final = 60.0  # seconds of a line when there is little to show
_PARTS: Final = 360  # points of a line, at most
_MOST_STRIPS: Final = 8
SPANS: Final[tuple[float, float]] = (900.0, 21_600.0)
"""Seconds that the two lines of a figure go back, at most."""
FIGURES: Final = ("rate", "errors", "p99", "hits")
"""The figures that have lines."""
MARKS: Final = ("good", "warn", "bad")
STATES: Final = {"closed": "good", "half_open": "warn", "open": "bad", "isolated": "bad"}
"""How a breaker's state is marked; others are not."""


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


@dataclass(frozen=True, slots=True)
class Traces:
    """SVG paths of what was, ready to be drawn.

    Args:
        lines: by the name of the figure, followed by ``-`` and the number of the span; the second line is empty as
            long as it would show the same.
        strips: by breaker, then by mark: where it was in a state of that mark.
        spans: seconds from the left to the right edge, for the first and the second line of a figure.
    """

    lines: Mapping[str, str] = field(default_factory=dict[str, str])
    strips: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    spans: tuple[float, float] = SPANS


class History:
    """Four figures over the last minutes and over the last hours, and the states of circuit breakers."""

    def __init__(self) -> None:
        self._lines: dict[str, list[_Line]] = {name: [_Line(span) for span in SPANS] for name in FIGURES}
        self._strips: dict[str, _Strip] = {}
        self._first = float("inf")
        self._drawn = float("-inf")
        self._traces = Traces()

    def add(self, at: float, picture: Mapping[str, Any]) -> Traces:
        """Note the figures of a moment and return the traces, drawn anew when they have a new point."""
        self._first = min(self._first, at)
        self._note_figures(at, picture)
        if self._note_breakers(at, picture["breakers"]) or at - self._drawn >= SPANS[0] / _PARTS:
            self._drawn = at
            self._traces = self._draw(at)
        return self._traces

    def _note_figures(self, at: float, picture: Mapping[str, Any]) -> None:
        requests = picture["requests"]
        figures = (requests["per_second"], requests["error_ratio"], requests["p99_seconds"], recent_hit_ratio(picture))
        for name, value in zip(FIGURES, figures, strict=True):
            if value is not None:
                for line in self._lines[name]:
                    line.add(at, value)

    def _note_breakers(self, at: float, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Note the states of breakers; return whether one has changed."""
        found = {row["breaker"]: row for row in rows[:_MOST_STRIPS]}
        self._strips = {name: self._strips.get(name) or _Strip() for name in found}
        return sum(self._strips[name].add(at, row) for name, row in found.items()) > 0  # every one of them notes

    def _draw(self, at: float) -> Traces:
        lasted = max(at - self._first, _SHORTEST)
        spans = min(lasted, SPANS[0]), min(lasted, SPANS[1])
        lines = {
            f"{name}-{number}": line.path(span) if span > number * SPANS[0] else ""
            for name, found in self._lines.items()
            for number, (line, span) in enumerate(zip(found, spans, strict=True))
        }
        return Traces(lines, {name: one.paths(at, spans[0]) for name, one in self._strips.items()}, spans)


class _Line:
    """One figure over time: the mean of each part of the span."""

    __slots__ = ("_part", "_points")

    def __init__(self, span: float) -> None:
        self._part = span / _PARTS
        self._points: deque[tuple[float, float, int]] = deque(maxlen=_PARTS)  # when a part began, its mean, its weight

    def add(self, at: float, value: float) -> None:
        begun = at - at % self._part
        _, mean, weight = self._points.pop() if self._points and self._points[-1][0] == begun else (begun, 0.0, 0)
        self._points.append((begun, mean + (value - mean) / (weight + 1), weight + 1))

    def path(self, span: float) -> str:
        return trace([(at, mean) for at, mean, _ in self._points], span=span)


class _Strip:
    """The states of a breaker over time."""

    __slots__ = ("_changes", "_opened")

    def __init__(self) -> None:
        self._changes: deque[tuple[float, str]] = deque(maxlen=_PARTS)
        self._opened: int | None = None

    def add(self, at: float, row: Mapping[str, Any]) -> bool:
        """Note a breaker's state; return whether it is another one. That it opened and closed in between is noted."""
        mark, known = STATES.get(row["state"], ""), self._opened
        self._opened = row["opened"]
        marks = [*(["bad"] if known is not None and row["opened"] > known else []), mark]
        before = len(self._changes)
        for one in marks:
            if not self._changes or self._changes[-1][1] != one:
                self._changes.append((at, one))
        while len(self._changes) > 1 and self._changes[1][0] <= at - SPANS[0]:
            self._changes.popleft()
        return len(self._changes) != before

    def paths(self, at: float, span: float) -> dict[str, str]:
        return strip([*self._changes, (at, "")], span=span, marks=MARKS)


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
