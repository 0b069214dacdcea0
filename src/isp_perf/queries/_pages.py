"""Keyset pages: the rows after a row, whatever was added or removed meanwhile, without OFFSET or COUNT.

A page asks for the rows that sort after the last one of the page before. For columns k1, k2 that is
``k1 > v1 OR (k1 = v1 AND k2 > v2)``, with directions turned and NULLs put where the database sorts them.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from sqlalchemy import Dialect, Select, and_, bindparam, false, or_, tuple_
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, scoped_session

from isp_perf.errors import ConfigurationError
from isp_perf.queries._colours import run
from isp_perf.queries._compat_rows import cut_clauses, order_clauses
from isp_perf.queries._cursors import Cursor, read_cursor, secret_bytes, written
from isp_perf.queries._facts import order_of
from isp_perf.queries._kinds import Entity, is_column, is_select
from isp_perf.queries._paths import entity_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Page", "keyset_page"]

T = TypeVar("T")

_NULLS_ARE_LARGEST = {"postgresql", "oracle"}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a query's rows.

    Args:
        items: the rows, in the order of the query.
        next: cursor of the page after this one; ``None`` if this is the last one.
        previous: cursor of the page before this one; ``None`` if this is the first one.
    """

    items: Sequence[T]
    next: str | None = None
    previous: str | None = None


@overload
def keyset_page(
    session: "Session | scoped_session[Any]",
    statement: Select[tuple[T]],
    *,
    after: str | None = None,
    size: int = 50,
    secret: str | bytes | None = None,
) -> Page[T]: ...
@overload
def keyset_page(
    session: "AsyncSession",
    statement: Select[tuple[T]],
    *,
    after: str | None = None,
    size: int = 50,
    secret: str | bytes | None = None,
) -> Awaitable[Page[T]]: ...
def keyset_page(
    session: "Session | scoped_session[Any] | AsyncSession",
    statement: Select[tuple[T]],
    *,
    after: str | None = None,
    size: int = 50,
    secret: str | bytes | None = None,
) -> Page[T] | Awaitable[Page[T]]:
    """Return one page of a query, and cursors to the pages beside it.

    The order is the statement's ORDER BY, in any mixture of directions, with NULLs where the database puts them; the
    primary key is added as the last word, so that no two rows are equal. Rows that are added or removed between two
    pages never shift, repeat or drop the others. At most ``size + 1`` rows are fetched, and none is counted.

    Args:
        session: a ``Session`` or ``AsyncSession``.
        statement: ``select(Model)`` with any criteria and loader options, ordered by columns or expressions; no limit,
            no offset, no joined collection.
        after: ``next`` or ``previous`` of a page of the same query; ``None`` (default): the first page.
        size: rows of a page; >= 1, default 50.
        secret: key that cursors are signed with; default: the environment's ``ISP_PERF_SECRET``, else one made for this
            process, whose cursors do not survive it. Cursors are signed, not hidden: they hold the values that the
            last row was ordered by.

    Returns:
        The page; an awaitable of it for an ``AsyncSession``.

    Raises:
        ConfigurationError: a cursor that was changed or is of another query, a statement that cannot be paged, or a
            size below 1. It is a ``ValueError``.
    """
    _refuse_size(size)
    entity = _paged(statement)
    key = secret_bytes(secret)
    return run(session, lambda plain: _Paging(plain, statement, entity, key=key).page(after, size), name="keyset_page")


def _refuse_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigurationError("size", size, "a page has a whole number of rows >= 1", "take 50")


def _paged(statement: Any) -> Entity:
    """Return the entity that a statement selects, if its rows can be paged.

    Raises:
        ConfigurationError: they cannot.
    """
    described: list[Any] = statement.column_descriptions if is_select(statement) else []
    if len(described) != 1 or described[0]["entity"] is None or described[0]["expr"] is not described[0]["entity"]:
        rule, fix = "pages are made of select() of one mapped class", "write select(Model), ordered and filtered"
        raise ConfigurationError("statement", type(statement).__name__, rule, fix)
    if cut_clauses(statement):
        rule, fix = "a page has a size of its own", "leave limit() and offset() out"
        raise ConfigurationError("statement", "limit or offset", rule, fix)
    return entity_of(described[0]["entity"])


