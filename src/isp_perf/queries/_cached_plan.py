"""What one cached query is: its two caches, one for each colour, and the way through them that is not the fastest."""

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final, TypeAlias

from sqlalchemy.orm import Session

from isp_perf.queries._compat_cached import connections_of
from isp_perf.queries._gate import Gate, is_clean
from isp_perf.queries._reads import Asked, asked_of
from isp_perf.queries._rowcodec import RowCodec, rows_from
from isp_perf.queries._writes import ALL_TABLES, writes_of

__all__ = ["ASKING", "NotKeptError", "Query", "Rows", "give_signature"]

Rows: TypeAlias = tuple[Any, ...]

_STEADY: Final[dict[str, Any]] = {
    "stale_while_revalidate": 0,
    "stale_if_error": 0,
    "early_refresh": "off",
    "soft_timeout": None,
    "hard_timeout": None,
    "cache_errors": {},
    "cache_none": True,
    "private": False,
    "typed": True,
    "isolate": "share",
    "when": None,
}
"""Whatever the manager's policy says: a load needs the session of its caller, who waits for it."""

ASKING: ContextVar[Any] = ContextVar("isp_perf.queries.asking")
"""The session that a load may use: that of the caller, who leads it in its own task or thread."""


class NotKeptError(Exception):
    """Rows that were read for one session, and are nobody else's."""

    def __init__(self, session: Any, rows: Rows) -> None:
        super().__init__("rows of a transaction of its own")
        self.session = session
        self.rows = rows


def _read(session: Session, statement: Any) -> Rows:
    result = session.execute(statement)
    return rows_from(result.keys(), result)


class Query:
    """One cached function or statement, with its two caches: for sessions of either colour.

    Args:
        gate: decides whether a session may be answered.
        function: makes the statement of a call.
        head: parameters of the function behind the engine's token.
        name: what keys begin with.
        options: ttl, tags, and whether volatile functions are meant.
    """

    def __init__(
        self, gate: Gate, function: Callable[..., Any], head: Sequence[inspect.Parameter], *, name: str, options: Any
    ) -> None:
        self.gate = gate
        self.function = function
        self.inner: Callable[..., Any] = self._unplanned
        self.inner_async: Callable[..., Any] = self._unplanned
        self._head = head
        self._name = name
        self._options = options
        self._lock = Lock()
        self._tags: frozenset[str] = frozenset()

    @staticmethod
    def _unplanned(*_: Any) -> Any:
        raise NotKeptError(None, ())

    def ask(self, session: Session, values: tuple[Any, ...], keywords: dict[str, Any]) -> Rows:
        """Answer a call of a plain session the long way."""
        asked, token = self._prepared(session, values, keywords)
        if token is None:
            return _read(session, asked.statement)
        mark = ASKING.set(session)
        try:
            rows: Rows = self.inner(token, *values, **keywords)
        except NotKeptError as error:
            return error.rows if error.session is session else _read(session, asked.statement)
        finally:
            ASKING.reset(mark)
        return rows

    async def ask_async(self, session: Any, values: tuple[Any, ...], keywords: dict[str, Any]) -> Rows:
        """Answer a call of an AsyncSession the long way."""
        plain: Session = session.sync_session
        token = self.gate(plain) if type(plain) in self.gate.classes else None
        if token is None:
            asked, token = await session.run_sync(self._prepared, values, keywords)
            if token is None:
                direct: Rows = await session.run_sync(_read, asked.statement)
                return direct
        mark = ASKING.set(session)
        try:
            rows: Rows = await self.inner_async(token, *values, **keywords)
        except NotKeptError as error:
            if error.session is session:
                return error.rows
            rows = await session.run_sync(_read, self.function(*values, **keywords))
        finally:
            ASKING.reset(mark)
        return rows

    def instead(self, error: NotKeptError, values: tuple[Any, ...]) -> Rows:
        """Return the rows that were not kept, or the caller's own if they are somebody else's."""
        session = values[0]
        return error.rows if error.session is session else self.ask(session, *self.split(values))

    async def instead_async(self, error: NotKeptError, values: tuple[Any, ...]) -> Rows:
        """As ``instead``, for an AsyncSession."""
        session = values[0]
        return error.rows if error.session is session else await self.ask_async(session, *self.split(values))

    def split(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments of a call, which begins with the session."""
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for parameter, value in zip(self._head, values[1:], strict=True):
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                keywords[parameter.name] = value
            else:
                positional.append(value)
        return tuple(positional), keywords

    def _asked(self, session: Session, statement: Any) -> Asked:
        engine = self.gate.engine_for(session, statement)
        options = self._options
        tagged = options["tags"] != "tables"
        volatile: bool = options["volatile"]
        return asked_of(statement, writes_of(engine), engine.dialect, volatile=volatile, tagged=tagged)

    def _prepared(
        self, session: Session, values: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[Asked, str | None]:
        """Return the statement, and the token if the cache may answer it."""
        statement = self.function(*values, **keywords)
        asked = self._asked(session, statement)
        self._cover(asked)
        return asked, None if asked.shape.locks else self.gate.enter(session, statement)

    def _cover(self, asked: Asked) -> bool:
        """Have the cached values carry the tags of every table that is read; return whether they did already."""
        wanted = asked.shape.tags
        with self._lock:
            gate = self.gate
            if wanted <= self._tags:
                return True
            self._tags = tags = wanted | self._tags
            kept = sorted(tags) if self._options["tags"] == "tables" else [ALL_TABLES, *self._options["tags"]]
            policy = {**_STEADY, "ttl": self._options["ttl"], "tags": kept, "codec": RowCodec()}
            cached = gate.manager.cached
            self.inner = cached(f"query:{self._name}:{{hash}}", **policy)(self._loader())
            self.inner_async = cached(f"aquery:{self._name}:{{hash}}", **policy)(self._async_loader())
            gate.tags = None if asked.shape.hidden else tags
            return False

    def _load(self, session: Session, values: tuple[Any, ...], keywords: dict[str, Any]) -> Rows:
        asked = self._asked(session, self.function(*values, **keywords))
        covered = self._cover(asked)
        rows = _read(session, asked.statement)
        clean = all(is_clean(connection, self.gate.tags) for connection in connections_of(session))
        if not covered or not clean or asked.shape.locks:
            raise NotKeptError(session, rows)
        return rows

    def _loader(self) -> Callable[..., Any]:
        def load(_engine: str, *values: Any, **keywords: Any) -> Rows:
            return self._load(ASKING.get(), values, keywords)

        return self._signed(load)

    def _async_loader(self) -> Callable[..., Any]:
        async def load(_engine: str, *values: Any, **keywords: Any) -> Rows:
            session = ASKING.get()
            try:
                rows: Rows = await session.run_sync(self._load, values, keywords)
            except NotKeptError as error:
                raise NotKeptError(session, error.rows) from None
            return rows

        return self._signed(load)

    def _signed(self, load: Callable[..., Any]) -> Callable[..., Any]:
        first = inspect.Parameter("isp_engine", inspect.Parameter.POSITIONAL_ONLY)
        give_signature(load, [first, *self._head], f"cached_query({self._name})")
        return load


def give_signature(function: Any, head: Sequence[inspect.Parameter], name: str) -> None:
    """Have a function tell a signature and a name that are not those it was written with."""
    function.__signature__ = inspect.Signature(list(head))
    function.__qualname__ = name
