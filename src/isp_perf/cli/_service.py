"""The example service as a process of its own, with or without isp_perf, ended whenever the command ends."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import isp_perf
from isp_perf.errors import ConfigurationError
from isp_perf.testing._warden import Warden

__all__ = ["Service", "example_folder", "free_port", "must_be_free", "must_have_packages", "run_python"]

_NEEDED = ("aiosqlite", "asyncpg", "greenlet", "starlette", "uvicorn")
_START_TIMEOUT = 60.0  # seconds until the service answers; it usually takes 2
_SETTINGS = ("REDIS_URL", "REDIS_CLUSTER_NODES", "REDIS_SENTINELS", "DATABASE_URL")


def must_have_packages() -> None:
    """Raise ``ConfigurationError`` if the packages of the ``demo`` extra are not installed."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        rule = "the demo needs packages that are not installed"
        raise ConfigurationError("packages", ", ".join(absent), rule, "pip install 'isp-perf[demo]'")


def example_folder() -> Path:
    """Return the folder of the support service: beside the package in a wheel, in examples/ in a clone."""
    package = Path(isp_perf.__file__).resolve().parent
    for folder in (package / "_examples" / "support", package.parent.parent / "examples" / "support"):
        if (folder / "main.py").is_file():
            return folder
    raise OSError(f"the example service is neither inside {package} nor in examples/ of a clone")


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def must_be_free(port: int) -> None:
    """Raise ``ConfigurationError`` if 127.0.0.1:``port`` cannot be listened at."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            rule = f"must be free on 127.0.0.1 ({error.strerror})"
            raise ConfigurationError("--port", port, rule, "choose another one") from error


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the process's environment with our settings replaced by ``extra``, so that no run depends on the shell."""
    kept = {key: value for key, value in os.environ.items() if not (key in _SETTINGS or key.startswith("ISP_PERF_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **extra}


def run_python(arguments: list[str], settings: Mapping[str, str]) -> str:
    """Run Python in the example's folder to its end, its stderr shown, and return what it printed.

    Raises:
        OSError: it ended with another exit code than 0.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=example_folder(),
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{' '.join(arguments)} ended with exit code {done.returncode}")
    return done.stdout


class Service:
    """A running service; leaving the ``with`` block ends it.

    Args:
        settings: its environment variables on top of a clean environment.
        port: port on 127.0.0.1.
        workers: number of worker processes.

    Raises:
        OSError: it does not answer; the message holds its own last words.
    """

    def __init__(self, settings: Mapping[str, str], *, port: int, workers: int = 1) -> None:
        self.port = port
        command = [sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(example_folder())]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        command += ["--log-level", "warning", "--no-access-log"]
        self._warden = Warden(
            command, Path(tempfile.mkdtemp(prefix="isp_perf-")), polite=signal.SIGTERM, environ=environment(settings)
        )
        try:
            self._wait()
        except BaseException:
            self._warden.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while self._warden.alive and time.monotonic() < deadline:
            try:
                self.get("/queries")
            except OSError:
                time.sleep(0.05)
            else:
                return
        words = [line for line in self._warden.log().splitlines() if line.strip()]
        raise OSError("the service did not start: " + (" | ".join(words[-3:]) or "no answer, no word"))

    @property
    def alive(self) -> bool:
        """Whether the service still runs."""
        return self._warden.alive

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object that ``path`` answers with; an empty one if there is no such page."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return {} if answer.status == HTTPStatus.NOT_FOUND else dict(json.loads(body))
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._warden.stop()
