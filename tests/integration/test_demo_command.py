"""`isp-perf demo` as a user runs it: real engines, a small load, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from http.client import HTTPConnection
from pathlib import Path

import pytest

from isp_perf.cli._service import free_port

MARK = "ISP_TEST_MARK"
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see all descendants")


def _start(mark, *arguments, **environ):
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from isp_perf.cli import main; sys.exit(main())", "demo", *arguments],
        env={**os.environ, MARK: mark, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _descendants(mark):
    """Command lines of all processes that inherited the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def _until(condition, seconds=40.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One small demo with --json: its exit code, output and the processes it left."""
    mark = uuid.uuid4().hex
    data = tmp_path_factory.mktemp("data")
    process = _start(mark, "--requests", "60", "--connections", "4", "--json", "--data", str(data))
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err, _descendants(mark) if Path("/proc/self/environ").exists() else []


def test_it_ends_well_and_leaves_no_process(demo):
    """The exit code is 0 and every process it started is gone."""
    code, _, err, left = demo
    assert code == 0, err
    assert left == []


def test_it_says_which_engines_it_chose_and_why(demo):
    """Both engines are named on stderr with a reason, so that --json leaves stdout to the object."""
    _, out, err, _ = demo
    lines = {line.split()[0]: line for line in err.splitlines()}
    assert "REDIS_URL" in lines["Redis"]
    assert "DATABASE_URL" in lines["database"]
    assert set(json.loads(out)["engines"]) == {"redis", "database"}


def test_both_runs_answered_the_same_requests(demo):
    """The load is the same for both, every request of it succeeded, and isp_perf sent far fewer queries."""
    values = json.loads(demo[1])
    assert values["load"] == {"requests": 60, "connections": 4, "seed": 1}
    off, on = values["off"], values["on"]
    assert off["failures"] == on["failures"] == 0
    assert off["database_queries"] > 1_000
    assert on["database_queries"] < off["database_queries"] / 3
    assert off["hit_ratio"] is None
    assert 0 < on["hit_ratio"] <= 1
    assert 0 < on["bytes_received"] <= 1.05 * off["bytes_received"]
    assert 0 < on["p50_seconds"] <= on["p99_seconds"]


def test_a_hit_beats_the_promise(demo):
    """A hit of the local level is at least 1,280 times faster than the database load it replaces."""
    hits = json.loads(demo[1])["hit"]
    assert set(hits) == {"inbox", "profile"}
    for figures in hits.values():
        assert figures["ratio"] == pytest.approx(figures["load_seconds"] / figures["hit_seconds"])
        assert figures["ratio"] > 1_280


@needs_proc
@pytest.mark.parametrize(
    ("way", "code", "moment"), [(signal.SIGTERM, 143, "_warden"), (signal.SIGKILL, -signal.SIGKILL, "uvicorn")]
)
def test_however_it_is_ended_nothing_is_left(tmp_path, way, code, moment):
    """SIGTERM and even SIGKILL in the middle end every process, and the folders go with them."""
    mark = uuid.uuid4().hex
    process = _start(mark, "--requests", "100000", TMPDIR=str(tmp_path))
    try:
        assert _until(lambda: any(moment in line for line in _descendants(mark)))
    finally:
        process.send_signal(way)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert _until(lambda: not _descendants(mark)), _descendants(mark)
    assert not list(tmp_path.glob("isp_perf-*"))


@needs_proc
def test_serve_goes_on_until_ctrl_c(tmp_path):
    """--serve, here on SQLite, answers on its port after the table, and Ctrl-C ends it with everything else."""
    mark, port = uuid.uuid4().hex, free_port()
    environ = {"TMPDIR": str(tmp_path), "DATABASE_URL": "sqlite:///not-ours.db"}
    process = _start(mark, "--requests", "20", "--serve", "--port", str(port), **environ)
    try:
        lines = iter(process.stdout.readline, "")
        assert any(f"serving on http://127.0.0.1:{port}/" in line for line in lines), process.stderr.read()
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/agents/1/conversations/1")
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        connection.request("GET", "/performance/dashboard", headers={"accept": "text/html"})
        answer = connection.getresponse()
        assert (answer.status, b"isp_perf live" in answer.read()) == (200, True)
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert _until(lambda: not _descendants(mark))
    assert not list(tmp_path.glob("isp_perf-*"))


def test_a_data_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    """--data below a file names the folder and the rule, and the exit code is 1."""
    (tmp_path / "file").write_text("no folder")
    process = _start("none", "--data", str(tmp_path / "file" / "data"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "must be a folder this account may write to" in err
    assert "Traceback" not in err + out
