"""``isp-perf bench``: load one URL and say how fast it answers, or measure the hot paths of isp_perf itself."""

import argparse
import asyncio
import json
import platform
from typing import Any, Final

from isp_perf import __version__
from isp_perf.cli._arguments import seconds, whole
from isp_perf.cli._load import Outcome, Request, apply
from isp_perf.cli._remote import header_line, split_url
from isp_perf.cli._table import table
from isp_perf.cli._terminal import Progress
from isp_perf.ops._shown import count, duration, rate, size

__all__ = ["add_arguments", "run"]

_SHARES: Final = {"p50_seconds": 0.5, "p90_seconds": 0.9, "p99_seconds": 0.99, "max_seconds": 1.0}
_PORTS: Final = {"http": 80, "https": 443}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="what to ask for; without it, isp_perf itself is measured"
    )
    parser.add_argument("--requests", type=whole(1, 10_000_000), default=10_000, help="at most (default 10000)")
    parser.add_argument("--seconds", type=seconds(0.1, 3600), default=10.0, help="at most (default 10)")
    parser.add_argument("--connections", type=whole(1, 1000), default=10, help="open at the same time (default 10)")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent with each request")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code: 1 if requests were not answered with success.

    Raises:
        ConfigurationError: a wrong URL or header.
        OSError: the service does not answer.
    """
    if arguments.url is None:
        return _micro(as_json=arguments.json)
    outcome = _load(arguments)
    figures: dict[str, Any] = {
        "url": arguments.url,
        "requests": len(outcome.latencies),
        "seconds": round(outcome.seconds, 3),
        "connections": arguments.connections,
        "requests_per_second": round(outcome.rate, 1),
        **{name: round(outcome.quantile(share), 6) for name, share in _SHARES.items()},
        "bytes_received": outcome.bytes_received,
        "failures": outcome.failures,
    }
    print(json.dumps(figures) if arguments.json else "\n".join(_lines(figures)))
    return int(outcome.failures > 0)


def _load(arguments: argparse.Namespace) -> Outcome:
    parts = split_url(arguments.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = Request("GET", path, fields=tuple(map(header_line, arguments.header)))
    plan = [request] * arguments.requests
    with Progress("loading", len(plan)) as progress:
        return asyncio.run(
            apply(
                plan,
                parts.port or _PORTS[parts.scheme],
                connections=arguments.connections,
                at_most=arguments.seconds,
                done=progress.step,
                host=str(parts.hostname),
                tls=parts.scheme == "https",
            )
        )


def _lines(figures: dict[str, Any]) -> list[str]:
    received, failures = figures["bytes_received"], figures["failures"]
    return [
        f"{figures['url']}, {figures['connections']} connections",
        f"requests  {count(figures['requests'])} in {duration(figures['seconds'])}, {count(failures)} failed",
        f"rate      {rate(figures['requests_per_second'])}",
        *(f"{name.removesuffix('_seconds'):<9} {duration(figures[name])}" for name in _SHARES),
        f"received  {size(received)}",
    ]


def _micro(*, as_json: bool) -> int:
    from isp_perf.cli._micro import PATHS, ROUNDS, measure

    with Progress("measuring", PATHS * ROUNDS) as progress:
        costs = measure(progress.step)
    machine = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    if as_json:
        listed = [{"name": one.name, "p50_seconds": one.p50_seconds, "p99_seconds": one.p99_seconds} for one in costs]
        print(json.dumps({"isp_perf": __version__, "machine": machine, "costs": listed}))
        return 0
    print(f"isp_perf {__version__}, {machine}")
    rows = [(one.name, duration(one.p50_seconds), duration(one.p99_seconds), rate(one.per_second)) for one in costs]
    print("\n".join(table(("one call", "p50", "p99", "rate"), rows)))
    return 0
