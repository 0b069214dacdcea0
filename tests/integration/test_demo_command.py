"""`isp-perf demo` as a user runs it: real engines, a small load, and nothing left behind.

Two whole runs serve most tests and go side by side: one with everything that is there and --serve, one on SQLite.
"""

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

from services import free_port

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


def _left(mark, folder):
    """Command lines and folders that a run has left behind."""
    return [*(_descendants(mark) if Path("/proc/self/environ").exists() else ()), *folder.glob("isp_perf-*")]


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
        time.sleep(0.05)
    return True


class Run:
    """A demo, and what it did.

    Args:
        folder: the temporary folder it is given.
        arguments: its options.
        environ: further environment variables.
    """

    def __init__(self, folder, *arguments, **environ):
        self.mark, self.folder = uuid.uuid4().hex, folder
        self.process = _start(self.mark, *arguments, TMPDIR=str(folder), **environ)

    def end(self, way=None):
        """Wait for its end, after a signal if one is given, and note its exit code, words and what it left."""
        if way is not None:
            self.process.send_signal(way)
        self.out, err = self.process.communicate(timeout=100)
        self.err = "".join(self.said) + err
        self.code = self.process.returncode
        self.left = _left(self.mark, self.folder)

    said = ()

    def wait_for(self, word):
        """Read its progress until a line holds ``word``."""
        self.said = []
        for line in iter(self.process.stderr.readline, ""):
            self.said.append(line)
            if word in line:
                return
        pytest.fail("".join(self.said))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The two runs: one still serving, and one on SQLite that goes on to its end."""
    options = ["--requests", "24", "--connections", "4", "--json", "--serve", "--port", str(free_port())]
    serving = Run(tmp_path_factory.mktemp("serving"), *options)
    data = tmp_path_factory.mktemp("data") / "new"
    short = ["--requests", "6", "--connections", "2", "--data", str(data)]
    ending = Run(tmp_path_factory.mktemp("ending"), *short, DATABASE_URL="sqlite:///not-ours.db")
    yield serving, ending
    for run in (serving, ending):
        run.process.kill()
        run.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def demo(runs):
    """The run that serves: it has been asked for two pages and ended with Ctrl-C."""
    run, _ = runs
    run.wait_for("serving on")
    port = int(run.said[-1].split(":")[2].split("/")[0])
    run.pages = [_page(port, "/agents/1/conversations/1"), _page(port, "/performance/dashboard")]
    run.end(signal.SIGINT)
    return run


def _page(port, path):
    """Return status and body of a page, as a browser asks for it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"accept": "text/html"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_serve_goes_on_until_ctrl_c(demo):
    """--serve answers on its port after the figures, and Ctrl-C ends it with everything else."""
    (inbox, conversations), (page, html) = demo.pages
    assert (inbox, page) == (200, 200)
    assert conversations
    assert b"isp_perf live" in html
    assert demo.code == 130, demo.err
    assert "Traceback" not in demo.err
    assert demo.left == []


def test_it_ends_well_and_leaves_nothing(runs):
    """Without --serve the table is printed, the exit code is 0, and every process and folder it made is gone."""
    _, run = runs
    run.end()
    assert run.code == 0, run.err
    assert run.left == []
    assert "isp_perf off" in run.out
    assert "database    SQLite" in run.out


def test_it_says_which_engines_it_chose_and_why(demo):
    """Both engines are named on stderr with a reason, so that --json leaves stdout to the object."""
    lines = {line.split()[0]: line for line in demo.err.splitlines()}
    assert "REDIS_URL" in lines["Redis"]
    assert "DATABASE_URL" in lines["database"]
    assert set(json.loads(demo.out)["engines"]) == {"redis", "database"}


def test_both_runs_answered_the_same_requests(demo):
    """The load is the same for both, every request of it succeeded, and isp_perf sent far fewer queries."""
    values = json.loads(demo.out)
    assert values["load"] == {"requests": 24, "connections": 4, "seed": 1}
    off, on = values["off"], values["on"]
    assert off["failures"] == on["failures"] == 0
    assert off["database_queries"] > 500
    assert on["database_queries"] < off["database_queries"] / 3
    assert off["hit_ratio"] is None
    assert 0 < on["hit_ratio"] <= 1
    assert 0 < on["bytes_received"] <= 1.05 * off["bytes_received"]
    assert 0 < on["p50_seconds"] <= on["p99_seconds"]


def test_a_hit_beats_the_promise(demo):
    """A hit of the local level is at least 1,280 times faster than the database load it replaces."""
    hits = json.loads(demo.out)["hit"]
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
    run = Run(tmp_path, "--requests", "100000")
    try:
        assert _until(lambda: any(moment in line for line in _descendants(run.mark)))
    finally:
        run.end(way)
    assert run.code == code, run.err
    assert _until(lambda: not _left(run.mark, tmp_path)), _left(run.mark, tmp_path)


def test_a_data_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    """--data below a file names the option, the folder and the rule before anything is started; the exit code is 2."""
    (tmp_path / "file").write_text("no folder")
    run = Run(tmp_path, "--data", str(tmp_path / "file" / "data"))
    run.end()
    assert run.code == 2
    assert "--data" in run.err
    assert "must be a folder this account may write to" in run.err
    assert "Traceback" not in run.err + run.out
    assert "Redis" not in run.out
