"""``isp-perf invalidate``: remove keys, tags or patterns from the cache that the workers share in Redis."""

import argparse
import asyncio
import json
from typing import Final

from isp_perf.cache import Receipt
from isp_perf.cli._shared_cache import shared_cache
from isp_perf.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_PATIENCE: Final = 2.0  # seconds to tell a Redis that does not answer at first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("keys", nargs="*", metavar="KEY", help="logical keys, such as user_profile:42")
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="everything with this tag")
    parser.add_argument("--pattern", action="append", default=[], metavar="GLOB", help="every key like 'inbox:7:*'")
    parser.add_argument("--all", action="store_true", help="everything of the namespace, whatever its schema")
    parser.add_argument("--namespace", help="instead of ISP_PERF_NAMESPACE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Invalidate and return the exit code: 1 if Redis could not be told.

    Raises:
        ConfigurationError: nothing to invalidate, no Redis, a wrong setting.
    """
    wanted = (arguments.keys, arguments.tag, arguments.pattern)
    if not any(wanted) and not arguments.all:
        raise ConfigurationError("KEY", "none", "name what is to go", "give keys, --tag, --pattern or --all")
    delivered = asyncio.run(_invalidate(arguments))
    counts = {"keys": len(arguments.keys), "tags": len(arguments.tag), "patterns": len(arguments.pattern)}
    if arguments.json:
        print(json.dumps({**counts, "all": arguments.all, "delivered": delivered}))
    else:
        what = (
            "everything"
            if arguments.all
            else ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        )
        print(f"invalidated {what}" if delivered else f"not delivered: {what}; Redis does not answer")
    return int(not delivered)


async def _invalidate(arguments: argparse.Namespace) -> bool:
    async with shared_cache(arguments.namespace) as manager:
        receipts = [
            *([await manager.invalidate(*arguments.keys)] if arguments.keys else []),
            *([await manager.invalidate_tags(*arguments.tag)] if arguments.tag else []),
            *[await manager.invalidate_pattern(glob) for glob in arguments.pattern],
            *([await manager.clear()] if arguments.all else []),
        ]
        return all([await _delivered(receipt) for receipt in receipts])


async def _delivered(receipt: Receipt) -> bool:
    try:
        await receipt.wait(_PATIENCE)
    except TimeoutError:
        return False
    return True
