"""Finds the engine behind whatever `install` is given."""

from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from isp_perf.errors import ConfigurationError

__all__ = ["engine_of"]


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
