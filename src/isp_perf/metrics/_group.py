"""Which processes belong together, and the private folder they share.

The workers of one server have one parent: the process that ``multiprocessing`` started them from (uvicorn, granian,
hypercorn), or gunicorn's master. That owner's process id and start time name the folder, so two applications of one
user never meet, and a process id that the system uses again does not bring old figures back.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["FOLDER_VARIABLE", "group_folder", "has_siblings", "owner", "start_time", "sweep"]

FOLDER_VARIABLE: Final = "ISP_PERF_DIR"
_SHARED_MEMORY: Final = Path("/dev") / "shm"
_START_TIME_FIELD: Final = 19  # index in /proc/<pid>/stat, counted after the command's closing parenthesis


def owner(environ: Mapping[str, str]) -> int:
    """Return the process id that the workers of one program have in common."""
    process = sys.modules.get("multiprocessing.process")
    parent = process.parent_process() if process is not None else None
    if parent is not None and parent.pid is not None:
        return int(parent.pid)
    if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        return os.getppid()
    return os.getpid()


def has_siblings(environ: Mapping[str, str]) -> bool:
    """Return whether this process is one of several workers, as far as it can know."""
    return owner(environ) != os.getpid()


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if there is no such process.

    Where there is no ``/proc`` (macOS) every living process answers "0": its folder is named by the id alone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "0" if not Path("/proc/self").exists() and _exists(pid) else ""
    return stat.rpartition(")")[2].split()[_START_TIME_FIELD]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def group_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of this group of workers, made if it is not there.

    ``ISP_PERF_DIR`` names it outright; else it lies in shared memory, or in the folder for temporary files.

    Raises:
        OSError: no place can be written to by this user alone.
    """
    given = environ.get(FOLDER_VARIABLE, "")
    if given:
        folder = Path(given)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    pid = owner(environ)
    folder = _base() / f"{pid}-{start_time(pid)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _base() -> Path:
    """Return the folder that holds the groups of this user."""
    refused: OSError = FileNotFoundError("no folder for shared figures")
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        try:
            return _private(place / f"isp_perf-{os.getuid()}")
        except OSError as error:
            refused = error
    raise refused


def _private(folder: Path) -> Path:
    """Return ``folder``, made if needed; refuse one that anybody else owns or may enter."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
    return folder


def sweep(folder: Path) -> None:
    """Remove the folders beside ``folder`` whose owner is gone and whose files nobody holds."""
    for other in _groups(folder.parent):
        pid, _, started = other.name.partition("-")
        if other == folder or (pid.isdigit() and start_time(int(pid)) == started):
            continue
        if not any(_held(path) for path in other.glob("*.m")):
            shutil.rmtree(other, ignore_errors=True)


def _groups(base: Path) -> Iterator[Path]:
    if not base.name.startswith("isp_perf-"):
        return iter(())
    return (path for path in base.iterdir() if path.is_dir())


def _held(path: Path) -> bool:
    from isp_perf.metrics._segment import is_alive

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_alive(fd)
    finally:
        os.close(fd)
