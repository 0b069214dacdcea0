"""The cards of the live page, from one picture: HTML with every figure in an element of its own.

A page that is open is not sent again. Each card says which rows it has (its shape) and each figure has an id, so what
travels is the figures that changed, and a card only where its rows did.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil
from typing import Any, Final

from isp_perf.ops._history import MARKS, STATES, Traces
from isp_perf.ops._picture import recent_hit_ratio
from isp_perf.ops._shown import NOTHING, count, duration, number, percent, plain, rate, safe, size
from isp_perf.ops._svg import sparkline, striped

__all__ = ["Draft", "draw"]

Picture = Mapping[str, Any]
_CACHE_HEADS: Final = ("Cache", "Reads", "Hit ratio", "Twice the room", "L1", "L2", "Misses", "Mostly", "Entries")
_FRESH: Final = 2.0  # seconds; workers publish once a second
_BREAKER_HEADS: Final = (
    "Breaker",
    "State",
    "Opened ago",
    "Opened",
    "Failures",
    "Slow",
    "Successes",
    "Rejected",
    "Next probe",
    "Time line",
)
_MOST_SITES: Final = 8
_HOURS_FROM: Final = 120  # minutes


@dataclass(slots=True)
class Draft:
    """What one rendering made.

    Attributes:
        cards: HTML by the name of the card.
        shapes: what the HTML of a card consists of beside figures.
        cells: text by the id of its element.
        paths: SVG path by the id of its element.
    """

    cards: dict[str, str] = field(default_factory=dict[str, str])
    shapes: dict[str, object] = field(default_factory=dict[str, object])
    cells: dict[str, str] = field(default_factory=dict[str, str])
    paths: dict[str, str] = field(default_factory=dict[str, str])

    def cell(self, ident: str, text: str, tag: str = "td") -> str:
        """Return the element of one figure."""
        self.cells[ident] = text
        return f'<{tag} id="{ident}">{escape(text)}</{tag}>'

    def card(self, name: str, title: str, body: str, *, shape: object = None) -> None:
        """Add a card."""
        self.shapes[name] = shape
        self.cards[name] = f'<h2 id="{name}-t">{escape(title)}</h2>{body}'


@dataclass(frozen=True, slots=True)
class _Table:
    """A card that is a table.

    Args:
        name: of the card.
        title: of the card.
        heads: of the columns; the first is the row's name.
        empty: what stands there without rows.
        most: rows that are shown.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    empty: str
    most: int


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    figures: Sequence[str]
    mark: str = ""  # a class: good, warn, bad
    strip: Mapping[str, str] | None = None  # paths by mark; None: no such column


def draw(picture: Picture, traces: Traces) -> Draft:
    """Return every card of a picture.

    Args:
        picture: see ``picture``, with ``saved`` and ``own`` beside it.
        traces: what is drawn of the past.
    """
    draft = Draft(paths=dict(traces.lines))
    _headline(draft, picture, traces)
    _saved(draft, picture["saved"])
    _table(draft, _BREAKERS, _breaker_rows(picture, traces.strips))
    for table, rows in _TABLES:
        _table(draft, table, rows(picture))
    for name, title, facts in _FACTS:
        _facts(draft, name, title, facts=facts(picture))
    return draft


def _headline(draft: Draft, picture: Picture, traces: Traces) -> None:
    requests = picture["requests"]
    figures = (
        ("rate", "Requests", rate(requests["per_second"])),
        ("errors", "Errors", percent(requests["error_ratio"])),
        ("p99", "p99", duration(requests["p99_seconds"])),
        ("hits", "Hit ratio", percent(recent_hit_ratio(picture))),
    )
    body = "".join(
        f"<div>{draft.cell('k-' + name, text, 'strong')}<span>{title}</span>{_lines(name, title, traces)}</div>"
        for name, title, text in figures
    )
    minutes, hours = traces.spans
    below = f"; below: the last {_span(hours)}" if hours > minutes else ""
    spans = draft.cell("k-spans", f"Lines: the last {_span(minutes)}{below}.", "span")
    draft.card("now", "Now", f'<div class="tiles">{body}</div><p class="note">{spans}</p>')


