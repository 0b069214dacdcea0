"""Totals over all workers of a server, with nothing to configure.

Each worker publishes its figures to a file of its own in the group's private folder, every second and whenever a
sibling asks. Whichever worker is scraped asks the others (a datagram to each one's socket), waits for them at most
50 ms in all, and adds everything up. What is not answered in time is taken as it was published last.
"""

import logging
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final, NamedTuple

from isp_perf.metrics._archive import READ_WITHIN_NS, Archive, lasting
from isp_perf.metrics._group import FOLDER_VARIABLE, group_folder, owner, sweep
from isp_perf.metrics._segment import Reading, SegmentReader, SegmentWriter, is_alive
from isp_perf.metrics._snapshot import Column, Merger, Snapshot, Spec

__all__ = ["WORKER_SPECS", "WorkerExchange", "join"]

WORKERS = Spec("isp_workers", "gauge", "Worker processes that are alive, this one included.")
AGE = Spec(
    "isp_worker_snapshot_age_seconds", "gauge", "Age of each worker's figures in this answer.", ("worker",), "max"
)
WORKER_SPECS = (WORKERS, AGE)
_INTERVAL: Final = 1.0  # seconds between publications nobody asked for
_PATIENCE_NS: Final = 50_000_000  # for all siblings together
_FIRST_PAUSE: Final = 0.0002  # seconds between looks whether the siblings have published
_LONGEST_PAUSE: Final = 0.002
_LONGEST_SOCKET_PATH: Final = 103  # bytes; 107 on Linux, 103 on macOS
_NANOSECONDS: Final = 1e9
_log = logging.getLogger("isp_perf.metrics")


class _Peer(NamedTuple):
    """One sibling's file as it was read."""

    worker: str
    alive: bool
    reading: Reading


class WorkerExchange:
    """One process's place among its siblings.

    Args:
        local: reads this process's figures.
        folder: the group's folder.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, local: Callable[[], Snapshot], folder: Path) -> None:
        self._local = local
        self._folder = folder
        self._lock = threading.Lock()
        epoch = secrets.token_hex(16)
        self._path = folder / f"{os.getpid()}-{epoch}.m"
        self._writer = SegmentWriter(self._path, epoch)
        self._reader = SegmentReader()
        self._archive = Archive(folder, self._reader)
        self._merge = Merger()
        self._last: dict[Path, Reading] = {}
        self._schema = b""
        self._closed = threading.Event()
        self._socket = _listen(self._path.with_suffix(".s"))
        self.publish()
        self._thread = threading.Thread(target=self._run, name="isp_perf metrics", daemon=True)
        self._thread.start()

    def publish(self) -> Snapshot:
        """Write this process's figures for its siblings and return them."""
        with self._lock:
            started = time.monotonic_ns()
            snapshot = self._local()
            if self._closed.is_set():
                return snapshot
            try:
                self._write(snapshot, started)
            except OSError as error:  # a full or vanished folder costs the siblings' view of us, nothing else
                _log.debug("publishing failed", exc_info=error)
            return snapshot

    def gather(self) -> Snapshot:
        """Return the totals over all workers, living and dead. Takes up to 50 ms."""
        began = time.monotonic_ns()
        while True:
            # Published before it is shown: a total that was seen once survives a kill of this process.
            mine = self.publish()
            listed = time.monotonic_ns()
            peers = self._peers(began)
            epochs, gone = self._archive.read()
            if time.monotonic_ns() - listed < READ_WITHIN_NS:
                break
        counted = [peer for peer in peers if peer.reading.epoch not in epochs]
        total = self._merge([gone, *map(_figures, counted), mine])
        self._archive.fold(self._folder / f"{peer.worker}.m" for peer in peers if not peer.alive)
        return Snapshot(total.columns | _about(counted), mine.time_ns, total.exemplars)

    def close(self) -> None:
        """Publish a last time, leave the group, and hand the figures over to the archive."""
        if self._closed.is_set():
            return
        self.publish()
        self._closed.set()
        with self._lock:
            self._writer.close()
        self._close_socket()
        self._path.with_suffix(".s").unlink(missing_ok=True)
        try:
            self._archive.fold([self._path])
        except OSError as error:
            _log.debug("leaving the group failed", exc_info=error)

    def abandon(self) -> None:
        """Let go of everything inherited, in a forked child: the parent's files and socket stay the parent's."""
        self._closed.set()
        self._writer.close()
        if self._socket is not None:
            self._socket.close()

    def _write(self, snapshot: Snapshot, started: int) -> None:
        if self._writer.missing():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writer.close()
        self._writer.publish(snapshot, started)
        schema = self._writer.encoder.schema
        if schema is not self._schema:
            self._schema = schema
            self._reader.adopt(schema, self._writer.encoder.layout())

    def _run(self) -> None:
        """Publish each second and whenever a sibling asks, until closed."""
        while not self._closed.is_set():
            if self._asked():
                self.publish()

    def _asked(self) -> bool:
        """Wait for a question or for the next second; return whether it is time to publish."""
        if self._socket is None:
            return not self._closed.wait(_INTERVAL)
        try:
            self._socket.recv(16)
        except TimeoutError:
            return True
        except OSError:
            return not self._closed.wait(_INTERVAL)
        return True

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _peers(self, began: int) -> list[_Peer]:
        """Return what every other worker's file says, as new as can be had in time."""
        paths = [path for path in self._folder.glob("*.m") if path != self._path]
        self._ask(paths, began)
        read = [peer for peer in map(self._peer, paths) if peer is not None]
        self._last = {path: reading for path, reading in self._last.items() if path in set(paths)}
        return read

    def _ask(self, paths: Iterable[Path], began: int) -> None:
        """Ask the workers behind ``paths`` to publish, and wait until all have or patience ends."""
        waiting = [path for path in paths if _question(path.with_suffix(".s"))]
        pause = _FIRST_PAUSE
        while waiting and time.monotonic_ns() - began < _PATIENCE_NS:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            waiting = [path for path in waiting if self._started(path) < began]

    def _started(self, path: Path) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return sys.maxsize
        try:
            return self._reader.started(fd)
        finally:
            os.close(fd)

    def _peer(self, path: Path) -> _Peer | None:
        """Return what one file says; ``None`` if it is gone (then the archive has it) or never said anything."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            before = self._last.get(path)
            reading = self._reader.read(fd, before) or before
            # A writer that just replaced its file let go of the old one, and lives.
            alive = is_alive(fd) or _replaced(fd, path)
        finally:
            os.close(fd)
        if reading is None:
            return None
        self._last[path] = reading
        return _Peer(path.stem, alive, reading)


def _replaced(fd: int, path: Path) -> bool:
    try:
        return os.fstat(fd).st_ino != path.stat().st_ino
    except OSError:
        return False


def _listen(path: Path) -> socket.socket | None:
    """Return a socket for the questions of siblings; ``None`` where its path would be too long."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        return None
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.settimeout(_INTERVAL)
    listening.bind(os.fspath(path))
    return listening


