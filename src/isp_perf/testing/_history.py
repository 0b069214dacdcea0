"""Records what readers and writers of a cached truth saw, so that ``check`` can tell whether it may be believed."""

import threading
from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self

from isp_perf.typing import Clock

__all__ = ["History", "ReadRecord", "Session", "WriteRecord"]


class ReadRecord(NamedTuple):
    """One read.

    Attributes:
        session: who read; reads of one session are expected never to go back.
        key: what was read.
        value: what came back; ``None`` if it raised.
        start: when it began, in monotonic seconds.
        end: when it ended.
        error: the name of the exception that it raised, empty if none.
    """

    session: str
    key: str
    value: Any
    start: float
    end: float
    error: str = ""


class WriteRecord(NamedTuple):
    """One write of the truth, with the invalidation that belongs to it.

    Attributes:
        session: who wrote.
        key: what was written.
        value: what was written; no other write of this key wrote the same.
        start: when it began, in monotonic seconds.
        commit: when the truth had it for certain; ``None``: its outcome is not known.
        acknowledged: when the invalidation was known to be delivered; ``None``: never.
        end: when the writer went on, whatever it was told.
        version: where it stands among the writes of its key; ``None``: where its commit stands.
    """

    session: str
    key: str
    value: Any
    start: float
    commit: float | None
    acknowledged: float | None
    end: float
    version: int | None = None


class _Reading:
    """A read in progress.

    Attributes:
        value: what came back; the reader's to set.
    """

    __slots__ = ("_key", "_session", "_start", "value")

    def __init__(self, session: "Session", key: str) -> None:
        self.value: Any = None
        self._session = session
        self._key = key
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = self._session.history.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name = "" if kind is None else kind.__name__
        history = self._session.history
        record = ReadRecord(self._session.name, self._key, self.value, self._start, history.clock(), name)
        history.reads.append(record)


class _Writing:
    """A write in progress; the writer tells how far it is."""

    __slots__ = ("_acknowledged", "_commit", "_key", "_session", "_start", "_value", "_version")

    def __init__(self, session: "Session", key: str, value: Any) -> None:
        self._session = session
        self._key = key
        self._value = value
        self._start = 0.0
        self._commit: float | None = None
        self._acknowledged: float | None = None
        self._version: int | None = None

    def committed(self, version: int | None = None) -> None:
        """Take note that the truth has it, as its ``version``-th value (any increasing number) if that is known."""
        self._commit = self._session.history.clock()
        self._version = version

    def acknowledged(self) -> None:
        """Take note that the invalidation was delivered; ``receipt.delivered`` says so."""
        self._acknowledged = self._session.history.clock()

    def __enter__(self) -> Self:
        self._start = self._session.history.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        history, name = self._session.history, self._session.name
        told = (self._commit, self._acknowledged, history.clock(), self._version)
        history.writes.append(WriteRecord(name, self._key, self._value, self._start, *told))


class Session:
    """Somebody who reads and writes one step after the other: a user, a connection, a task.

    Args:
        history: where everything is recorded.
        name: differs from every other session's, in other processes too.
    """

    __slots__ = ("history", "name")

    history: "History"
    name: str

    def __init__(self, history: "History", name: str) -> None:
        self.history = history
        self.name = name

    def reading(self, key: str) -> _Reading:
        """Return a context around one read of ``key``, which sets its ``value``.

        An exception is recorded and passes.
        """
        return _Reading(self, key)

    def writing(self, key: str, value: Any) -> _Writing:
        """Return a context around one write and its invalidation; call ``committed`` and ``acknowledged`` on it.

        Args:
            key: what is written.
            value: not equal to what any other write wrote to this key.
        """
        return _Writing(self, key, value)


class History:
    """What happened to a cached truth: reads, writes and their invalidations, on one monotonic clock.

    Threads and tasks record into one history. Processes record into one each, on one machine, whose
    ``time.monotonic`` they share; records are plain tuples, to be sent as any other data and brought together by
    ``add``.

    Args:
        initial: key -> the value that the truth holds before the first write.
        clock: monotonic seconds; default ``time.monotonic``.

    Attributes:
        initial: as given.
        clock: as given.
        reads: every read that has ended.
        writes: every write that has ended.
    """

    initial: dict[str, Any]
    clock: Clock
    reads: list[ReadRecord]
    writes: list[WriteRecord]

    def __init__(self, initial: dict[str, Any] | None = None, *, clock: Clock = monotonic) -> None:
        self.initial = dict(initial or {})
        self.clock = clock
        self.reads = []
        self.writes = []
        self._lock = threading.Lock()
        self._sessions = 0

    def session(self, name: str | None = None) -> Session:
        """Return a session; without a ``name`` it gets one that is new in this history."""
        with self._lock:
            self._sessions += 1
            return Session(self, name or f"session {self._sessions}")

    def add(self, reads: Iterable[Iterable[Any]], writes: Iterable[Iterable[Any]]) -> None:
        """Take up what another process recorded; each record is a ``ReadRecord`` or ``WriteRecord``, or its fields."""
        self.reads += [ReadRecord(*record) for record in reads]
        self.writes += [WriteRecord(*record) for record in writes]
