"""Cached queries: rows from the cache, dropped when a transaction that changed their tables is committed."""

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, overload
from weakref import WeakKeyDictionary

from sqlalchemy.orm import Session

from isp_perf._runtime.specialize import parameters, specialize
from isp_perf.errors import ConfigurationError
from isp_perf.queries._codeprint import behind_session, code_digest
from isp_perf.queries._colours import run
from isp_perf.queries._compat_cached import connections_of
from isp_perf.queries._gate import Gate, is_clean
from isp_perf.queries._reads import Asked, asked_of
from isp_perf.queries._rowcodec import RowCodec, rows_from
from isp_perf.queries._writes import ALL_TABLES, QueryCacheManager, writes_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import scoped_session

__all__ = ["cached_query"]

Tags: TypeAlias = Literal["tables"] | Sequence[str]
Tenant: TypeAlias = str | Callable[[Any], str] | None
Rows: TypeAlias = tuple[Any, ...]

_PLANS_KEPT = 500
_UNNAMED = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
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

_BODY = """
$token = $gate($param_0) if $param_0.__class__ in $classes else None
if $token is None:
    return $slow($values)
$mark = $asking.set($param_0)
try:
    return $query.inner($token{rest})
except $not_kept as $error:
    return $query.instead($error, $values)
finally:
    $asking.reset($mark)
"""

_asking: ContextVar[Any] = ContextVar("isp_perf.queries.asking")
"""The session that a load may use: that of the caller, who leads it in its own task or thread."""


class _NotKeptError(Exception):
    """Rows that were read for one session, and are nobody else's."""

    def __init__(self, session: Any, rows: Rows) -> None:
        super().__init__("rows of a transaction of its own")
        self.session = session
        self.rows = rows


def _read(session: Session, statement: Any) -> Rows:
    result = session.execute(statement)
    return rows_from(result.keys(), result)


class _Query:
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
        raise _NotKeptError(None, ())

    def ask(self, session: Session, values: tuple[Any, ...], keywords: dict[str, Any]) -> Rows:
        """Answer a call of a plain session the long way."""
        asked, token = self._prepared(session, values, keywords)
        if token is None:
            return _read(session, asked.statement)
        mark = _asking.set(session)
        try:
            rows: Rows = self.inner(token, *values, **keywords)
        except _NotKeptError as error:
            return error.rows if error.session is session else _read(session, asked.statement)
        finally:
            _asking.reset(mark)
        return rows

    async def ask_async(self, session: Any, values: tuple[Any, ...], keywords: dict[str, Any]) -> Rows:
        """Answer a call of an AsyncSession."""
        plain: Session = session.sync_session
        token = self.gate(plain) if type(plain) in self.gate.classes else None
        if token is None:
            asked, token = await session.run_sync(self._prepared, values, keywords)
            if token is None:
                direct: Rows = await session.run_sync(_read, asked.statement)
                return direct
        mark = _asking.set(session)
        try:
            rows: Rows = await self.inner_async(token, *values, **keywords)
        except _NotKeptError as error:
            if error.session is session:
                return error.rows
            rows = await session.run_sync(_read, self.function(*values, **keywords))
        finally:
            _asking.reset(mark)
        return rows

    def instead(self, error: _NotKeptError, values: tuple[Any, ...]) -> Rows:
        """Return the rows that were not kept, or the caller's own if they are somebody else's."""
        session = values[0]
        return error.rows if error.session is session else self.ask(session, *self.split(values))

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
            raise _NotKeptError(session, rows)
        return rows

    def _loader(self) -> Callable[..., Any]:
        def load(_engine: str, *values: Any, **keywords: Any) -> Rows:
            return self._load(_asking.get(), values, keywords)

        return self._signed(load)

    def _async_loader(self) -> Callable[..., Any]:
        async def load(_engine: str, *values: Any, **keywords: Any) -> Rows:
            session = _asking.get()
            try:
                rows: Rows = await session.run_sync(self._load, values, keywords)
            except _NotKeptError as error:
                raise _NotKeptError(session, error.rows) from None
            return rows

        return self._signed(load)

    def _signed(self, load: Callable[..., Any]) -> Callable[..., Any]:
        first = inspect.Parameter("isp_engine", inspect.Parameter.POSITIONAL_ONLY)
        _give_signature(load, [first, *self._head], f"cached_query({self._name})")
        return load