@dataclass(frozen=True, slots=True)
class _Key:
    """One thing that rows are ordered by.

    Args:
        element: the expression.
        descending: large values come first.
        nulls_first: NULLs come before values.
        nullable: it may be NULL.
    """

    element: Any
    descending: bool
    nulls_first: bool
    nullable: bool

    def turned(self) -> "_Key":
        """Return the key that sorts exactly the other way round."""
        return _Key(self.element, not self.descending, not self.nulls_first, self.nullable)

    def clause(self) -> Any:
        """Return it as an ORDER BY element."""
        ordered = self.element.desc() if self.descending else self.element.asc()
        if not self.nullable:
            return ordered
        return ordered.nulls_first() if self.nulls_first else ordered.nulls_last()

    def same(self, value: Any) -> Any:
        """Return the condition that it has ``value``."""
        return self.element.is_(None) if value is None else self.element == self.bound(value)

    def bound(self, value: Any) -> Any:
        """Return a value as a parameter of the element's type."""
        return bindparam(None, value, type_=self.element.type)

    def later(self, value: Any, *, at_least: bool = False) -> Any:
        """Return the condition that it sorts after ``value``, or beside it."""
        if value is None:
            return self.element.is_not(None) if self.nulls_first else false()
        if self.descending:
            found = self.element <= self.bound(value) if at_least else self.element < self.bound(value)
        else:
            found = self.element >= self.bound(value) if at_least else self.element > self.bound(value)
        return or_(found, self.element.is_(None)) if self.nullable and not self.nulls_first else found


class _Paging:
    """One page being read."""

    def __init__(self, session: Session, statement: Any, entity: Entity, *, key: bytes) -> None:
        self.session = session
        self.statement = statement
        self.entity = entity
        self.secret = key
        dialect = session.get_bind(entity.mapper).dialect
        self.keys = _keys_of(statement, entity, dialect)
        self.order = str(statement.compile(dialect=dialect))

    def page(self, after: str | None, size: int) -> Page[Any]:
        """Return the page that a cursor leads to."""
        cursor = _START if after is None else read_cursor(after, self.secret, self.order)
        rows = self._rows(self._asking(cursor).limit(size + 1))
        more, rows = len(rows) > size, rows[:size]
        if not rows:
            return self._empty(cursor)
        if cursor.backwards:
            rows.reverse()
        return self._linked(rows, cursor, more=more)

    def _linked(self, rows: list[Any], cursor: Cursor, *, more: bool) -> Page[Any]:
        """Return rows as a page with the cursors to those beside it."""
        places = [tuple(row[1:]) for row in rows]
        _refuse_repeats(places)
        following = self._text(Cursor(places[-1])) if more or cursor.backwards else None
        before = self._text(Cursor(places[0], backwards=True)) if _leads_back(cursor, more=more) else None
        return Page([row[0] for row in rows], following, before)

    def _asking(self, cursor: Cursor) -> Any:
        """Return the statement for the rows beyond a cursor, with what they are ordered by beside each."""
        keys = [key.turned() for key in self.keys] if cursor.backwards else self.keys
        statement = self.statement.order_by(None).order_by(*(key.clause() for key in keys))
        statement = statement.add_columns(*(key.element.label(f"isp_k{n}") for n, key in enumerate(keys)))
        if cursor is _START:
            return statement
        return statement.where(_beyond(keys, self._typed(cursor.keys), inclusive=cursor.inclusive))

    def _empty(self, cursor: Cursor) -> Page[Any]:
        """Return a page without rows, which knows the way back to where it was asked from."""
        if cursor is _START:
            return Page([])
        back = self._text(Cursor(cursor.keys, not cursor.backwards, not cursor.inclusive))
        return Page([], next=back) if cursor.backwards else Page([], previous=back)

    def _text(self, cursor: Cursor) -> str:
        return written(cursor, self.secret, self.order)

    def _typed(self, values: tuple[Any, ...]) -> list[Any]:
        """Return values as the columns have them: enums by their class."""
        kinds = [getattr(key.element.type, "enum_class", None) for key in self.keys]
        return [
            value if kind is None or value is None else kind[value] for kind, value in zip(kinds, values, strict=True)
        ]

    def _rows(self, statement: Any) -> list[Any]:
        try:
            result: Any = self.session.execute(statement, execution_options={"isp_part": True})
            return list(result)
        except InvalidRequestError as error:
            if "unique()" not in str(error):
                raise
            rule = "a joined collection repeats the rows of its parent"
            fix = "load it with selectinload(), or with preload()"
            raise ConfigurationError("statement", "joined collection", rule, fix) from error


