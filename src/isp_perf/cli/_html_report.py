"""``isp-perf report``: one HTML file that needs nothing else, of a running service or of a demo that was run."""

import argparse
import json
import os
import platform
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any, Final

from isp_perf import __version__
from isp_perf.cli._arguments import seconds
from isp_perf.cli._remote import Remote
from isp_perf.cli._terminal import Progress
from isp_perf.errors import ConfigurationError
from isp_perf.ops._history import History, Traces
from isp_perf.ops._page import asset
from isp_perf.ops._sections import draw
from isp_perf.ops._shown import count, duration, plain, size
from isp_perf.ops._svg import bars, lines

__all__ = ["add_arguments", "run"]

_STYLE: Final = """
.plot{width:100%;height:auto;font:12px system-ui,sans-serif}.plot text{fill:var(--text)}.axis{stroke:var(--line)}
.bar{fill:var(--mark)}path.line1{stroke:var(--bad)}.plot text.line0{fill:var(--mark)}.plot text.line1{fill:var(--bad)}
"""
_BARS: Final = 15
_CARD: Final = "card "
_PLOTS: Final = (
    ("Requests", "/s", {"requests": "per_second", "errors": "errors_per_second"}, 1.0),
    ("Latency", "ms", {"p50": "p50_seconds", "p99": "p99_seconds"}, 1000.0),
)
_DEMO: Final = ("requests_per_second", "p50_seconds", "p99_seconds", "database_queries", "bytes_received")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("url", metavar="URL", nargs="?", help="a running service, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--demo", type=Path, metavar="FILE", help="what `isp-perf demo --json` printed, instead of a URL"
    )
    parser.add_argument("--seconds", type=seconds(1, 3600), default=30.0, help="how long to watch (default 30)")
    parser.add_argument("--out", type=Path, default=Path("isp-perf-report.html"), help="default isp-perf-report.html")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent to the service")
    parser.add_argument("--json", action="store_true", help="print name and size of the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and return the exit code.

    Raises:
        ConfigurationError: neither or both of URL and ``--demo``, or no result of a demo.
        OSError: the service does not answer, or the file cannot be written.
    """
    if (arguments.url is None) == (arguments.demo is None):
        raise ConfigurationError("URL", arguments.url, "either a URL or --demo FILE", "give one of them")
    if arguments.demo is not None:
        title, sections = f"Demo: {arguments.demo.name}", _of_demo(arguments.demo)
    else:
        remote = Remote(arguments.url, arguments.header)
        title, sections = remote.url, _of_service(_samples(remote, arguments.seconds))
    text = _document(title, sections)
    arguments.out.write_text(text, "utf-8")
    length = len(text.encode())
    written = json.dumps({"file": str(arguments.out), "bytes": length})
    print(written if arguments.json else f"wrote {arguments.out} ({size(length)})")
    return 0


def _samples(remote: Remote, length: float) -> list[dict[str, Any]]:
    """Return a picture of each second."""
    end = time.monotonic() + length
    taken = [remote.performance()]
    with Progress("watching", max(1, round(length))) as progress:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            taken.append(remote.performance())
            progress.step()
    return taken


def _of_service(samples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    last = samples[-1]
    plots = [
        lines({name: _points(samples, key, factor=factor) for name, key in series.items()}, title=title, unit=unit)
        for title, unit, series, factor in _PLOTS
    ]
    history, traces = History(), Traces()
    for sample in samples:
        traces = history.add(sample["at"], sample)
    draft = draw({**last, "own": {}}, traces)
    cards = {name: card for name, card in draft.cards.items() if name not in {"now", "own"}}
    return {
        "Over time": "".join(plots),
        **_of_routes(last),
        **_of_keys(last),
        **{f"{_CARD}{name}": card for name, card in cards.items()},
    }


def _of_routes(last: Mapping[str, Any]) -> dict[str, str]:
    routes = [
        (plain(f"{row['method']} {row['route']}"), float(row["requests"]), count(row["requests"]))
        for row in last["routes"][:_BARS]
    ]
    return {"Requests by route, since the start": bars(routes, title="Requests by route")} if routes else {}


def _of_keys(last: Mapping[str, Any]) -> dict[str, str]:
    keys = [
        (plain(row["key"]), float(row["saved_seconds"]), duration(row["saved_seconds"]))
        for row in last["hot_keys"][:_BARS]
    ]
    return {"Time saved by cached function": bars(keys, title="Time saved")} if keys else {}


def _points(samples: Sequence[Mapping[str, Any]], key: str, *, factor: float) -> list[tuple[float, float]]:
    return [
        (sample["at"], sample["requests"][key] * factor) for sample in samples if sample["requests"][key] is not None
    ]


def _of_demo(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text("utf-8"))
        sections = {
            name.replace("_", " ").capitalize(): bars(
                [(f"isp_perf {side}", float(found[side][name]), f"{found[side][name]:,.4g}") for side in ("off", "on")],
                title=name,
            )
            for name in _DEMO
        }
        hits = [
            (f"{name}, {kind}", float(one[f"{kind}_seconds"]), duration(one[f"{kind}_seconds"]))
            for name, one in found["hit"].items()
            for kind in ("load", "hit")
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        rule = "must hold what `isp-perf demo --json` printed"
        raise ConfigurationError("--demo", str(path), rule, "run isp-perf demo --json > FILE") from error
    return {**sections, "A load and a hit": bars(hits, title="A load and a hit")}


def _document(title: str, sections: Mapping[str, str]) -> str:
    style = asset("page.css") + _STYLE
    digest = b64encode(sha256(style.encode()).digest()).decode()
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, isp_perf {__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    )
    body = "".join(_section(name, html) for name, html in sections.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(plain(title))}</title>'
        f'<style>{style}</style></head><body><header><h1>{escape(plain(title))}</h1><span class="note">'
        f"{escape(machine)}</span></header><main>{body}</main></body></html>\n"
    )


def _section(name: str, html: str) -> str:
    """Return a section: a card of the live page brings its own heading, and is as wide as there."""
    if name.startswith(_CARD):
        return f'<section id="{name.removeprefix(_CARD)}">{html}</section>'
    return f"<section><h2>{escape(name)}</h2>{html}</section>"