def _give_signature(function: Any, head: Sequence[inspect.Parameter], name: str) -> None:
    function.__signature__ = inspect.Signature(list(head))
    function.__qualname__ = name


_plans: "WeakKeyDictionary[Any, OrderedDict[Any, _Query]]" = WeakKeyDictionary()


@overload
def cached_query(
    manager: QueryCacheManager,
    session: "Session | scoped_session[Any]",
    statement: Any,
    *,
    ttl: float,
    tags: Tags = "tables",
    tenant: Tenant = None,
    volatile: bool = False,
) -> Rows: ...
@overload
def cached_query(
    manager: QueryCacheManager,
    session: "AsyncSession",
    statement: Any,
    *,
    ttl: float,
    tags: Tags = "tables",
    tenant: Tenant = None,
    volatile: bool = False,
) -> Awaitable[Rows]: ...
@overload
def cached_query(
    manager: QueryCacheManager,
    *,
    ttl: float,
    tags: Tags = "tables",
    tenant: Tenant = None,
    volatile: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def cached_query(
    manager: QueryCacheManager,
    session: Any = None,
    statement: Any = None,
    *,
    ttl: float,
    tags: Tags = "tables",
    tenant: Tenant = None,
    volatile: bool = False,
) -> Any:
    """Return the rows of a SELECT from the cache, or read and keep them.

    With a session and a statement the rows are returned at once. Without, it is a decorator for a function that makes
    the statement: the decorated function takes the session first, then the function's own arguments, and a hit builds
    no statement.

    Rows are immutable named tuples, never objects of the model; a mapped class in the statement stands for its columns.
    They are dropped when a transaction that wrote one of the tables is committed, before ``commit`` returns, however it
    wrote: flush, bulk, Core, ``text()`` or driver SQL. A transaction that wrote one of the tables, one that sees an
    older state, and ``FOR UPDATE`` go past the cache, and what they read is not kept.

    Args:
        manager: the ``CacheManager``.
        session: a ``Session`` or ``AsyncSession``.
        statement: a ``select()`` or a union.
        ttl: seconds for which rows are kept, > 0.
        tags: ``"tables"`` (default): one tag for each table that is read. Or names under which you invalidate
            yourself; for a function templates such as ``"user:{user_id}"``.
        tenant: whose rows these are where the database, or a listener on the session, filters by something that is not
            in the statement; a text, or a function of the (plain) session. Without it, sessions with ``do_orm_execute``
            listeners go past the cache. Default: none.
        volatile: keep rows of statements with ``now()``, ``random()`` and the like; default ``False``: refused.

    Returns:
        The rows as a tuple; an awaitable of it for an ``AsyncSession``; a decorator without a session.

    Raises:
        ConfigurationError: the statement is no SELECT, has loader options, is volatile, reads a temporary table or
            one named in ``text()`` only; the function takes ``*args`` or ``**options``.
    """
    if isinstance(ttl, bool) or ttl <= 0:
        raise ConfigurationError("ttl", ttl, "rows are kept for more than 0 seconds", "pass seconds > 0")
    options = {"ttl": ttl, "tags": tags, "volatile": volatile}
    if session is None and statement is None:

        def decorator(function: Callable[..., Any]) -> Any:
            return _decorated(manager, function, tenant=tenant, options=options)

        return decorator
    return _answered(manager, session, statement, tenant=tenant, options=options)


def _answered(manager: Any, session: Any, statement: Any, *, tenant: Tenant, options: dict[str, Any]) -> Any:
    if hasattr(session, "sync_session"):
        return _answered_async(manager, session, statement, tenant=tenant, options=options)

    def work(plain: Session) -> Rows:
        query, asked = _query_for(manager, plain, statement, tenant=tenant, options=options)
        mark = _given.set(statement)
        try:
            return query.ask(plain, (asked.values,), {})
        finally:
            _given.reset(mark)

    return run(session, work, name="cached_query")


async def _answered_async(manager: Any, session: Any, statement: Any, *, tenant: Tenant, options: Any) -> Rows:
    query, asked = _query_for(manager, session.sync_session, statement, tenant=tenant, options=options)
    mark = _given.set(statement)
    try:
        return await query.ask_async(session, (asked.values,), {})
    finally:
        _given.reset(mark)


_given: ContextVar[Any] = ContextVar("isp_perf.queries.given")
"""The statement that was handed in as such; its bound values are its key."""


def _statement_of(_values: tuple[Any, ...]) -> Any:
    return _given.get()


_VALUES = (inspect.Parameter("values", inspect.Parameter.POSITIONAL_OR_KEYWORD),)


def _query_for(manager: Any, session: Session, statement: Any, *, tenant: Tenant, options: Any) -> tuple[_Query, Asked]:
    """Return the query that statements of one shape share."""
    gate = Gate(manager, None if tenant is None else "")
    engine = gate.engine_for(session, statement)
    given = options["tags"] if options["tags"] == "tables" else tuple(options["tags"])
    asked = asked_of(
        statement, writes_of(engine), engine.dialect, volatile=options["volatile"], tagged=given != "tables"
    )
    if tenant is not None:
        whose = tenant(session) if callable(tenant) else tenant
        asked = replace(asked, values=(whose, *asked.values))
    place = (asked.shape.digest, given, options["ttl"], tenant is None, options["volatile"])
    plans = _plans.setdefault(manager, OrderedDict())
    query = plans.get(place)
    if query is None:
        name = f"{asked.shape.digest}{blake2b(repr((given, tenant is None)).encode(), digest_size=4).hexdigest()}"
        query = plans[place] = _Query(gate, _statement_of, _VALUES, name=name, options={**options, "tags": given})
        if len(plans) > _PLANS_KEPT:
            plans.popitem(last=False)
    return query, asked


def _decorated(manager: Any, function: Callable[..., Any], *, tenant: Tenant, options: Any) -> Any:
    head = parameters(function)
    if any(parameter.kind in _UNNAMED for parameter in head):
        raise ConfigurationError("function", function.__qualname__, "its arguments are the key", "name each of them")
    name = f"{function.__module__}.{function.__qualname__}:{code_digest(function)}"
    escaped = name.replace("{", "{{").replace("}", "}}")
    query = _Query(Gate(manager, tenant), function, head, name=escaped, options=options)

    def slow(values: tuple[Any, ...]) -> Any:
        positional, keywords = query.split(values)
        if hasattr(values[0], "sync_session"):
            return query.ask_async(values[0], positional, keywords)
        return run(values[0], lambda plain: query.ask(plain, positional, keywords), name=function.__qualname__)

    def stand(*_: Any, **__: Any) -> None:
        """Lend its signature."""

    first = inspect.Parameter("session", inspect.Parameter.POSITIONAL_ONLY)
    _give_signature(stand, [first, *behind_session(head)], function.__qualname__)
    stand.__name__, stand.__module__, stand.__doc__ = function.__name__, function.__module__, function.__doc__
    rest = "".join(
        f", {each.name}=$param_{index}" if each.kind is inspect.Parameter.KEYWORD_ONLY else f", $param_{index}"
        for index, each in enumerate(head, 1)
    )
    names = {
        "asking": _asking,
        "gate": query.gate,
        "classes": query.gate.classes,
        "not_kept": _NotKeptError,
        "query": query,
        "slow": slow,
    }
    return specialize(stand, _BODY.format(rest=rest), names, asynchronous=False)