def _lines(name: str, title: str, traces: Traces) -> str:
    """Return the line over the last minutes, and below it the one over the last hours."""
    return "".join(
        sparkline(f"p-{name}-{number}", traces.lines.get(f"{name}-{number}", ""), f"{title} over the last {unit}")
        for number, unit in enumerate(("minutes", "hours"))
    )


def _span(seconds: float) -> str:
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < _HOURS_FROM else f"{seconds / 3600:.0f} h"


def _saved(draft: Draft, saved: Picture) -> None:
    figures = (
        ("of waiting for loads", duration(saved["load_seconds"])),
        ("loads not made", count(saved["loads"])),
        ("database statements", count(saved["statements"])),
        ("not sent", size(saved["bytes"])),
        ("round trips to Redis", count(saved["round_trips"])),
        ("calls to services that were down", count(saved["calls"])),
    )
    items = "".join(
        f"<div>{draft.cell(f's-{number}', text, 'strong')}<span>{title}</span></div>"
        for number, (title, text) in enumerate(figures)
    )
    since = draft.cell("s-since", saved["since_text"], "span")
    draft.card("saved", "What isp_perf saved you today", f'<p class="note">{since}</p><div class="tiles">{items}</div>')


def _table(draft: Draft, table: _Table, rows: Sequence[_Row]) -> None:
    shown = rows[: table.most]
    heads = "".join(f'<th scope="col">{head}</th>' for head in table.heads)
    body = "".join(_row(draft, f"{table.name[:2]}{number}", row) for number, row in enumerate(shown))
    more = len(rows) - len(shown)
    note = f'<p class="note">and {more} more</p>' if more else ""
    named = f'aria-labelledby="{table.name}-t"'
    html = f'<div class="wide" tabindex="0" role="group" {named}><table {named}><thead><tr>{heads}</tr></thead>'
    html = f"{html}<tbody>{body}</tbody></table></div>{note}" if shown else f'<p class="note">{table.empty}</p>'
    draft.card(table.name, table.title, html, shape=([(row.name, row.mark) for row in shown], more))


def _row(draft: Draft, ident: str, row: _Row) -> str:
    cells = "".join(draft.cell(f"{ident}-{place}", text) for place, text in enumerate(row.figures))
    if row.strip is not None:
        draft.paths |= {f"{ident}-{mark}": row.strip.get(mark, "") for mark in MARKS}
        cells += f"<td>{striped(f'p-{ident}', row.strip, 'Its states', marks=MARKS)}</td>"
    mark = f' class="{row.mark}"' if row.mark else ""
    return f'<tr{mark}><th scope="row">{safe(row.name)}</th>{cells}</tr>'


def _facts(draft: Draft, name: str, title: str, *, facts: Iterable[tuple[str, str]]) -> None:
    listed = list(facts)
    items = "".join(
        f"<dt>{escape(term)}</dt>{draft.cell(f'{name}-{number}', text, 'dd')}"
        for number, (term, text) in enumerate(listed)
    )
    draft.card(name, title, f"<dl>{items}</dl>", shape=[term for term, _ in listed])


def _route_rows(picture: Picture) -> list[_Row]:
    return [
        _Row(
            f"{row['method']} {row['route']}",
            (
                rate(row["per_second"]),
                percent(row["error_ratio"]),
                duration(row["p50_seconds"]),
                duration(row["p99_seconds"]),
                count(row["requests"]),
            ),
            "fails" if row["error_ratio"] else "",
        )
        for row in picture["routes"]
    ]


def _cache_rows(picture: Picture) -> list[_Row]:
    return [
        _Row(
            row["cache"],
            (
                rate(row["reads_per_second"]),
                percent(row["hit_ratio"]),
                percent(row["double_size_hit_ratio"]),
                count(row["l1_hits"]),
                count(row["l2_hits"]),
                count(row["misses"]),
                plain(max(row["misses_by"], key=row["misses_by"].__getitem__, default=NOTHING)),
                count(row["entries"]),
            ),
        )
        for row in picture["caches"]
    ]


def _key_rows(picture: Picture) -> list[_Row]:
    return [
        _Row(
            row["key"],
            (
                count(row["hits"]),
                percent(row["hit_ratio"]),
                duration(row["load_seconds_mean"]),
                duration(row["saved_seconds"]),
            ),
        )
        for row in picture["hot_keys"]
    ]


