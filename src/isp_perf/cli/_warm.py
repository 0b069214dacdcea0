"""``isp-perf warm MODULE:NAME``: load values into the cache that the workers share, before anybody asks for them."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from isp_perf.cache import WarmReport
from isp_perf.cli._arguments import whole
from isp_perf.cli._import import load_attribute
from isp_perf.cli._shared_cache import shared_cache
from isp_perf.cli._terminal import Progress
from isp_perf.errors import ConfigurationError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("mapping", metavar="MODULE:NAME", help='a mapping {name: {"fetch_func": f, "ttl": 3600}}')
    parser.add_argument("--app-dir", type=Path, default=Path(), metavar="DIR", help="where the module is (default: .)")
    parser.add_argument("--concurrency", type=whole(1, 1000), default=8, help="loads at a time (default 8)")
    parser.add_argument("--namespace", help="instead of ISP_PERF_NAMESPACE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Load the values and return the exit code: 1 if a loader failed.

    Raises:
        ConfigurationError: no such mapping, a wrong source, no Redis, a wrong setting.
    """
    sources = _sources(load_attribute(arguments.mapping, arguments.app_dir), arguments.mapping)
    report = asyncio.run(_warm(sources, arguments))
    failed = {name: type(error).__name__ for name, error in report.failed.items()}
    if arguments.json:
        print(json.dumps({"loaded": list(report.loaded), "failed": failed, "seconds": round(report.seconds, 3)}))
    else:
        print(f"loaded {len(report.loaded)} of {len(sources)} in {report.seconds:.2f} s")
        for name, kind in failed.items():
            print(f"failed: {name} ({kind})")
    return int(bool(failed))


def _sources(value: Any, name: str) -> Mapping[str, Mapping[str, Any]]:
    sources: Any = value() if callable(value) else value
    if isinstance(sources, Mapping) and all(isinstance(one, Mapping) for one in cast("Any", sources).values()):
        return cast("Mapping[str, Mapping[str, Any]]", sources)
    rule = 'must be a mapping {name: {"fetch_func": f, ...}} or a function that returns one'
    raise ConfigurationError("MODULE:NAME", name, rule, "name the mapping you give to warm_cache")


async def _warm(sources: Mapping[str, Mapping[str, Any]], arguments: argparse.Namespace) -> WarmReport:
    async with shared_cache(arguments.namespace) as manager:
        with Progress("warming", max(1, len(sources))) as progress:
            return await manager.warm_cache(
                sources, concurrency=arguments.concurrency, progress=lambda _done, _total: progress.step()
            )
