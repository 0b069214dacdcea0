"""A process that outlives nobody: it runs one command and ends it when its owner says so, or is gone.

An embedded server must not survive the program that started it, however that program ends; ``kill -9`` runs no exit
handler. So the command is started by a small process of its own, the warden, which holds one end of a pipe. When the
other end closes (the owner stopped it, left or was killed) the warden ends the command with everything the command
started, removes the folder and leaves. The same file is both sides, and needs the standard library only: it is run by
path, isolated from the environment.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Warden"]


class Warden:
    """The owner's side: a running command together with the folder it may write to.

    Args:
        command: program and arguments.
        folder: an existing folder of the owner's own; the command's working directory, holds its output in ``log``,
            and is removed when the command has ended.
        polite: the signal that asks the command to end.
        patience: seconds (>= 0) after which a command that goes on in spite of it is killed.
        user: account to run the command as; ``None`` for the owner's own. Needs the superuser.
        environ: environment of the command; ``None`` for the owner's own.

    Raises:
        OSError: the command cannot be started.
    """

    __slots__ = ("_last_words", "_process", "folder", "pid")

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        polite: signal.Signals = signal.SIGTERM,
        patience: float = 5.0,
        user: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._last_words = b""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(int(polite)), str(patience), str(folder), user or "", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal reaches the owner only, who then ends things in order
            env=environ,
        )
        line = self._process.stdout.readline().strip() if self._process.stdout else b""
        if not line.isdigit():
            self.stop()
            raise OSError(line.decode() or f"{command[0]} could not be started")
        self.pid = int(line)

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self._process.poll() is None

    def log(self) -> str:
        """Return the end of what the command wrote, at most 4,000 bytes; also after it has ended."""
        if self.alive:
            return _tail(self.folder).decode(errors="replace")
        if self._process.stdout and not self._process.stdout.closed:
            self._last_words = self._process.stdout.read()
            self._process.stdout.close()
        return self._last_words.decode(errors="replace")

    def stop(self) -> None:
        """End the command and remove its folder; calling it again does nothing."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed before; OSError: it has left already
            if self._process.stdin:
                # A byte as well as the closing: a forked child of the owner may hold the pipe open.
                self._process.stdin.write(b"!")
                self._process.stdin.close()
        self._process.wait()
        self.log()  # its last words are read, and the pipe they came through is closed


def _tail(folder: Path) -> bytes:
    """Return the end of the log in ``folder``; nothing once the folder is gone."""
    with contextlib.suppress(OSError):
        return (folder / "log").read_bytes()[-4000:]
    return b""


def _sweep(group: int) -> None:
    """Kill whatever is left of the command's process group."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def _end_when_told(child: subprocess.Popen[bytes], polite: int, patience: float) -> None:
    """Wait for the owner's word or its end, then end the command."""
    os.read(0, 1)
    with contextlib.suppress(OSError):
        child.send_signal(polite)
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        _sweep(child.pid)


def _start(folder: str, user: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, as ``user`` and with none of the owner's groups if one is named."""
    account = _account(user) if user else None
    with Path(folder, "log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            user=account and account[0],
            group=account and account[1],
            extra_groups=account and (),
            start_new_session=True,
        )


def _account(user: str) -> tuple[int, int]:
    import pwd  # not on Windows

    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def _guard(arguments: list[str]) -> int:
    """The warden's side: start, report the process id or the reason, wait for one of the two ends, clean up."""
    polite, patience, folder, user, *command = arguments
    try:
        child = _start(folder, user, command)
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        os.write(1, f"{type(error).__name__}: {error}\n".encode())
        shutil.rmtree(folder, ignore_errors=True)
        return 1
    with contextlib.suppress(OSError):  # the owner is gone already: the thread below will see it too
        os.write(1, f"{child.pid}\n".encode())
    threading.Thread(target=_end_when_told, args=(child, int(polite), float(patience)), daemon=True).start()
    code = child.wait()
    _sweep(child.pid)
    with contextlib.suppress(OSError):
        os.write(1, _tail(Path(folder)))  # less than a pipe holds, so it never waits for a reader
    shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No interpreter shutdown: the thread may still be reading from the pipe.
    os._exit(_guard(sys.argv[1:]) & 0xFF)
