"""Finds the engine and the sessions behind whatever `install` is given."""

from typing import Any, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from isp_perf.errors import ConfigurationError

__all__ = ["engine_of", "sessions_of"]


def engine_of(target: Any) -> Engine:
    """Return the engine of an engine, connection, session or session factory, of either colour.

    Raises:
        ConfigurationError: there is none, or ``target`` is something else.
    """
    bind = _bind(target)
    bind = getattr(bind, "sync_engine", None) or getattr(bind, "sync_connection", None) or bind
    if isinstance(bind, Connection):
        return bind.engine
    if isinstance(bind, Engine):
        return bind
    raise ConfigurationError(
        "target",
        getattr(target, "__name__", type(target).__name__),
        "install works on an engine, a session factory with a bind, or a session, sync or async",
        "pass the engine",
    )


def _bind(target: Any) -> Any:
    target = getattr(target, "session_factory", target)  # of a scoped session, in both colours
    if hasattr(target, "kw"):
        return target.kw.get("bind")
    if hasattr(target, "sync_session"):
        return target.sync_session.bind
    return target.bind if isinstance(target, Session) else target


def sessions_of(target: Any) -> tuple[Any, Engine | None]:
    """Return what session events of ``target`` are listened for on, and the bind that sessions must have, if any.

    An async factory makes plain sessions of a class it shares with everybody; it gets a class of its own first.
    """
    target = getattr(target, "session_factory", target)
    if isinstance(target, (sessionmaker, Session)):
        return cast("Any", target), None
    if hasattr(target, "kw"):
        return _own_class(target), None
    if hasattr(target, "sync_session"):
        return target.sync_session, None
    return Session, engine_of(target)


def _own_class(factory: Any) -> type[Session]:
    shared = factory.kw.get("sync_session_class", factory.class_.sync_session_class)
    if not shared.__dict__.get("isp_perf_own"):
        shared = type(shared.__name__, (shared,), {"isp_perf_own": True})
        factory.configure(sync_session_class=shared)
    return cast("type[Session]", shared)
