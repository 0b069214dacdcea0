"""Real servers of small applications, each in processes of its own, and a client that opens a connection a question."""

import http.client
import json
import os
import socket
import subprocess
import sys
import textwrap
import time

STARTS_WITHIN = 60  # seconds; a busy machine imports slowly

UVICORN = "uvicorn {app} --workers {workers} --port {port} --log-level warning"

SQUARES = textwrap.dedent("""
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
"""An application in the two lines of the toolkit, with a cached function, a breaker and figures of its own."""


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(ask, expected):
    """Ask until the answer is the expected one: a worker of a busy machine may publish later than a scrape waits."""
    deadline = time.monotonic() + 20
    while (answer := ask()) != expected:
        assert time.monotonic() < deadline, f"still {answer}, not {expected}"


class Service:
    """A running server of an application.

    Args:
        folder: an empty folder for its source.
        source: the module that defines ``app``.
        command: how the server is started, after ``python -m``.
        workers: its worker processes.
        ready: the path that is asked until it answers.
    """

    def __init__(self, folder, source, *, command=UVICORN, workers=2, ready="/health/live"):
        (folder / "served.py").write_text(source)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        line = command.format(app="served:app", workers=workers, port=self.port)
        environ = os.environ | {"PYTHONPATH": str(folder)}
        self.process = subprocess.Popen([sys.executable, "-m", *line.split()], cwd=folder, env=environ)
        try:
            self._wait(ready)
        except BaseException:
            self.stop()
            raise

    def open(self, path, **headers):
        """Return the connection and the answer, still to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection, connection.getresponse()

    def get(self, path, **headers):
        """Return status, headers and body."""
        connection, answer = self.open(path, **headers)
        try:
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def text(self, path):
        """Return the body as text."""
        return self.get(path)[2].decode()

    def json(self, path):
        """Return the body as what it says in JSON."""
        return json.loads(self.get(path)[2])

    def stop(self):
        """End the server and wait until it is gone."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)

    def _wait(self, ready):
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                self.get(ready)
                return
            except (OSError, http.client.HTTPException):
                code = self.process.poll()
                assert code is None, f"the server ended with {code}"
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.05)
