"""The commands that look at a running service, and those that change the cache it shares."""

import asyncio
import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from isp_perf.cache import CacheManager
from isp_perf.cli import main
from isp_perf.cli._remote import Remote
from services import Service

SERVICE = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from isp_perf.breaker import WHATSAPP_CIRCUIT_CONFIG, circuit_breaker
from isp_perf.cache import cached
from isp_perf.toolkit import Toolkit

@cached("square:{number}", ttl=60)
async def square(number: int) -> int:
    return number * number

@cached("never:{number}", ttl=60)
async def never_twice(number: int) -> int:
    return number

@circuit_breaker("whatsapp_api", WHATSAPP_CIRCUIT_CONFIG)
async def send(number: int) -> int:
    return number

numbers = iter(range(10**9))

async def page(request):
    await send(1)
    await never_twice(next(numbers))
    return JSONResponse({"square": await square(request.path_params["number"]), "text": "x" * 3000})

app = Toolkit.from_env().wrap(Starlette(routes=[Route("/squares/{number:int}", page)]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("cli"), SERVICE, workers=1)
    yield service.url
    service.stop()


@pytest.fixture(scope="module")
def loaded(url):
    """The service after a load of 200 requests, when its figures, which are kept for a second, know of it."""
    assert main(["bench", f"{url}/squares/3", "--requests", "200", "--connections", "4", "--json"]) == 0
    remote = Remote(url, [])
    deadline = time.monotonic() + 20
    while remote.performance()["requests"]["total"] < 200:
        assert time.monotonic() < deadline, "the figures do not tell of the load"
        time.sleep(0.05)
    return url


def test_bench_counts_what_it_sent(url, capsys):
    """The figures are those of the requests that were answered; failures are exit code 1."""
    assert main(["bench", f"{url}/squares/2?x=1", "--requests", "50", "--connections", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["failures"]) == (50, 0)
    assert 0 < found["p50_seconds"] <= found["p90_seconds"] <= found["p99_seconds"] <= found["max_seconds"]
    assert found["bytes_received"] > 50 * 100  # heads, and bodies in the coding a browser gets
    assert main(["bench", f"{url}/nowhere", "--requests", "3"]) == 1
    assert "3 failed" in capsys.readouterr().out


def test_top_prints_one_frame_without_a_terminal(loaded, capsys):
    """Into a pipe, or with --once, top prints the routes, keys and breakers once, without any escape sequence."""
    for arguments in (["--once"], []):
        assert main(["top", loaded, *arguments]) == 0
        shown = capsys.readouterr().out
        assert "GET /squares/{number}" in shown
        assert "square:{number}" in shown
        assert "whatsapp_api" in shown
        assert "\x1b" not in shown
    assert main(["top", f"{loaded}/metrics", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"]["total"] >= 200


def test_top_draws_until_ctrl_c_and_puts_the_terminal_back(loaded):
    """On a terminal top draws again and again on a second screen, and Ctrl-C gives the first one back."""
    ours, theirs = pty.openpty()
    code = "import sys; from isp_perf.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "top", loaded, "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = _read(ours, lambda text: text.count(b"/squares/{number}") >= 3)
    process.send_signal(2)
    shown += _read(ours, lambda text: b"\x1b[?1049l" in text)
    assert process.wait(20) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h")
    assert b"\x1b[32mclosed" in shown
    assert b"Traceback" not in shown


def _read(terminal, enough):
    """Return what a terminal shows until it is enough."""
    text, deadline = b"", time.monotonic() + 20
    while not enough(text) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            with contextlib.suppress(OSError):  # the other side has closed
                text += os.read(terminal, 65536)
    return text


def test_stats_tell_the_seeds_endpoints(loaded, capsys):
    """Four endpoints in a few lines, or as one JSON object."""
    assert main(["stats", loaded]) == 0
    shown = capsys.readouterr().out
    assert "health       healthy" in shown
    assert "whatsapp_api" in shown
    assert main(["stats", loaded, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"health", "cache_stats", "redis_health", "compression_stats", "circuit_breakers"}


def test_doctor_finds_the_key_that_is_never_asked_twice(loaded, capsys):
    """Of a running service the figures are judged: a key without hits is found, with its template and its count."""
    assert main(["doctor", loaded, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "key never:{number}" in {one["subject"] for one in findings}
    assert "key square:{number}" not in {one["subject"] for one in findings}


def test_a_report_is_one_file_that_needs_nothing(loaded, capsys, tmp_path):
    """The report holds plots and tables, and names no other file or host."""
    out = tmp_path / "report.html"
    assert main(["report", loaded, "--seconds", "1.2", "--out", str(out), "--json"]) == 0
    text = out.read_text("utf-8")
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "bytes": len(text.encode())}
    assert text.count('<svg class="plot"') >= 3
    assert "GET /squares/{number}" in text
    assert "<script" not in text
    assert "src=" not in text
    assert 'http-equiv="Content-Security-Policy"' in text


def test_a_report_of_a_demo_is_drawn_from_its_json(capsys, tmp_path):
    """What demo --json printed becomes bars; anything else is refused."""
    side = {
        "requests_per_second": 10.0,
        "p50_seconds": 0.1,
        "p99_seconds": 0.2,
        "database_queries": 5,
        "bytes_received": 9,
    }
    demo = {"off": side, "on": side, "hit": {"inbox": {"load_seconds": 0.01, "hit_seconds": 1e-6}}}
    (tmp_path / "demo.json").write_text(json.dumps(demo))
    out = tmp_path / "report.html"
    assert main(["report", "--demo", str(tmp_path / "demo.json"), "--out", str(out)]) == 0
    assert out.read_text("utf-8").count("<svg") == 6
    (tmp_path / "other.json").write_text("[]")
    assert main(["report", "--demo", str(tmp_path / "other.json")]) == 2
    assert main(["report"]) == 2
    assert "--demo" in capsys.readouterr().err


@pytest.fixture
def shared(redis_url, monkeypatch, tmp_path):
    """The environment of a service with Redis, and a module with something to warm."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("ISP_PERF_NAMESPACE", "clitest")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "warm_sources.py").write_text(
        "async def load(): return {'plans': ['fibra']}\n"
        "def broken(): raise ValueError('secret')\n"
        "good = {'popular:1': {'fetch_func': load, 'ttl': 3600}, 'popular:2': {'fetch_func': load}}\n"
        "def bad(): return {**good, 'popular:3': {'fetch_func': broken}}\n"
        "number = 7\n"
    )
    yield redis_url
    sys.modules.pop("warm_sources", None)


def _keys(url):
    """Return how many values of the namespace Redis holds."""
    import redis

    with redis.Redis.from_url(url) as client:
        return sum(1 for _ in client.scan_iter("clitest:1:popular:*"))


async def _read_by_another(url):
    """Return what another process of the service finds under a key."""
    async with CacheManager("another", redis=url, namespace="clitest") as manager:
        return await manager.get("popular:1")


def test_warm_fills_and_invalidate_empties_the_shared_cache(shared, capsys):
    """What warm loads is in Redis for every worker; keys, patterns and --all remove it there."""
    assert main(["warm", "warm_sources:good", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loaded"] == ["popular:1", "popular:2"]
    assert _keys(shared) == 2
    assert main(["invalidate", "popular:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "keys": 1,
        "tags": 0,
        "patterns": 0,
        "all": False,
        "delivered": True,
    }
    assert _keys(shared) == 1
    assert main(["invalidate", "--pattern", "popular:*", "--tag", "plans"]) == 0
    assert "1 tags, 1 patterns" in capsys.readouterr().out
    assert _keys(shared) == 0
    assert main(["warm", "warm_sources:good"]) == 0
    assert asyncio.run(_read_by_another(shared)) == {"plans": ["fibra"]}
    assert main(["invalidate", "--all"]) == 0
    assert asyncio.run(_read_by_another(shared)) is None


def test_a_loader_that_fails_is_exit_code_1_and_the_rest_is_warm(shared, capsys):
    """Failures are named with their kind, not with their text."""
    assert main(["warm", "warm_sources:bad"]) == 1
    shown = capsys.readouterr().out
    assert "loaded 2 of 3" in shown
    assert "popular:3 (ValueError)" in shown
    assert "secret" not in shown
    assert main(["warm", "warm_sources:number"]) == 2
    assert "mapping" in capsys.readouterr().err


def test_a_redis_that_does_not_answer_is_exit_code_1(monkeypatch, tmp_path, capsys):
    """An invalidation that could not be delivered is said so; nothing to invalidate, and no Redis, are exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr("isp_perf.cli._invalidate._PATIENCE", 0.2)
    assert main(["invalidate", "user:1"]) == 1
    assert "not delivered" in capsys.readouterr().out
    assert main(["invalidate"]) == 2
    assert "--pattern" in capsys.readouterr().err
    monkeypatch.delenv("REDIS_URL")
    assert main(["invalidate", "user:1"]) == 2
    assert "REDIS_URL" in capsys.readouterr().err
