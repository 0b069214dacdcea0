"""What the workers that are gone had counted.

A dead worker's file is folded into the archive: added up, written aside, renamed over the old archive, and only then
removed. The archive names the epochs it holds. Two races follow from reading several files, and both are closed here
and in ``_workers``: a reader takes the workers' files first and the archive last, so a file that vanished in between
is in the archive for certain; and it leaves out every file whose epoch the archive names, so nothing is added twice.
Epochs are forgotten a minute after their file is gone; a reader that was stopped for longer starts again.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from isp_perf.metrics._segment import Encoder, SegmentReader, decode, is_alive, read_schema
from isp_perf.metrics._snapshot import Snapshot, merge_snapshots

__all__ = ["READ_WITHIN_NS", "Archive", "lasting"]

READ_WITHIN_NS: Final = 30_000_000_000  # a reader that took longer between files and archive reads again
_EPOCHS_KEPT_NS: Final = 2 * READ_WITHIN_NS
_MAGIC: Final = b"ISPARCH1"
_LENGTH: Final = 8


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without its gauges: what is left of a process that is gone."""
    columns = {name: column for name, column in snapshot.columns.items() if column.spec.kind != "gauge"}
    return Snapshot(columns, snapshot.time_ns, snapshot.exemplars)


class Archive:
    """The totals of a group's dead workers, in one file of its folder.

    Args:
        folder: the group's folder.
        reader: reads the workers' files.
    """

    def __init__(self, folder: Path, reader: SegmentReader) -> None:
        self._folder = folder
        self._path = folder / "archive"
        self._reader = reader
        self._kept: tuple[tuple[int, int], dict[str, int], Snapshot] | None = None

    def read(self) -> tuple[dict[str, int], Snapshot]:
        """Return the epochs the archive holds, with the moment each was folded, and their totals."""
        try:
            status = self._path.stat()
            place = (status.st_ino, status.st_mtime_ns)
            if self._kept is None or self._kept[0] != place:
                self._kept = (place, *_parsed(self._path.read_bytes()))
        except FileNotFoundError:
            return {}, Snapshot({})
        return self._kept[1], self._kept[2]

    def fold(self, paths: Iterable[Path]) -> None:
        """Add the files of dead workers to the archive and remove them; does nothing while somebody else folds."""
        with self._locked() as mine:
            if not mine:
                return
            epochs, totals = self.read()
            epochs = dict(epochs)
            parts = [totals]
            dead = [path for path in paths if self._take(path, epochs, parts)]
            if not dead:
                return
            self._write(_recent(epochs, self._folder), merge_snapshots(parts))
            for path in dead:
                path.with_suffix(".s").unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _take(self, path: Path, epochs: dict[str, int], parts: list[Snapshot]) -> bool:
        """Add one file's figures to ``parts`` if its writer is dead; return whether the file may go."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # A writer that just replaced its file let go of this one, but not of its name.
            if is_alive(fd) or os.fstat(fd).st_ino != path.stat().st_ino:
                return False
            reading = self._reader.read(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        if reading is not None and reading.epoch not in epochs:
            epochs[reading.epoch] = time.monotonic_ns()
            parts.append(lasting(reading.snapshot))
        return True

    def _write(self, epochs: dict[str, int], totals: Snapshot) -> None:
        encoder = Encoder()
        values = encoder.encode(totals)
        meta = json.dumps({"epochs": epochs, "time_ns": totals.time_ns}).encode()
        lengths = b"".join(len(part).to_bytes(_LENGTH, "little") for part in (meta, encoder.schema))
        aside = self._path.with_suffix(".new")
        aside.write_bytes(_MAGIC + lengths + meta + encoder.schema + values)
        aside.rename(self._path)

    @contextmanager
    def _locked(self) -> Generator[bool]:
        """Hold the folder's lock, or yield ``False`` at once if another process does."""
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do: a child forked meanwhile has the descriptor too
            os.close(fd)


def _recent(epochs: dict[str, int], folder: Path) -> dict[str, int]:
    """Return the epochs that some reader may still have read from a file of its own."""
    present = {path.stem.rpartition("-")[2] for path in folder.glob("*.m")}
    now = time.monotonic_ns()
    return {
        epoch: folded for epoch, folded in epochs.items() if epoch in present or 0 <= now - folded < _EPOCHS_KEPT_NS
    }


def _parsed(raw: bytes) -> tuple[dict[str, int], Snapshot]:
    if not raw.startswith(_MAGIC):
        return {}, Snapshot({})
    start = len(_MAGIC)
    first, second = (int.from_bytes(raw[start + i * _LENGTH : start + (i + 1) * _LENGTH], "little") for i in (0, 1))
    start += 2 * _LENGTH
    meta = json.loads(raw[start : start + first])
    layout = read_schema(raw[start + first : start + first + second])
    return meta["epochs"], decode(layout, raw[start + first + second :], time_ns=meta["time_ns"])
