"""``isp-perf doctor``: what to cache, preload, compress and index in a service, each with its evidence.

Given a URL, it reads the figures of a running service. Given ``module:app``, it starts the application in this process,
asks for its pages a few times, and looks at answers and statements themselves. Where ``REDIS_URL`` is set, the memory
limit of that server is looked at too.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from isp_perf.cli._advice import Advice, advice
from isp_perf.cli._import import load_attribute
from isp_perf.cli._probe import Probe, pages_of, probe
from isp_perf.cli._redis_memory import memory_advice
from isp_perf.cli._remote import Remote
from isp_perf.cli._terminal import colour
from isp_perf.compression import compress_for
from isp_perf.errors import ConfigurationError
from isp_perf.metrics._asgi import ASGIApp
from isp_perf.ops._shown import count, duration, plain, size
from isp_perf.settings import Settings

if TYPE_CHECKING:
    from isp_perf.queries import IndexAdvice

__all__ = ["add_arguments", "run"]

_WORTH_CACHING: Final = 0.005  # seconds of an answer
_WORTH_COMPRESSING: Final = 1024  # bytes of a body
_SLOW_STATEMENT: Final = 0.02  # seconds
_WORTH_AN_INDEX: Final = 0.001  # seconds of an answer that its statements took
_SERVER_ERROR: Final = 500
_YELLOW: Final = 33


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("target", metavar="URL|MODULE:APP", help="a running service, or an application to import")
    parser.add_argument(
        "--path", action="append", default=[], help="a page to ask the application for; may be repeated"
    )
    parser.add_argument("--app-dir", type=Path, default=Path(), metavar="DIR", help="where the module is (default: .)")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent to the service")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings and return the exit code: 1 if there are any.

    Raises:
        ConfigurationError: a wrong URL, or no such application.
        OSError: the service does not answer, or the application does not start.
    """
    running = arguments.target.startswith(("http://", "https://"))
    looked, found = _running(arguments) if running else _imported(arguments)
    found += asyncio.run(memory_advice(Settings.from_env().redis))
    if arguments.json:
        print(json.dumps({"looked_at": looked, "findings": [one.as_dict() for one in found]}, indent=2))
    else:
        print("\n".join(_lines(looked, found)))
    return int(bool(found))


def _lines(looked: str, found: list[Advice]) -> Iterator[str]:
    yield f"looked at {looked}"
    for one in found:
        yield ""
        yield f"{colour(f'{one.kind:<9}', _YELLOW, sys.stdout)} {one.subject}"
        yield f"{'seen':>9} {one.evidence}"
        yield f"{'do':>9} {one.fix}"
    yield ""
    yield f"{len(found)} finding{'' if len(found) == 1 else 's'}" if found else "nothing to improve was found"


def _running(arguments: argparse.Namespace) -> tuple[str, list[Advice]]:
    remote = Remote(arguments.target, arguments.header)
    picture = remote.performance()
    redis: dict[str, Any] = remote.get("/cache/stats")["redis_health"]
    looked = f"{remote.url}: {count(picture['requests']['total'])} requests, {len(picture['workers']) or 1} workers"
    return looked, advice(picture, redis)


def _imported(arguments: argparse.Namespace) -> tuple[str, list[Advice]]:
    app = load_attribute(arguments.target, arguments.app_dir)
    if not callable(app):
        raise ConfigurationError("MODULE:APP", arguments.target, "must be an ASGI application", "name the application")
    paths = arguments.path or pages_of(app)
    if not paths:
        rule = "has no GET route without parameters that can be seen"
        raise ConfigurationError("MODULE:APP", arguments.target, rule, "name pages: --path /customers/1")
    probes, indexes = asyncio.run(probe(cast("ASGIApp", app), paths))
    looked = f"{arguments.target}: {', '.join(f'{one.path} ({one.status})' for one in probes)}"
    found = [finding for one in probes for rule in _RULES for finding in rule(one)]
    return looked, [*found, *_indexes(probes, indexes)]


def _errors(one: Probe) -> Iterator[Advice]:
    if one.status >= _SERVER_ERROR:
        reason = f", {one.media}" if one.media.startswith("raised") else ""
        yield Advice("errors", one.path, f"answered {one.status}{reason}", "see the application's log")


def _preload(one: Probe) -> Iterator[Advice]:
    for finding in one.findings:
        kind = "preload" if finding.kind in {"n_plus_one", "unused_preload"} else "cache"
        where = f"{'/'.join(Path(finding.file).parts[-2:])}:{finding.line}" if finding.file else "the database"
        evidence = f"{finding.count} x {plain(finding.path)} ({finding.kind}) from {where}, {duration(finding.seconds)}"
        yield Advice(kind, one.path, evidence, finding.fix)


def _cache(one: Probe) -> Iterator[Advice]:
    if one.statements and one.same and one.seconds >= _WORTH_CACHING and one.status < _SERVER_ERROR:
        evidence = f"the same answer each time, {one.statements} statements and {duration(one.seconds)} each time"
        yield Advice(
            "cache", one.path, evidence, "cache what it loads: @cached(..., ttl=...), invalidated when written"
        )


def _compress(one: Probe) -> Iterator[Advice]:
    if one.coding or len(one.body) < _WORTH_COMPRESSING or one.status >= _SERVER_ERROR:
        return
    coded = compress_for(b"br, gzip", one.body, one.media.encode("latin-1"))
    if coded.coding is not None:
        evidence = f"{size(len(one.body))} sent as it is; {size(len(coded.body))} as {coded.coding}"
        yield Advice("compress", one.path, evidence, "Toolkit.from_env().wrap(app), or CompressionMiddleware(app)")


def _slow(one: Probe) -> Iterator[Advice]:
    slow = one.slowest
    if slow is not None and slow.count and slow.seconds / slow.count >= _SLOW_STATEMENT:
        evidence = f"{duration(slow.seconds / slow.count)} for: {_on_one_line(slow.text)}"
        yield Advice("index", one.path, evidence, "see its plan (EXPLAIN); an index it lacks is named below")


def _indexes(probes: Sequence[Probe], advised: "Sequence[IndexAdvice]") -> Iterator[Advice]:
    """Tell which indexes the pages' own statements lack, with what these cost."""
    for one in advised:
        for page in probes:
            sent = [statement for statement in page.sent if statement.text in one.statements]
            spent, times = sum(statement.seconds for statement in sent), sum(statement.count for statement in sent)
            if spent >= _WORTH_AN_INDEX:
                evidence = f"{times} x, {duration(spent)} in all: {_on_one_line(sent[0].text)}"
                yield Advice("index", page.path, evidence, one.ddl)
                break


def _on_one_line(text: str) -> str:
    return plain(" ".join(text.split()))


_RULES: Final = (_errors, _preload, _cache, _compress, _slow)
