"""``isp-perf top URL``: the figures of the live page in a terminal, drawn anew every second."""

import argparse
import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from isp_perf.cli._arguments import seconds
from isp_perf.cli._remote import Remote, add_remote_arguments
from isp_perf.cli._table import spark, table
from isp_perf.cli._terminal import colour
from isp_perf.ops._shown import count, duration, percent, plain, rate, size

__all__ = ["add_arguments", "run"]

_RED, _YELLOW, _GREEN, _BOLD = 31, 33, 32, 1
_COLOURS: Final = {"closed": _GREEN, "half_open": _YELLOW, "open": _RED, "isolated": _RED}
_ROWS: Final = 12
_HISTORY: Final = 60
_ENTER, _LEAVE, _HOME, _REST = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_remote_arguments(parser)
    parser.add_argument("--once", action="store_true", help="print one frame and end; the default without a terminal")
    parser.add_argument(
        "--interval", type=seconds(0.1, 60), default=1.0, metavar="S", help="seconds between frames (default 1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw until Ctrl-C and return the exit code.

    Raises:
        ConfigurationError: a wrong URL or header.
        OSError: the service does not answer at the start; later the frame says so and it is tried again.
    """
    remote = Remote(arguments.url, arguments.header)
    first = remote.performance()
    if arguments.json:
        print(json.dumps(first))
    elif arguments.once or not sys.stdout.isatty():
        print("\n".join(_frame(first, remote.url, [first["requests"]["per_second"] or 0.0])))
    else:
        _watch(remote, first, arguments.interval)
    return 0


def _watch(remote: Remote, picture: dict[str, Any], interval: float) -> None:
    """Draw on the terminal's second screen, so that what stood there comes back."""
    rates: deque[float] = deque(maxlen=_HISTORY)
    trouble = ""
    sys.stdout.write(_ENTER)
    try:
        while True:
            rates.append(picture["requests"]["per_second"] or 0.0)
            _draw([*([colour(trouble, _RED, sys.stdout)] if trouble else []), *_frame(picture, remote.url, rates)])
            time.sleep(interval)
            try:
                picture, trouble = remote.performance(), ""
            except OSError as error:
                trouble = plain(error)
    except KeyboardInterrupt:
        pass  # how it is left
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _draw(lines: list[str]) -> None:
    height = shutil.get_terminal_size().lines
    shown = [f"{line}\x1b[K" for line in lines[: height - 1]]
    sys.stdout.write(_HOME + "\r\n".join(shown) + _REST)
    sys.stdout.flush()


def _frame(picture: dict[str, Any], url: str, rates: Any) -> Iterator[str]:
    requests, saved = picture["requests"], picture["saved"]
    yield colour(f"{url}   {len(picture['workers']) or 1} workers   {plain(saved['since_text'])}", _BOLD, sys.stdout)
    figures = (
        f"requests {rate(requests['per_second'])}",
        f"errors {percent(requests['error_ratio'])}",
        f"p50 {duration(requests['p50_seconds'])}",
        f"p99 {duration(requests['p99_seconds'])}",
        f"in flight {count(requests['in_flight'])}",
    )
    yield f"{'   '.join(figures)}   {spark(rates)}"
    kept = (
        f"{duration(saved['load_seconds'])} of loads",
        size(saved["bytes"]),
        f"{count(saved['round_trips'])} round trips",
        f"{count(saved['calls'])} calls",
    )
    yield f"saved    {', '.join(kept)}"
    for part in (_routes, _caches, _keys, _breakers, _sites):
        lines = list(part(picture))
        if len(lines) > 1:
            yield ""
            yield from lines


def _routes(picture: dict[str, Any]) -> list[str]:
    rows = [
        (
            plain(f"{row['method']} {row['route']}"),
            rate(row["per_second"]),
            percent(row["error_ratio"]),
            duration(row["p50_seconds"]),
            duration(row["p99_seconds"]),
            count(row["requests"]),
        )
        for row in picture["routes"][:_ROWS]
    ]
    return table(("route", "rate", "errors", "p50", "p99", "total"), rows)


def _caches(picture: dict[str, Any]) -> list[str]:
    rows = [
        (
            plain(row["cache"]),
            rate(row["reads_per_second"]),
            percent(row["hit_ratio"]),
            count(row["misses"]),
            count(row["entries"]),
        )
        for row in picture["caches"][:_ROWS]
    ]
    return table(("cache", "reads", "hits", "misses", "entries"), rows)


def _keys(picture: dict[str, Any]) -> list[str]:
    rows = [
        (
            plain(row["key"]),
            count(row["hits"]),
            percent(row["hit_ratio"]),
            duration(row["load_seconds_mean"]),
            duration(row["saved_seconds"]),
        )
        for row in picture["hot_keys"][:_ROWS]
    ]
    return table(("hot key", "hits", "ratio", "load", "saved"), rows)


def _breakers(picture: dict[str, Any]) -> list[str]:
    rows = [
        (plain(row["breaker"]), count(row["failure_count"]), count(row["rejected"]), row["state"])
        for row in picture["breakers"][:_ROWS]
    ]
    lines = table(("breaker", "failures", "rejected", "state"), rows)
    coloured = [
        line.removesuffix(row[3]) + colour(row[3], _COLOURS.get(row[3], 0), sys.stdout)
        for line, row in zip(lines[1:], rows, strict=True)
    ]
    return [lines[0], *coloured]


def _sites(picture: dict[str, Any]) -> list[str]:
    rows = [
        (plain(row["site"]), plain(row["path"]), row["kind"], count(row["findings"]))
        for row in picture["queries"]["sites"][:_ROWS]
    ]
    return table(("N+1", "what", "kind", "found"), rows)
