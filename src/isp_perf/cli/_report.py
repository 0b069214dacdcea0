"""The demo's figures as one table for people and one object for programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "Phase"]

_SEED_RATIO = 1280  # how much faster repeated operations are to become


@dataclass(frozen=True, slots=True)
class Phase:
    """One run of the load.

    Args:
        requests_per_second: answered requests by wall time.
        p50_seconds: median latency.
        p99_seconds: latency that 99 of 100 requests did not exceed.
        database_queries: statements of the service's process from its start to the end of the load, warm-up included.
        bytes_received: headers and bodies of all answers.
        hit_ratio: hits by gets of the cache during the load, 0 to 1; ``None`` without a cache.
        failures: requests not answered with success.
    """

    requests_per_second: float
    p50_seconds: float
    p99_seconds: float
    database_queries: int
    bytes_received: int
    hit_ratio: float | None
    failures: int


_Row = tuple[str, str, Callable[[float], str], bool]
_ROWS: tuple[_Row, ...] = (
    ("requests/s", "requests_per_second", lambda v: f"{v:,.0f}", True),
    ("p50", "p50_seconds", lambda v: f"{1000 * v:,.1f} ms", False),
    ("p99", "p99_seconds", lambda v: f"{1000 * v:,.1f} ms", False),
    ("database queries", "database_queries", lambda v: f"{v:,.0f}", False),
    ("bytes on the wire", "bytes_received", lambda v: f"{v:,.0f}", False),
    ("hit ratio", "hit_ratio", lambda v: f"{v:.3f}", True),
)


def _gain(off: Any, on: Any, *, more_is_better: bool) -> float | None:
    """How many times better ``on`` is; ``None`` where there is nothing to compare."""
    worse, better = (off, on) if more_is_better else (on, off)
    return better / worse if worse and better is not None else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs, and what one hit of the local level costs against the load it replaces.

    Args:
        off: the run without isp_perf.
        on: the run with it.
        hits: by cached function: ``load_seconds``, ``hit_seconds`` and their ``ratio``.
    """

    off: Phase
    on: Phase
    hits: Mapping[str, Mapping[str, float]]

    def as_table(self) -> str:
        """Return the comparison, one figure per line."""
        lines = [("", "isp_perf off", "isp_perf on", "better by")]
        for title, name, show, more in _ROWS:
            pair = getattr(self.off, name), getattr(self.on, name)
            left, right = ("-" if value is None else show(value) for value in pair)
            gain = _gain(*pair, more_is_better=more)
            lines.append((title, left, right, "" if gain is None else f"{gain:,.1f}x"))
        text = [f"{title:<18} {left:>15} {right:>15} {gain:>12}" for title, left, right, gain in lines]
        rule = "-" * len(text[0])
        return "\n".join([text[0], rule, *text[1:], rule, *(_hit_line(name, self.hits[name]) for name in self.hits)])

    def as_values(self) -> dict[str, Any]:
        """Return the same figures as plain values, in seconds, bytes and ratios."""
        off, on = ({name: getattr(phase, name) for name in Phase.__slots__} for phase in (self.off, self.on))
        better = {name: _gain(off[name], on[name], more_is_better=more) for _, name, _, more in _ROWS}
        return {"off": off, "on": on, "better_by": better, "hit": self.hits}


def _hit_line(name: str, figures: Mapping[str, float]) -> str:
    load, hit, ratio = figures["load_seconds"], figures["hit_seconds"], figures["ratio"]
    times = f"{ratio:,.0f} times faster, {ratio / _SEED_RATIO:,.1f} x the promised {_SEED_RATIO:,}"
    return f"one {name + ':':<9} load {1000 * load:.2f} ms, local hit {1e6 * hit:.2f} us: {times}"