_START = Cursor(())


def _leads_back(cursor: Cursor, *, more: bool) -> bool:
    """Whether there is a page before the one that was read from ``cursor``."""
    return more if cursor.backwards else cursor is not _START


def _refuse_repeats(places: list[Any]) -> None:
    if len(set(places)) < len(places):
        rule = "rows of a page are told apart by the primary key, and a join repeats them"
        raise ConfigurationError("statement", "repeated rows", rule, "filter by exists() or any() in its place")


def _keys_of(statement: Any, entity: Entity, dialect: Dialect) -> list[_Key]:
    """Return what rows are ordered by: what the statement says, and the primary key."""
    mapped = {column.table for column in entity.mapper.columns.values() if is_column(column)}
    keys = [_key_of(clause, mapped, dialect) for clause in order_clauses(statement)]
    for column in entity.mapper.primary_key:
        attribute = getattr(entity.entity, entity.mapper.get_property_by_column(column).key)
        expression = attribute.__clause_element__()
        if not any(key.element.compare(expression) for key in keys):
            keys.append(_Key(expression, descending=False, nulls_first=False, nullable=False))
    return keys


def _key_of(clause: Any, mapped: set[Any], dialect: Dialect) -> _Key:
    element, descending, nulls_first = order_of(clause)
    if not hasattr(element, "asc"):
        rule, fix = "the order is told by columns and expressions, not by text", "write order_by(Model.column)"
        raise ConfigurationError("statement", "order_by", rule, fix)
    if nulls_first is None:
        nulls_first = descending is (dialect.name in _NULLS_ARE_LARGEST)
    sure = is_column(element) and not element.nullable and element.table in mapped
    return _Key(element, descending, nulls_first, nullable=not sure)


def _beyond(keys: Sequence[_Key], values: Sequence[Any], *, inclusive: bool) -> Any:
    """Return the condition that a row sorts after the one with these values, or is that one."""
    if len({(key.descending, key.nullable) for key in keys}) == 1 and not keys[0].nullable:
        return _by_row(keys, values, inclusive=inclusive)
    pairs = list(zip(keys, values, strict=True))
    chain: Any = and_(*(key.same(value) for key, value in pairs)) if inclusive else false()
    for key, value in reversed(pairs):
        chain = or_(key.later(value), and_(key.same(value), chain))
    first, value = pairs[0]
    # What follows from the chain anyway, in the one form that every database can read from an index.
    return chain if value is None else and_(first.later(value, at_least=True), chain)


def _by_row(keys: Sequence[_Key], values: Sequence[Any], *, inclusive: bool) -> Any:
    """Return the same condition as one comparison of rows, where all keys have one direction and no NULLs."""
    mine = tuple_(*(key.element for key in keys))
    theirs = tuple_(*(key.bound(value) for key, value in zip(keys, values, strict=True)))
    if keys[0].descending:
        return mine <= theirs if inclusive else mine < theirs
    return mine >= theirs if inclusive else mine > theirs
