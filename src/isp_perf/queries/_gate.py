"""Decides whether a session may be answered from a cache right now."""

from hashlib import blake2b
from itertools import count
from secrets import token_hex
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from isp_perf.queries._compat import autoflush
from isp_perf.queries._compat_cached import asking_parts, connections_of, has_unflushed, isolation_of
from isp_perf.queries._compat_rows import orm_hooks
from isp_perf.queries._peers import Batching
from isp_perf.queries._targets import engine_of
from isp_perf.queries._writes import ALL_TABLES, work_on, writes_of

__all__ = ["Gate", "is_clean"]

_numbers = count(1)
_names: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()
_CURRENT = ("READ COMMITTED", "AUTOCOMMIT")


class Gate:
    """What one cached query asks of a session before it answers from the cache.

    Args:
        manager: the cache manager.
        tenant: whose rows the database shows, where it filters them; a text, or a function of the session.

    Attributes:
        classes: of sessions that ask the engine they are bound to.
        tags: of the tables that are read; ``None``: not known, any write of the session counts.
    """

    __slots__ = ("_name", "classes", "manager", "tags", "tenant")

    classes: set[type[Session]]
    tags: frozenset[str] | None

    def __init__(self, manager: Any, tenant: Any) -> None:
        self.manager = manager
        self.tenant = tenant
        self.tags = None
        self.classes = set()
        name = _names.get(manager)
        if name is None:
            name = _names[manager] = f"isp_perf_cached_{next(_numbers)}"
        self._name = name

    def __call__(self, session: Any) -> str | None:
        """Return what tells the session's database apart; ``None`` if the cache must be left out, or may have to be.

        A session of another class than ``classes`` is nothing to ask about.
        """
        try:
            transaction, engine, hooks = asking_parts(session)
            token: str = engine[self._name]
        except (AttributeError, KeyError):
            return None  # no bind, or one that is new
        # An object cannot wait to be written without a transaction: adding or changing one begins it.
        if transaction is not None and not self._is_settled(session):
            return None
        if (hooks.parent_listeners or hooks.listeners) and not self._is_plain(session):
            return None
        return token if self.tenant is None else self._of_tenant(token, session)

    def _is_settled(self, session: Session) -> bool:
        return not has_unflushed(session) and self.is_current(session)

    def _of_tenant(self, token: str, session: Any) -> str:
        tenant = self.tenant
        return f"{token}/{tenant(session) if callable(tenant) else tenant}"

    def enter(self, session: Session, statement: Any) -> str | None:
        """As a call, the long way: look at the engine for the first time, and flush what waits to be written."""
        if has_unflushed(session) and session.autoflush:
            autoflush(session)
        if type(session).get_bind is not Session.get_bind:
            return None
        engine = self.engine_for(session, statement)
        if self._name not in vars(engine):
            writes_of(engine, self.manager)
            vars(engine)[self._name] = _identity(engine)
        if session.bind is engine:
            self.classes.add(type(session))
            return self(session)
        return self._through(session, vars(engine)[self._name])

    def _through(self, session: Session, token: str) -> str | None:
        """Answer for a session that is bound to a connection, or to several engines."""
        if isinstance(session.bind, Connection):
            translated = session.bind.get_execution_options().get("schema_translate_map")
            if translated or session.bind.in_transaction():
                return None
        if has_unflushed(session) or not self._is_plain(session) or not self.is_current(session):
            return None
        return token if self.tenant is None else self._of_tenant(token, session)

    @staticmethod
    def engine_for(session: Session, statement: Any) -> Engine:
        """Return the engine that a session asks."""
        described: list[dict[str, Any]] = getattr(statement, "column_descriptions", None) or [{}]
        entity: Any = described[0].get("entity")
        bind = session.get_bind(mapper=entity, clause=statement) if entity is not None else session.get_bind()
        return engine_of(bind)

    def is_current(self, session: Session) -> bool:
        """Whether the session's transaction sees what is committed now, and has changed none of it."""
        tags = self.tags
        return all(is_clean(connection, tags) and _is_up_to_date(connection) for connection in connections_of(session))

    def _is_plain(self, session: Any) -> bool:
        """Whether no listener may add conditions to statements, or whose they are is said."""
        return self.tenant is not None or all(isinstance(hook, Batching) for hook in orm_hooks(session))


def _is_up_to_date(connection: Connection) -> bool:
    """Whether the next statement of a connection sees what is committed by then."""
    if connection.dialect.name == "sqlite":
        return not getattr(connection.connection.driver_connection, "in_transaction", True)
    work = work_on(connection)
    return (isolation_of(connection) if work is None else work.level(connection)) in _CURRENT


def is_clean(connection: Connection, tags: frozenset[str] | None) -> bool:
    """Whether a connection's transaction wrote none of the tables of ``tags``, and sees nobody's uncommitted rows."""
    work = work_on(connection)
    if work is None:  # with a transaction: it was open before anybody looked
        return not connection.in_transaction()
    if work.level(connection) == "READ UNCOMMITTED":
        return False
    return not work.tags or (tags is not None and ALL_TABLES not in work.tags and work.tags.isdisjoint(tags))


def _identity(engine: Engine) -> str:
    """Return what tells an engine's database, and its view of it, apart from others; without its password."""
    url = engine.url
    translated: dict[Any, Any] = engine.get_execution_options().get("schema_translate_map") or {}
    parts = [url.set(password=None).render_as_string(), repr(sorted(translated.items(), key=str))]
    if engine.dialect.name == "sqlite" and (not url.database or "memory" in str(url)):
        parts += [_process, str(next(_numbers))]  # a database of this engine's own
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


_process = token_hex(8)
