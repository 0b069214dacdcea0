"""Real servers with several workers: the totals are the client's own count, whichever worker answers."""

import http.client
import os
import random
import re
import signal
import textwrap
import time

import pytest

from services import UVICORN, Service, eventually

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

OTHER_SERVERS = {
    "gunicorn": "gunicorn {app} -k asgi -w {workers} -b 127.0.0.1:{port} --log-level error",
    "gunicorn, preloaded": "gunicorn {app} --preload -k asgi -w {workers} -b 127.0.0.1:{port} --log-level error",
    "hypercorn": "hypercorn {app} -w {workers} -b 127.0.0.1:{port} --log-level error",
    "granian": "granian {app} --interface asgi --workers {workers} --host 127.0.0.1 --port {port} --log-level error",
}


class Counted:
    """A server, and a client that counts what it was answered."""

    def __init__(self, folder, workers, command=UVICORN):
        self.service = Service(folder, APPLICATION, command=command, workers=workers, ready="/none")
        self.answered = 0
        self.workers = set()
        self.meet(workers)

    def job(self):
        try:
            status, _, body = self.service.get("/job")
        except (OSError, http.client.HTTPException):  # a worker that was killed
            return
        assert status == 200
        self.answered += 1
        self.workers.add(int(body))

    def total(self, name="jobs_total"):
        return float(re.search(rf"^{re.escape(name)} (\S+)$", self.service.text("/metrics/"), re.MULTILINE)[1])

    def meet(self, workers):
        """Ask until so many workers have answered."""
        deadline = time.monotonic() + 60
        while len(self.workers) < workers:
            assert time.monotonic() < deadline, f"only {self.workers} answered"
            self.job()

    def settle(self):
        """Wait until every worker has published."""
        eventually(self.total, self.answered)

    def survive(self, kills, workers=3):
        """Kill random workers one after another; return the totals shown meanwhile, and how many answers may be lost.

        Those are the answers that were not in the total shown before the last kill: nothing that was shown is lost.
        """
        shown, hidden = [], 0
        for _ in range(kills):
            shown.append(self.total())
            hidden = self.answered - shown[-1]
            os.kill(random.choice(sorted(self.workers)), signal.SIGKILL)
            self.workers.clear()
            deadline = time.monotonic() + 60
            while len(self.workers) < workers:
                assert time.monotonic() < deadline, "the killed worker was not replaced"
                self.job()
                shown.append(self.total())
        return shown, hidden

    def stop(self):
        self.service.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Counted(tmp_path_factory.mktemp("counted"), workers=3)
    yield running
    running.stop()


def _goes_only_up(server, kills):
    """Over ``kills`` the total shown never falls, and at the end it lacks at most what was never shown."""
    shown, hidden = server.survive(kills)
    assert shown == sorted(shown)
    eventually(lambda: server.answered - hidden <= server.total() <= server.answered, True)
    eventually(lambda: server.total("isp_workers"), 3)


def test_totals_are_the_clients_count(server):
    """After the last answer every worker that is asked gives the exact count, of the application's own and ours."""
    server.settle()
    for _ in range(10):
        assert server.total() == server.answered
    assert server.total('isp_http_requests_total{method="GET",route="/job",status="200"}') == server.answered


def test_two_servers_of_one_user_never_meet(server, tmp_path):
    """A second server, started by the same user, has its own totals."""
    other = Counted(tmp_path, workers=2)
    try:
        other.settle()
        server.settle()
    finally:
        other.stop()


def test_kills_take_nothing_back_that_was_shown(server):
    """Over kill -9 the total only grows, and loses nothing that was ever shown."""
    server.settle()
    _goes_only_up(server, kills=3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills_take_nothing_back_that_was_shown(tmp_path):
    """Over a hundred random kill -9 the total only grows, and loses nothing that was ever shown."""
    server = Counted(tmp_path, workers=3)
    try:
        _goes_only_up(server, kills=100)
    finally:
        server.stop()


@pytest.mark.parametrize("name", OTHER_SERVERS)
def test_every_server_gives_the_clients_count(name, tmp_path):
    """Gunicorn (preloaded or not), hypercorn and granian need no setting: every worker answers with the exact total."""
    pytest.importorskip(name.partition(",")[0], reason=f"{name} is not installed here")
    server = Counted(tmp_path, workers=2, command=OTHER_SERVERS[name])
    try:
        server.settle()
        for _ in range(5):
            assert server.total() == server.answered
        assert server.total("isp_workers") == 2
    finally:
        server.stop()
