"""The live page of a real server with two workers: the first figures at once, then a stream, for this machine only."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import textwrap
import time

import pytest

SERVICE = textwrap.dedent("""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from isp_perf.breaker import circuit_breaker, WHATSAPP_CIRCUIT_CONFIG
    from isp_perf.cache import cached
    from isp_perf.toolkit import Toolkit

    @cached("square:{number}", ttl=60)
    async def square(number: int) -> int:
        return number * number

    @circuit_breaker("whatsapp_api", WHATSAPP_CIRCUIT_CONFIG)
    async def send(number: int) -> int:
        return number

    async def page(request):
        number = request.path_params["number"]
        await send(number)
        return JSONResponse({"square": await square(number), "text": "x" * 3000})

    async def figures():
        return {"total_conversations": 1500, "active_conversations": 45, "messages_today": 3200}

    app = Toolkit.from_env().wrap(Starlette(routes=[Route("/squares/{number:int}", page)]), dashboard=figures)
""")
PATH = "/performance/dashboard"


class Server:
    """One running service."""

    def __init__(self, folder):
        (folder / "live_service.py").write_text(SERVICE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "live_service:app", "--workers", "2", "--port", str(self.port)]
        self.process = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get("/health/live")
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.process.kill()
                    self.process.wait()
                    raise
                time.sleep(0.05)

    def open(self, path, **headers):
        """Return the answer, still open."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection, connection.getresponse()

    def get(self, path, **headers):
        """Return status, headers and body."""
        connection, answer = self.open(path, **headers)
        try:
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("live"))
    yield running
    running.process.terminate()
    running.process.wait(30)


def test_the_first_figures_are_there_within_a_second(server):
    """A browser's request is answered in less than a second with a small page that holds the figures."""
    for number in range(9):
        assert server.get(f"/squares/{number % 3}")[0] == 200
    body, deadline = b"", time.monotonic() + 10
    while b"/squares/{number}" not in body and time.monotonic() < deadline:  # figures may be a second old
        began = time.monotonic()
        status, headers, body = server.get(PATH, accept="text/html")
        assert (status, time.monotonic() - began < 1.0) == (200, True)
    assert len(body) <= 40_000
    assert "script-src 'sha256-" in headers["content-security-policy"]
    assert b"/squares/{number}" in body
    assert b"square:{number}" in body
    assert b"1,500" in body


def test_for_everybody_else_it_is_the_seeds_json(server):
    """Programs such as curl get the seed's object, with the page's figures beside it on this machine."""
    _, headers, body = server.get(PATH, accept="*/*")
    answer = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert answer["dashboard_stats"]["total_conversations"] == 1500
    assert answer["performance"]["workers"]
    assert "performance" not in json.loads(server.get(PATH, x_forwarded_for="203.0.113.1")[2])


def test_through_a_proxy_there_is_no_page(server):
    """A request that was forwarded, or that names another host, is refused though it comes from this machine."""
    assert server.get(PATH, accept="text/html", x_forwarded_for="203.0.113.1")[0] == 403
    assert server.get(PATH, accept="text/html", host="rebound.example")[0] == 403


def test_the_stream_brings_the_changes(server):
    """The stream begins with all cards, goes on with changed figures, is not compressed, and ends by itself."""
    connection, answer = server.open(PATH, accept="text/event-stream", accept_encoding="gzip, br")
    began = time.monotonic()
    with contextlib.closing(connection):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers
        assert set(_event(answer)["cards"]) >= {"now", "saved", "routes", "keys", "breakers"}
        server.get("/squares/1")
        assert any("cells" in _event(answer) for _ in range(8))
    assert time.monotonic() - began < 20


def test_an_open_page_does_not_keep_the_server_from_ending(tmp_path):
    """With a stream open the server stops within the stream's time, without being killed."""
    server = Server(tmp_path)
    connection, answer = server.open(PATH, accept="text/event-stream")
    _event(answer)
    with contextlib.closing(connection):
        server.process.terminate()
        assert server.process.wait(25) in {0, -15}


def _event(answer):
    """Return the data of the next event."""
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    return json.loads(line[6:])