def _question(path: Path) -> bool:
    """Ask the worker behind a socket to publish; return whether it may have heard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        try:
            asking.sendto(b"?", os.fspath(path))
        except OSError:
            return False
    return True


def _figures(peer: _Peer) -> Snapshot:
    """Return what a sibling adds to the totals; of a dead one only what lasts."""
    return peer.reading.snapshot if peer.alive else lasting(peer.reading.snapshot)


def _about(peers: list[_Peer]) -> dict[str, Column]:
    """Return the gauges about the workers themselves."""
    now = time.monotonic_ns()
    living = [peer for peer in peers if peer.alive]
    ages = {peer.worker.partition("-")[0]: max(0, now - peer.reading.started) / _NANOSECONDS for peer in living}
    ages.setdefault(str(os.getpid()), 0.0)
    keys = sorted(ages)
    return {
        WORKERS.name: Column(WORKERS, [()], [len(living) + 1]),
        AGE.name: Column(AGE, [(key,) for key in keys], [ages[key] for key in keys]),
    }


def join(local: Callable[[], Snapshot]) -> WorkerExchange:
    """Join the group of this process's siblings; leave it when the process ends.

    Raises:
        OSError: there is no private folder to meet in.
    """
    folder = group_folder(os.environ)
    if not os.environ.get(FOLDER_VARIABLE):
        sweep(folder)
    exchange = WorkerExchange(local, folder)
    _at_exit(exchange, folder)
    return exchange


def _at_exit(exchange: WorkerExchange, folder: Path) -> None:
    """Have the exchange closed when this process ends, also where it is a child of ``multiprocessing``."""
    # atexit does not run in children of multiprocessing, whose own finalizers run in every kind of process.
    Finalize(None, _leave, args=(exchange, folder, os.getpid()), exitpriority=0)


def _leave(exchange: WorkerExchange, folder: Path, pid: int) -> None:
    exchange.close()
    alone = owner(os.environ) == pid and not os.environ.get(FOLDER_VARIABLE)
    if alone and not any(folder.glob("*.m")):
        shutil.rmtree(folder, ignore_errors=True)
