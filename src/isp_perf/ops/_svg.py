"""Small pictures as inline SVG: lines over time and bars, without a style or script of their own."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

__all__ = ["bars", "lines", "sparkline", "strip", "striped", "trace"]

_WIDTH, _HEIGHT = 120, 60  # of a sparkline, in its own units
_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN = 640, 180, 46
_COLUMNS: Final = 40  # of a bar of states
_ROW = 22
_NAME_WIDTH: Final = 290
_NAME_LENGTH: Final = 42

Point = tuple[float, float]  # time in seconds, value


def trace(points: Sequence[Point], *, span: float, box: tuple[float, float] = (_WIDTH, _HEIGHT)) -> str:
    """Return the path of a line whose last point is at the right edge.

    Args:
        points: in order of time.
        span: seconds from the left to the right edge, > 0.
        box: width and height of the area; the highest value touches its top, 0 its bottom.
    """
    if not points:
        return ""
    width, height = box
    end = points[-1][0]
    top = max(value for _, value in points) or 1.0
    shown = [(width * (1 - (end - at) / span), height * (1 - value / top)) for at, value in points if end - at <= span]
    corners = {2 * round(x / 2): y for x, y in shown}  # of points that fall into one place the latest
    return "M" + "L".join(f"{x} {y:.0f}" for x, y in corners.items())


def strip(changes: Sequence[tuple[float, str]], *, span: float, marks: Sequence[str]) -> dict[str, str]:
    """Return the paths of a bar of states over time, by mark; what lasted shorter than a column fills one.

    Args:
        changes: time in seconds and mark of the state that began there, in order; the last one only ends the bar, at
            its right edge.
        span: seconds from the left to the right edge, > 0.
        marks: that are drawn, the worst one last: of several in one column it is shown.
    """
    end = changes[-1][0]
    places = [max(0, round(_COLUMNS * (1 - (end - at) / span))) for at, _ in changes]
    columns = [-1] * _COLUMNS
    for (_, mark), left, right in zip(changes, places, places[1:], strict=False):
        first = min(left, _COLUMNS - 1)
        for column in range(first, max(right, first + 1)) if mark in marks else ():
            columns[column] = max(columns[column], marks.index(mark))
    return {mark: _stretches(columns, rank) for rank, mark in enumerate(marks)}


def _stretches(columns: Sequence[int], rank: int) -> str:
    """Return the path along the columns of one rank."""
    width, path, at = _WIDTH // _COLUMNS, "", 0
    for found, stretch in groupby(columns):
        begin, at = at, at + len(list(stretch))
        if found == rank:
            path += f"M{width * begin} 4H{width * at}"
    return path


def striped(ident: str, paths: Mapping[str, str], label: str, *, marks: Sequence[str]) -> str:
    """Return a bar of states, of which each mark's path has an id; see ``strip``."""
    drawn = "".join(f'<path id="{escape(ident)}-{mark}" d="{paths.get(mark, "")}"/>' for mark in marks)
    return (
        f'<svg class="strip" viewBox="0 0 {_WIDTH} 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{drawn}</svg>'
    )


def sparkline(ident: str, path: str, label: str) -> str:
    """Return a small line with an id, so that its path can be replaced."""
    return (
        f'<svg class="spark" viewBox="0 -1 {_WIDTH} {_HEIGHT + 2}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path id="{escape(ident)}" d="{path}"/></svg>'
    )


def lines(series: Mapping[str, Sequence[Point]], *, title: str, unit: str) -> str:
    """Return a plot of lines over time with axes; each line is named in the legend.

    Args:
        series: points by name, in order of time.
        title: what is shown.
        unit: of the values.
    """
    points = sorted(point for one in series.values() for point in one) or [(0.0, 0.0)]
    begin, end = points[0][0], points[-1][0]
    top = max(value for _, value in points) or 1.0
    span = max(end - begin, 1e-9)
    drawn = [
        f'<path class="line line{number}" d="{_scaled(one, begin=begin, span=span, top=top)}"/>'
        for number, one in enumerate(series.values())
        if one
    ]
    name = f"{title} ({unit})"
    edges = (
        f'<text x="{_MARGIN + _PLOT_WIDTH}" y="{_PLOT_HEIGHT + _MARGIN}" text-anchor="end">{escape(name)}</text>'
        f'<path class="axis" d="M{_MARGIN} 8V{_PLOT_HEIGHT + 8}H{_MARGIN + _PLOT_WIDTH}"/>'
        f'<text x="2" y="16">{top:.4g}</text><text x="2" y="{_PLOT_HEIGHT + 8}">0</text>'
        f'<text x="{_MARGIN + _PLOT_WIDTH}" y="{_PLOT_HEIGHT + 24}" text-anchor="end">{span:.0f} s</text>'
    )
    return _plot(name, f"{edges}{''.join(drawn)}{_legend(series)}", _PLOT_HEIGHT + _MARGIN + 8)


def _legend(names: Iterable[str]) -> str:
    return "".join(
        f'<text class="line{number}" x="{_MARGIN + 150 * number}" y="{_PLOT_HEIGHT + _MARGIN}">{escape(name)}</text>'
        for number, name in enumerate(names)
    )


def _scaled(points: Sequence[Point], *, begin: float, span: float, top: float) -> str:
    return "M" + "L".join(
        f"{_MARGIN + _PLOT_WIDTH * (at - begin) / span:.1f} {8 + _PLOT_HEIGHT * (1 - value / top):.1f}"
        for at, value in points
    )


def bars(values: Sequence[tuple[str, float, str]], *, title: str) -> str:
    """Return horizontal bars: name, length relative to the longest (>= 0), and the figure written beside it."""
    top = max((value for _, value, _ in values), default=0.0) or 1.0
    room = _PLOT_WIDTH + _MARGIN - _NAME_WIDTH - 110
    rows = [
        f'<text x="0" y="{_ROW * number + 15}">{escape(name[:_NAME_LENGTH])}</text>'
        f'<rect class="bar" x="{_NAME_WIDTH}" y="{_ROW * number + 3}" height="{_ROW - 7}" '
        f'width="{max(1.0, room * value / top):.1f}"/>'
        f'<text x="{_NAME_WIDTH + 8 + room * value / top:.1f}" y="{_ROW * number + 15}">{escape(figure)}</text>'
        for number, (name, value, figure) in enumerate(values)
    ]
    return _plot(title, "".join(rows), _ROW * len(values) + 4)


def _plot(title: str, content: str, height: int) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_PLOT_WIDTH + _MARGIN + 4} {height}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )
