"""Real servers with several workers: the totals are the client's own count, whichever worker answers."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import httpx
import pytest

APPLICATION = textwrap.dedent("""
    import os
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route
    from isp_perf.metrics import MetricsMiddleware, app as metrics_app, counter

    JOBS = counter("jobs", "Jobs.")

    async def job(request):
        JOBS.n += 1
        return PlainTextResponse(str(os.getpid()))

    app = MetricsMiddleware(Starlette(routes=[Route("/job", job), Mount("/metrics", metrics_app())]))
""")


SERVERS = {
    "uvicorn": "uvicorn counted_service:app --workers {workers} --port {port} --log-level warning",
    "gunicorn": "gunicorn counted_service:app -k asgi -w {workers} -b 127.0.0.1:{port} --log-level error",
    "gunicorn, preloaded": "gunicorn counted_service:app --preload -k asgi -w {workers} -b 127.0.0.1:{port}"
    " --log-level error",
    "hypercorn": "hypercorn counted_service:app -w {workers} -b 127.0.0.1:{port} --log-level error",
    "granian": "granian counted_service:app --interface asgi --workers {workers} --host 127.0.0.1 --port {port}"
    " --log-level error",
}


class Server:
    """A server with workers, and a client that counts what it was answered."""

    def __init__(self, folder, workers, name="uvicorn"):
        (folder / "counted_service.py").write_text(APPLICATION)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        line = SERVERS[name].format(workers=workers, port=self.url.rpartition(":")[2])
        environ = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", *line.split()]
        self.process = subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.DEVNULL)
        self.answered = 0
        self.workers = set()

    def wait(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.job():
                return
            time.sleep(0.05)
        pytest.fail("the server did not start")

    def job(self):
        try:
            answer = httpx.get(f"{self.url}/job", timeout=5)
        except httpx.HTTPError:
            return False
        self.answered += 1
        self.workers.add(int(answer.text))
        return True

    def total(self, name="jobs_total"):
        text = httpx.get(f"{self.url}/metrics/", timeout=5).text
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    def meet(self, workers):
        """Ask until so many workers have answered."""
        deadline = time.monotonic() + 60
        while len(self.workers) < workers:
            assert time.monotonic() < deadline, f"only {self.workers} answered"
            self.job()

    def settle(self, total):
        """Wait until every worker has published: a busy machine may take longer than a scrape waits."""
        deadline = time.monotonic() + 10
        while self.total() != total:
            assert time.monotonic() < deadline, f"the total is {self.total()}, not {total}"

    def survive(self, kills, workers=3, *, settled=True):
        """Kill random workers one after another and return the totals that were shown meanwhile."""
        shown = []
        for _ in range(kills):
            if settled:
                self.settle(self.answered)
            os.kill(random.choice(sorted(self.workers)), signal.SIGKILL)
            self.workers.clear()
            deadline = time.monotonic() + 60
            while len(self.workers) < workers:
                assert time.monotonic() < deadline, "the killed worker was not replaced"
                self.job()
                shown.append(self.total())
        return shown

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path, workers=3)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def test_totals_are_the_clients_count_and_never_go_back(server):
    """Exact from every worker after the last answer; over kill -9 the total only grows and keeps what was published."""
    server.meet(3)
    server.settle(server.answered)
    for _ in range(10):
        assert server.total() == server.answered
    assert server.total('isp_http_requests_total{method="GET",route="/job",status="200"}') == server.answered
    shown = server.survive(kills=3)
    assert shown == sorted(shown)
    server.settle(server.answered)
    assert server.total("isp_workers") == 3


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills_take_nothing_back(server):
    """Over a hundred kill -9 the total never falls; each loses at most the requests not yet published."""
    server.meet(3)
    shown = server.survive(kills=50)
    assert shown == sorted(shown)
    server.settle(server.answered)
    shown = server.survive(kills=50, settled=False)
    assert shown == sorted(shown)
    assert server.answered - 50 <= shown[-1] <= server.answered
    assert server.total("isp_workers") == 3


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "uvicorn"])
def test_every_server_gives_the_clients_count(name, tmp_path):
    """Gunicorn (preloaded or not), hypercorn and granian need no setting: every worker answers with the exact total."""
    pytest.importorskip(name.partition(",")[0], reason=f"{name} is not installed here")
    server = Server(tmp_path, workers=2, name=name)
    try:
        server.wait()
        server.meet(2)
        server.settle(server.answered)
        for _ in range(5):
            assert server.total() == server.answered
        assert server.total("isp_workers") == 2
    finally:
        server.stop()


def test_two_servers_of_one_user_never_meet(server, tmp_path):
    """A second server, started from the same place by the same user, has its own totals."""
    other = Server(tmp_path, workers=2)
    try:
        other.wait()
        for _ in range(5):
            server.job()
        assert server.total() == server.answered
        assert other.total() == other.answered
    finally:
        other.stop()