def _breaker_rows(picture: Picture, strips: Mapping[str, Mapping[str, str]]) -> list[_Row]:
    return [
        _Row(
            row["breaker"],
            (
                row["state"].replace("_", "-"),
                duration(None if row["opened_at"] is None else picture["at"] - row["opened_at"]),
                count(row["opened"]),
                count(row["failure_count"]),
                count(row["slow_calls"]),
                count(row["success_count"]),
                count(row["rejected"]),
                duration(None if row["retry_after_ms"] is None else row["retry_after_ms"] / 1000),
            ),
            STATES.get(row["state"], ""),
            strips.get(row["breaker"], {}),
        )
        for row in picture["breakers"]
    ]


def _site_rows(picture: Picture) -> list[_Row]:
    return [
        _Row(row["site"], (plain(row["path"]), row["kind"].replace("_", " "), count(row["findings"])), "warn")
        for row in picture["queries"]["sites"]
    ]


def _worker_rows(picture: Picture) -> list[_Row]:
    ages = ((row["worker"], row["age_seconds"]) for row in picture["workers"])
    return [_Row(worker, ("now" if age < _FRESH else duration(age),)) for worker, age in ages]


def _coding_rows(picture: Picture) -> list[_Row]:
    by_encoding: Mapping[str, Picture] = picture["compression"]["by_encoding"]
    return [_Row(name, (count(entry["requests"]), size(entry["bytes_saved"]))) for name, entry in by_encoding.items()]


_BREAKERS: Final = _Table("breakers", "Circuit breakers", _BREAKER_HEADS, "None defined.", 8)
_TABLES: Final[tuple[tuple[_Table, Callable[[Picture], list[_Row]]], ...]] = (
    (
        _Table("routes", "Routes", ("Route", "Rate", "Errors", "p50", "p99", "Total"), "No request yet.", 12),
        _route_rows,
    ),
    (
        _Table("caches", "Caches", _CACHE_HEADS, "Not used.", 6),
        _cache_rows,
    ),
    (
        _Table("keys", "Hot keys", ("Key", "Hits", "Hit ratio", "Load", "Saved"), "No cached function called yet.", 8),
        _key_rows,
    ),
    (
        _Table("sites", "N+1 and repeated queries", ("Line", "What", "Kind", "Found"), "None found.", _MOST_SITES),
        _site_rows,
    ),
    (_Table("codings", "Compression", ("Coding", "Responses", "Saved"), "Not used.", 5), _coding_rows),
    (_Table("workers", "Workers", ("Process", "Age of its figures"), "This one only.", 12), _worker_rows),
)


def _redis_facts(picture: Picture) -> list[tuple[str, str]]:
    redis = picture["redis"]
    return [
        ("Connections", f"{redis['created_connections']}, {redis['available_connections']} available"),
        ("Commands", rate(redis["commands_per_second"])),
        ("Commands per round trip", number(redis["commands_per_round_trip"])),
        ("In flight, queued", f"{redis['in_flight']}, {redis['queued']}"),
        ("Round trip", duration(redis["ping_seconds"])),
        ("In flight by Little's law", number(redis["expected_in_flight"])),
    ]


def _process_facts(picture: Picture) -> list[tuple[str, str]]:
    process, queries = picture["process"], picture["queries"]
    return [
        ("Memory of all workers", size(process["resident_bytes"])),
        ("Event loop late (p99)", duration(process["loop_lag_p99_seconds"])),
        ("Garbage collector", percent(process["gc_pause_ratio"])),
        ("Cost of these figures", percent(process["self_overhead_ratio"])),
        ("Requests in flight", count(picture["requests"]["in_flight"])),
        ("Database statements", rate(queries["per_second"])),
        ("Mean statement", duration(queries["mean_seconds"])),
    ]


def _own_facts(picture: Picture) -> list[tuple[str, str]]:
    return [
        (plain(name.replace("_", " ")), count(value) if isinstance(value, (int, float)) else plain(value))
        for name, value in list(picture["own"].items())[:12]
        if not isinstance(value, (bool, dict, list))
    ]


_FACTS: Final[tuple[tuple[str, str, Callable[[Picture], list[tuple[str, str]]]], ...]] = (
    ("redis", "Redis", _redis_facts),
    ("process", "Process and database", _process_facts),
    ("own", "This service", _own_facts),
)
