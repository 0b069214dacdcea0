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


class Server:
    """uvicorn with workers, and a client that counts what it was answered."""

    def __init__(self, folder, workers):
        (folder / "counted_service.py").write_text(APPLICATION)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "counted_service:app", "--workers", str(workers)]
        command += ["--port", self.url.rpartition(":")[2], "--log-level", "warning"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
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

    def stop(self):
        self.process.terminate()
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
    """Exact from every worker after the last answer; over kill -9 the total only grows and keeps what was shown."""
    while len(server.workers) < 3:
        server.job()
    for _ in range(10):
        assert server.total() == server.answered
    assert server.total('isp_http_requests_total{method="GET",route="/job",status="200"}') == server.answered
    shown = []
    for _ in range(3):
        os.kill(random.choice(sorted(server.workers)), signal.SIGKILL)
        server.workers.clear()
        lost_at_most = server.answered
        while len(server.workers) < 3:
            server.job()
            shown.append(server.total())
        assert server.total() <= server.answered
        assert server.total() >= server.answered - lost_at_most
    assert shown == sorted(shown)
    assert shown[-1] == server.answered
    assert server.total("isp_workers") == 3


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
