"""``isp-perf demo``: one service, one load, with isp_perf off and then on, on real engines; one table.

Order of work: engines, data, service off, load, fresh data, service on, the same load, the price of one hit. All of
it lives in folders of its own below the temporary one, and every process has a warden, so that nothing is left
however the command ends.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isp_perf.cli._arguments import whole
from isp_perf.cli._load import Request, apply, plan
from isp_perf.cli._report import Comparison, Phase
from isp_perf.cli._service import Service, free_port, must_be_free, must_have_packages, run_python
from isp_perf.cli._terminal import Progress
from isp_perf.errors import ConfigurationError
from isp_perf.testing import Engine, start_postgres, start_redis
from isp_perf.testing._warden import Warden

__all__ = ["add_arguments", "run"]

_HIGHEST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--requests", type=whole(1, 1_000_000), default=1_200, help="requests per run (default 1200)")
    parser.add_argument("--seconds", type=whole(1, 3_600), default=15, help="longest duration of a run (default 15)")
    parser.add_argument("--connections", type=whole(1, 1_000), default=8, help="open at the same time (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the load (default 1)")
    parser.add_argument("--data", type=Path, help="keep the SQLite data in this folder (default: a temporary one)")
    parser.add_argument("--serve", action="store_true", help="go on serving afterwards, until Ctrl-C")
    parser.add_argument("--port", type=whole(1, _HIGHEST_PORT), default=8000, help="port of --serve (default 8000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code.

    Raises:
        ConfigurationError: a wrong setting, a port in use, an extra that is not installed.
        OSError: an engine or the service did not work, or requests of a run were not answered with success.
    """
    must_have_packages()
    port = arguments.port if arguments.serve else free_port()
    must_be_free(port)
    _must_be_writable(arguments.data)
    say = _to_stderr if arguments.json else _to_stdout
    started = time.monotonic()
    with contextlib.ExitStack() as everything:
        settings, engines = _prepare(everything, arguments.data, say)
        load = _Load(plan(arguments.requests, arguments.seed), arguments.connections, arguments.seconds)
        run_python(["seeding.py"], settings)
        with Service({**settings, "ISP_PERF_OFF": "1"}, port=port) as service:
            off = load.measure(service, "isp_perf off")
        run_python(["seeding.py"], settings)  # the second run meets the same rows as the first
        service = everything.enter_context(Service(settings, port=port))
        on = load.measure(service, "isp_perf on")
        hits = json.loads(run_python(["-m", "isp_perf.cli._hit"], settings))
        found = Comparison(off, on, hits)
        if arguments.json:
            values = {"engines": engines, "load": load.facts(arguments.seed), **found.as_values()}
            print(json.dumps(values, indent=2), flush=True)
        else:
            print(f"load        {load}\n\n{found.as_table()}")
            print(f"took {time.monotonic() - started:.0f} s; everything it started is ended with it", flush=True)
        if arguments.serve:
            _serve(service, say)
    if off.failures or on.failures:
        raise OSError(f"requests without success: {off.failures} with isp_perf off, {on.failures} with isp_perf on")
    return 0


class _Load:
    """The same requests for every service they are sent to: as many as the first one answers in time."""

    def __init__(self, requests: list[Request], connections: int, seconds: float) -> None:
        self._requests, self._connections, self._seconds = requests, connections, seconds

    def measure(self, service: Service, label: str) -> Phase:
        """Send the requests and read the service's own counters before and afterwards."""
        hits, gets = _counted(service)
        with Progress(f"{label:<12}", len(self._requests)) as progress:
            outcome = asyncio.run(
                apply(
                    self._requests,
                    service.port,
                    connections=self._connections,
                    at_most=self._seconds,
                    done=progress.step,
                )
            )
        del self._requests[len(outcome.latencies) :]
        hits, gets = (after - before for after, before in zip(_counted(service), (hits, gets), strict=True))
        return Phase(
            requests_per_second=outcome.rate,
            p50_seconds=outcome.quantile(0.50),
            p99_seconds=outcome.quantile(0.99),
            database_queries=service.get("/queries")["sent"],
            bytes_received=outcome.bytes_received,
            hit_ratio=hits / gets if gets else None,
            failures=outcome.failures,
        )

    def facts(self, seed: int) -> dict[str, int]:
        """Return what describes the load."""
        return {"requests": len(self._requests), "connections": self._connections, "seed": seed}

    def __str__(self) -> str:
        return f"{len(self._requests):,} requests over {self._connections} connections, 1 worker, the same in both runs"


def _counted(service: Service) -> tuple[int, int]:
    """Return hits and gets of the service's cache so far."""
    stats = service.get("/cache/stats").get("cache_stats", {"hits": 0, "misses": 0})
    return stats["hits"], stats["hits"] + stats["misses"]


def _prepare(
    everything: contextlib.ExitStack, data: Path | None, say: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Choose the engines, say why, and return the service's settings and the engines' description."""
    redis = start_redis()
    everything.callback(redis.stop)
    say(_line("Redis", redis) if redis.url else f"Redis       none, the cache is local only ({redis.reason})")
    postgres = start_postgres()
    everything.callback(postgres.stop)
    settings = {"ISP_PERF_EXAMPLE_DIR": str(data.absolute() if data else _own_folder(everything))}
    if postgres.url:
        settings["DATABASE_URL"] = postgres.url
        say(_line("database", postgres))
    else:
        say(f"database    SQLite {sqlite3.sqlite_version} in {settings['ISP_PERF_EXAMPLE_DIR']} ({postgres.reason})")
    if redis.url:
        # On a server that others use too, our keys are told from theirs and from an earlier run's.
        settings |= {"REDIS_URL": redis.url, "ISP_PERF_NAMESPACE": f"isp-demo-{secrets.token_hex(4)}"}
    database = postgres if postgres.url else Engine(None, "SQLite", sqlite3.sqlite_version, postgres.reason)
    return settings, {"redis": _describe(redis), "database": _describe(database)}


def _must_be_writable(folder: Path | None) -> None:
    """Raise ``ConfigurationError`` if ``--data`` cannot be written to, before any engine is started for it."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        rule = f"must be a folder this account may write to ({error.strerror})"
        raise ConfigurationError("--data", str(folder), rule, "name a folder that is") from error


def _own_folder(everything: contextlib.ExitStack) -> Path:
    """Return a new folder that is removed at the end, also when this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="isp_perf-"))
    keeper = Warden([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"], folder, polite=signal.SIGTERM)
    everything.callback(keeper.stop)
    return folder


def _line(title: str, engine: Engine) -> str:
    return f"{title:<11} {engine.name} {engine.version}".rstrip() + f" ({engine.reason})"


def _describe(engine: Engine) -> dict[str, str]:
    return {"name": engine.name, "version": engine.version, "reason": engine.reason}


def _serve(service: Service, say: Callable[[str], None]) -> None:
    say(f"live page   http://127.0.0.1:{service.port}/performance/dashboard")
    say(f"serving on http://127.0.0.1:{service.port}/agents/1/conversations/1 until Ctrl-C")
    while service.alive:
        time.sleep(0.2)
    raise OSError("the service has ended")


def _to_stdout(line: str) -> None:
    print(line, flush=True)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
