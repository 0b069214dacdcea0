"""``isp-perf stats URL``: what the monitoring endpoints of a running service say, at once."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from isp_perf.cli._remote import Remote, add_remote_arguments
from isp_perf.cli._table import table
from isp_perf.ops._shown import NOTHING, count, plain, size

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_remote_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the figures and return the exit code: 1 for an unhealthy service.

    Raises:
        ConfigurationError: a wrong URL or header.
        OSError: the service does not answer.
    """
    remote = Remote(arguments.url, arguments.header)
    found = {
        "health": remote.health(),
        **remote.get("/cache/stats"),
        **remote.get("/compression/stats"),
        **remote.get("/circuit-breakers"),
    }
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(_lines(found)))
    return int(found["health"].get("status") == "unhealthy")


def _lines(found: dict[str, Any]) -> Iterator[str]:
    cache, redis, compression = (found[name] for name in ("cache_stats", "redis_health", "compression_stats"))
    yield f"health       {plain(found['health'].get('status', NOTHING))}"
    rate = f"{cache['hit_rate']} % of {count(cache['hits'] + cache['misses'])} reads"
    yield f"cache        {rate}, {count(cache['l1_size'])} local entries"
    ping = NOTHING if redis["ping_time_ms"] is None else f"{redis['ping_time_ms']} ms"
    connections = redis["pool_info"]["created_connections"]
    yield f"redis        {plain(redis['status'])}, ping {ping}, {count(connections)} connections"
    saved = f"{count(compression['total_requests'])} responses, {size(compression['total_bytes_saved'])} saved"
    yield f"compression  {saved}"
    breakers = found["circuit_breakers"]
    if breakers:
        yield ""
        rows = [
            (plain(name), plain(one["state"]), count(one["failure_count"]), count(one["success_count"]))
            for name, one in sorted(breakers.items())
        ]
        yield from table(("breaker", "state", "failures", "successes"), rows)
