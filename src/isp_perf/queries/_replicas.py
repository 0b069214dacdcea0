"""Sends reads to replicas, and everything else to the primary, so that everybody reads what they wrote.

A write is remembered as a position in the primary's log. A replica answers a reader again once it has replayed that
position; until then the primary does.
"""

import itertools
import time
from asyncio import sleep
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import in_greenlet, is_flushing, wait_for
from isp_perf.queries._compat_rows import locks_rows
from isp_perf.queries._kinds import is_select
from isp_perf.queries._targets import engine_of

__all__ = ["ReplicaRouter"]

_CHOSEN = "isp_perf.queries.server"
_WROTE = "isp_perf.queries.wrote"
_POSITION = "isp_perf.queries.position"
_READER = "reader"
_READERS_KEPT = 10_000
_STEP = 0.005  # seconds between two looks at a replica
_UNKNOWN = ""  # a position on a database that has none: only the primary is sure
_HERE = text("SELECT CAST(pg_current_wal_insert_lsn() AS TEXT)")
_REPLAYED = text("SELECT pg_last_wal_replay_lsn() >= CAST(CAST(:position AS TEXT) AS pg_lsn)")


class ReplicaRouter:
    """Makes sessions that read from replicas and write to the primary.

    A transaction starts on a replica if its first statement is a plain SELECT, and stays on that one. With its first
    write, ``FOR UPDATE``, ``text()``, flush or bulk statement it goes on at the primary. After a commit that wrote, the
    session, and every session of the same reader, reads from a replica only when it has replayed that commit (on
    PostgreSQL; elsewhere the primary serves them from then on). Readers are told apart by ``info={"reader": user_id}``.

    Args:
        primary: engine of the primary, sync or async.
        replicas: engines of the replicas; none at all is right, too.
        wait: seconds to wait for a replica to catch up before the primary is asked; >= 0, default 0.

    Raises:
        ConfigurationError: an argument is no engine, or ``wait`` is negative.
    """

    def __init__(self, primary: Any, replicas: Sequence[Any] = (), wait: float = 0.0) -> None:
        if wait < 0:
            raise ConfigurationError("wait", wait, "a time to wait is >= 0 seconds", "leave it out")
        self.primary: Engine = engine_of(primary)
        self.replicas: list[Engine] = [engine_of(replica) for replica in replicas]
        self._wait = wait
        self._turn = itertools.count()
        self._positions: OrderedDict[Hashable, str] = OrderedDict()
        self._is_async = hasattr(primary, "sync_engine")
        self._class = _routed(self)

    def sessions(self, **settings: Any) -> Any:
        """Return a factory of routed sessions.

        Args:
            settings: as for ``sessionmaker``, but for the bind.

        Returns:
            A ``sessionmaker``, or an ``async_sessionmaker`` if the primary is an ``AsyncEngine``.
        """
        if not self._is_async:
            return sessionmaker(class_=self._class, **settings)
        from sqlalchemy.ext.asyncio import async_sessionmaker

        return async_sessionmaker(sync_session_class=self._class, **settings)

    def server_for(self, session: Session, clause: Any) -> Engine:
        """Return the engine that a statement goes to.

        Args:
            session: a session of this router's; it stays with what is chosen here.
            clause: the statement; ``None`` for a connection that may be used for anything.
        """
        chosen: Engine | None = session.info.get(_CHOSEN)
        if chosen is self.primary:
            return self.primary
        if is_flushing(session) or not is_select(clause) or locks_rows(clause):
            chosen = self.primary
        elif chosen is None:
            chosen = self._replica(self._position_of(session))
        session.info[_CHOSEN] = chosen
        return chosen

    def ended(self, session: Session) -> None:
        """Take note that a transaction is over.

        Args:
            session: a session of this router's.
        """
        wrote = session.info.pop(_WROTE, False)
        session.info.pop(_CHOSEN, None)
        if not wrote:
            return
        position = session.info[_POSITION] = self._position()
        reader: Hashable = session.info.get(_READER)
        if reader is not None:
            self._positions[reader] = position
            self._positions.move_to_end(reader)
            if len(self._positions) > _READERS_KEPT:
                self._positions.popitem(last=False)

    def committed(self, session: Session) -> None:
        """Take note of a commit of what may have been written.

        Args:
            session: a session of this router's.
        """
        session.info[_WROTE] = session.info.get(_CHOSEN) is self.primary

    def _position_of(self, session: Session) -> str | None:
        """Return the position a replica must have reached; ``None`` if any will do."""
        own: str | None = session.info.get(_POSITION)
        return self._positions.get(session.info.get(_READER), own)

    def _position(self) -> str:
        if self.primary.dialect.name != "postgresql":
            return _UNKNOWN
        with self.primary.connect() as connection:
            return str(connection.scalar(_HERE))

    def _replica(self, position: str | None) -> Engine:
        """Return a replica that has reached ``position``, each in its turn; else the primary."""
        if not self.replicas or position == _UNKNOWN:
            return self.primary
        first = next(self._turn) % len(self.replicas)
        order = self.replicas[first:] + self.replicas[:first]
        if position is None:
            return order[0]
        deadline = time.monotonic() + self._wait
        while True:
            for replica in order:
                if _has_reached(replica, position):
                    return replica
            if time.monotonic() >= deadline:
                return self.primary
            _pause(_STEP)


def _has_reached(replica: Engine, position: str) -> bool:
    try:
        with replica.connect() as connection:
            return bool(connection.scalar(_REPLAYED, {"position": position}))
    except DBAPIError:
        return False  # a replica that cannot be asked has reached nothing


def _pause(seconds: float) -> None:
    if in_greenlet():
        wait_for(sleep(seconds))
    else:
        time.sleep(seconds)


def _routed(router: ReplicaRouter) -> type[Session]:
    class RoutedSession(Session):
        def get_bind(self, *_: Any, clause: Any = None, bind: Any = None, **__: Any) -> Any:
            """Return where a statement goes."""
            return bind or router.server_for(self, clause)

    def ended(session: Session, transaction: Any) -> None:
        if transaction.parent is None:
            router.ended(session)

    event.listen(RoutedSession, "after_commit", router.committed)
    event.listen(RoutedSession, "after_transaction_end", ended)
    return RoutedSession
