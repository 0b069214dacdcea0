"""Every undocumented name of SQLAlchemy that the query cache needs.

With `_compat` and `_compat_rows` the only modules to read when a new SQLAlchemy is judged.
"""

from collections.abc import Iterator
from operator import attrgetter, methodcaller
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

__all__ = [
    "asking_parts",
    "connections_of",
    "core_statement",
    "has_unflushed",
    "is_temporary",
    "isolation_of",
    "loading_options",
]

_clean = methodcaller("_is_clean")
_of_transaction = attrgetter("_connections")
_on_connect = attrgetter("_on_connect_isolation_level")


asking_parts = attrgetter("_transaction", "bind.__dict__", "dispatch.do_orm_execute")
"""Of a session: its transaction, what is kept with its engine, and who listens to its statements."""


def has_unflushed(session: Session) -> bool:
    """Whether objects of the session wait to be written."""
    return not _clean(session)


def connections_of(session: Session) -> Iterator[Connection]:
    """Yield the connections that the session's transaction uses."""
    transaction = session.get_transaction()
    if transaction is not None:
        for key in list(_of_transaction(transaction)):  # each is there twice: by itself and by its engine
            if isinstance(key, Connection):
                yield key
    elif isinstance(session.bind, Connection):
        yield session.bind


def core_statement(compiled: Any) -> Any:
    """Return the plain statement that an ORM statement was compiled from."""
    return getattr(getattr(compiled, "compile_state", None), "statement", None)


def is_temporary(table: Any) -> bool:
    """Whether a table exists for one connection only."""
    return any("TEMP" in str(prefix).upper() for prefix in getattr(table, "_prefixes", ()))


def isolation_of(connection: Connection) -> str:
    """Return the isolation level of a connection, as far as SQLAlchemy was told it; asks no server."""
    chosen = connection.get_execution_options().get("isolation_level")
    level = chosen or _on_connect(connection.dialect) or connection.default_isolation_level
    return str(level or "").upper().replace("_", " ")


def loading_options(statement: Any) -> tuple[Any, ...]:
    """Return the options of a statement that say how objects are loaded or filtered."""
    return tuple(attrgetter("_with_options")(statement))
