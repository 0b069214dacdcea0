"""Cached queries: rows from the cache, dropped when a transaction that changed their tables is committed."""

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload
from weakref import WeakKeyDictionary

from sqlalchemy.orm import Session

from isp_perf._runtime.specialize import parameters, specialize
from isp_perf.errors import ConfigurationError
from isp_perf.queries._cached_plan import ASKING, NotKeptError, Query, Rows, give_signature
from isp_perf.queries._codeprint import behind_session, code_digest
from isp_perf.queries._colours import run
from isp_perf.queries._gate import Gate
from isp_perf.queries._reads import Asked, asked_of
from isp_perf.queries._writes import QueryCacheManager, writes_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import scoped_session

__all__ = ["cached_query"]

Tags: TypeAlias = Literal["tables"] | Sequence[str]
Tenant: TypeAlias = str | Callable[[Any], str] | None

_PLANS_KEPT = 500
_UNNAMED = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_BODY = """
$token = $gate($param_0) if $param_0.__class__ in $classes else None
if $token is None:
    return $in_loop($param_0{rest}) if $param_0.__class__ in $async_classes else $slow($values)
$mark = $asking.set($param_0)
try:
    return $query.inner($token{rest})
except $not_kept as $error:
    return $query.instead($error, $values)
finally:
    $asking.reset($mark)
"""

_ASYNC_BODY = """
$plain = $param_0.sync_session
$token = $gate($plain) if $plain.__class__ in $classes else None
if $token is None:
    return await $slow($values)
$mark = $asking.set($param_0)
try:
    return await $query.inner_async($token{rest})
except $not_kept as $error:
    return await $instead_async($error, $values)
finally:
    $asking.reset($mark)
"""

_plans: "WeakKeyDictionary[Any, OrderedDict[Any, Query]]" = WeakKeyDictionary()


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


def _query_for(manager: Any, session: Session, statement: Any, *, tenant: Tenant, options: Any) -> tuple[Query, Asked]:
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
        query = plans[place] = Query(gate, _statement_of, _VALUES, name=name, options={**options, "tags": given})
        if len(plans) > _PLANS_KEPT:
            plans.popitem(last=False)
    return query, asked


def _decorated(manager: Any, function: Callable[..., Any], *, tenant: Tenant, options: Any) -> Any:
    head = parameters(function)
    if any(parameter.kind in _UNNAMED for parameter in head):
        raise ConfigurationError("function", function.__qualname__, "its arguments are the key", "name each of them")
    name = f"{function.__module__}.{function.__qualname__}:{code_digest(function)}"
    escaped = name.replace("{", "{{").replace("}", "}}")
    query = Query(Gate(manager, tenant), function, head, name=escaped, options=options)

    async_classes: set[type] = set()

    def slow(values: tuple[Any, ...]) -> Any:
        positional, keywords = query.split(values)
        if hasattr(values[0], "sync_session"):
            session: Any = values[0]
            async_classes.add(session.__class__)
            return query.ask_async(session, positional, keywords)
        return run(values[0], lambda plain: query.ask(plain, positional, keywords), name=function.__qualname__)

    def stand(*_: Any, **__: Any) -> None:
        """Lend its signature."""

    first = inspect.Parameter("session", inspect.Parameter.POSITIONAL_ONLY)
    give_signature(stand, [first, *behind_session(head)], function.__qualname__)
    stand.__name__, stand.__module__, stand.__doc__ = function.__name__, function.__module__, function.__doc__
    rest = "".join(
        f", {each.name}=$param_{index}" if each.kind is inspect.Parameter.KEYWORD_ONLY else f", $param_{index}"
        for index, each in enumerate(head, 1)
    )
    names = {
        "asking": ASKING,
        "async_classes": async_classes,
        "gate": query.gate,
        "instead_async": query.instead_async,
        "classes": query.gate.classes,
        "not_kept": NotKeptError,
        "query": query,
        "slow": slow,
    }
    in_loop = specialize(stand, _ASYNC_BODY.format(rest=rest), names, asynchronous=True)
    return specialize(stand, _BODY.format(rest=rest), {**names, "in_loop": in_loop}, asynchronous=False)
