"""Notes which tables each transaction writes, and tells cache managers once it is committed.

Every statement reaches the database through one dialect: those of a flush, of bulk DML, of Core, ``text()`` and driver
SQL. So that is where they are seen, and where BEGIN, COMMIT, ROLLBACK and savepoints are. What a transaction wrote is
kept with the connection of the driver, whoever uses it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakSet

from sqlalchemy import Connection, Engine, MetaData, TextClause, event

from isp_perf._core.sql_tables import table_name, writes_in
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import go_first, in_greenlet, wait_for
from isp_perf.queries._compat_cached import isolation_of
from isp_perf.queries._targets import engine_of

__all__ = ["ALL_TABLES", "QueryCacheManager", "Writes", "tag_of", "work_on", "writes_of", "wrote"]

LOG = logging.getLogger("isp_perf.queries")

ALL_TABLES: Final = "tables"
"""The tag of every cached query."""

_WRITES = "isp_perf_writes"
_WORK = "isp_perf.queries.work"
_TEXTS_KEPT = 2000
_EVENTS = ("do_execute", "do_executemany", "do_execute_no_params")
_FOLLOWS = {"CASCADE", "SET NULL", "SET DEFAULT"}


class BlockingInvalidator(Protocol):
    """What is asked of a cache manager from threads."""

    def invalidate_tags(self, *tags: str) -> object:
        """Remove every value that has one of ``tags``."""
        ...


class QueryCacheManager(Protocol):
    """What cached queries ask of a cache manager; ``isp_perf.CacheManager`` satisfies it."""

    @property
    def sync(self) -> BlockingInvalidator:
        """The same operations for threads."""
        ...

    @property
    def cached(self) -> Callable[..., Callable[[Callable[..., Any]], Any]]:
        """Return a decorator that caches the results of a function."""
        ...

    def invalidate_tags(self, *tags: str) -> Awaitable[object]:
        """Remove every value that has one of ``tags``."""
        ...


def tag_of(table: str) -> str:
    """Return the tag of what was read from a table; its schema does not count."""
    return f"table:{table_name(table)}"


class Work:
    """What one transaction wrote.

    Attributes:
        tags: of the tables written; ``ALL_TABLES`` if they are not known.
    """

    __slots__ = ("_level", "marks", "tags")

    tags: set[str]

    def __init__(self) -> None:
        self.tags = set()
        self.marks: list[tuple[str, frozenset[str]]] = []
        self._level = ""

    def level(self, connection: Connection) -> str:
        """Return the isolation level, which a transaction keeps."""
        level = self._level
        if not level:
            level = self._level = isolation_of(connection)
        return level

    def savepoint(self, name: str) -> None:
        """Remember what was written before a savepoint."""
        self.marks.append((name, frozenset(self.tags)))

    def rollback_to(self, name: str) -> None:
        """Forget what was written behind a savepoint."""
        for index in range(len(self.marks) - 1, -1, -1):
            if self.marks[index][0] == name:
                self.tags = set(self.marks[index][1])
                del self.marks[index + 1 :]
                return


def work_on(connection: Connection) -> Work | None:
    """Return what the open transaction of ``connection`` wrote."""
    work: Work | None = _info(connection).get(_WORK)
    return work


def _info(connection: Any) -> dict[str, Any]:
    """Return what is kept with a connection of the driver; nothing while the dialect greets its first one."""
    try:
        info: dict[str, Any] = connection.info
    except NotImplementedError:
        return {}
    return info


class Writes:
    """What is written through one dialect, which all engines with the same settings share.

    Args:
        engine: one of them.

    Attributes:
        managers: who is told.
        names: tables of which the mapping is known.
    """

    managers: "WeakSet[Any]"
    names: set[str]

    def __init__(self, engine: Engine) -> None:
        self.managers = WeakSet()
        self.names = set()
        self._dialect: Any = engine.dialect
        self._texts: dict[str, frozenset[str]] = {}
        self._metadata: dict[int, MetaData] = {}
        self._sizes: dict[int, int] = {}
        self._hooks: dict[str, Callable[..., Any]] = {name: partial(self._run, name) for name in _EVENTS}
        for name, hook in self._hooks.items():
            event.listen(engine, name, hook)
            go_first(engine.dialect, name, hook)
        self._plain: dict[str, Callable[..., Any]] = {}
        for name, boundary in _BOUNDARIES.items():
            self._plain[name] = getattr(self._dialect, name)
            setattr(self._dialect, name, partial(boundary, self, self._plain[name]))

    def learn(self, metadata: MetaData) -> None:
        """Take note of the tables of a mapping: their names and what a DELETE takes with it."""
        if self._sizes.get(id(metadata)) != len(metadata.tables):
            self._metadata[id(metadata)] = metadata
            self._sizes[id(metadata)] = len(metadata.tables)
            self.names.update(table_name(table.name) for table in metadata.tables.values())
            self._texts.clear()

    def tell(self, tags: Iterable[str]) -> None:
        """Have every manager drop what was read from the tables of ``tags``."""
        gone = tuple(tags)
        if not gone:
            return
        for manager in list(self.managers):
            if in_greenlet():
                wait_for(_told(manager, gone))
            else:
                manager.sync.invalidate_tags(*gone)

    def note(self, connection: Any, tags: Iterable[str]) -> None:
        """Note that the open transaction of ``connection`` writes the tables of ``tags``."""
        info = _info(connection)
        work = info.get(_WORK)
        if work is None:
            work = info[_WORK] = Work()
        work.tags.update(tags)

    # ---- statements --------------------------------------------------------------------------------------------------

    def _run(self, name: str, *call: Any) -> bool:
        """Note what a statement writes before it runs; where it commits by itself, run it and tell."""
        text, context = call[1], call[-1]
        tags = self._texts.get(text)
        if tags is None:
            tags = self._analysed(text, context)
        if not tags:
            return False
        connection = context.root_connection
        if not isolation_of(connection).startswith("AUTOCOMMIT"):
            self.note(connection, tags)
            return False
        try:
            self._execute(name, call)
        finally:
            self.tell(tags)
        return True

    def _execute(self, name: str, call: tuple[Any, ...]) -> None:
        """Ask the listeners behind this one, then the driver."""
        listeners = list(getattr(self._dialect.dispatch, name))
        for listener in listeners[listeners.index(self._hooks[name]) + 1 :]:
            if listener(*call):
                return
        getattr(self._dialect, name)(*call)

    def _analysed(self, text: str, context: Any) -> frozenset[str]:
        statement = context.invoked_statement
        table = getattr(getattr(context.compiled, "compile_state", None), "dml_table", None)
        if isinstance(metadata := getattr(table, "metadata", None), MetaData):
            self.learn(metadata)
        found = writes_in(text)
        declared = context.execution_options.get("isp_tables")
        if declared is not None:
            tags = _declared(declared)
        elif found.understood:
            if isinstance(statement, TextClause) and "isp_part" not in context.execution_options:
                self._require_known(found.tables)
            tags = frozenset(map(tag_of, self._followed(found.tables)))
        else:
            LOG.warning("a statement whose tables are not known empties the query cache; declare isp_tables")
            tags = frozenset((ALL_TABLES,))
        if len(self._texts) >= _TEXTS_KEPT:
            self._texts.clear()
        self._texts[text] = tags
        return tags

    def _require_known(self, tables: frozenset[str]) -> None:
        unknown = sorted(tables - self.names) if self.names else []
        if unknown:
            raise ConfigurationError(
                "text()",
                unknown[0],
                "it writes a table that no mapping knows, so cached queries that read it cannot be told",
                'name the mapped tables behind it: .execution_options(isp_tables=("name",)), or () for none',
            )

    def _followed(self, tables: Iterable[str]) -> set[str]:
        """Return ``tables`` and those that foreign keys change with them."""
        found, rest = set(tables), list(tables)
        while rest:
            name = rest.pop()
            for child in self._children(name):
                if child not in found:
                    found.add(child)
                    rest.append(child)
        return found

    def _children(self, name: str) -> Iterable[str]:
        for metadata in list(self._metadata.values()):
            for table in metadata.tables.values():
                for key in table.foreign_keys:
                    if {str(key.ondelete).upper(), str(key.onupdate).upper()} & _FOLLOWS:
                        target = key.target_fullname.rpartition(".")[0].rpartition(".")[2]
                        if table_name(target) == name:
                            yield table_name(table.name)

    # ---- transactions ------------------------------------------------------------------------------------------------

    def do_begin(self, plain: Callable[..., None], connection: Any) -> None:
        """Begin; from here on it is known what the transaction writes."""
        plain(connection)
        _info(connection)[_WORK] = Work()

    def do_commit(self, plain: Callable[..., None], connection: Any) -> None:
        """Commit, then tell; so too if it fails, since nobody knows then whether it was committed."""
        work = work_on(connection)
        try:
            plain(connection)
        finally:
            _info(connection).pop(_WORK, None)
            # A transaction that was open before anybody looked may have written anything.
            self.tell((ALL_TABLES,) if work is None else work.tags)

    def do_rollback(self, plain: Callable[..., None], connection: Any) -> None:
        """Roll back; nothing was written."""
        _info(connection).pop(_WORK, None)
        plain(connection)

    def do_savepoint(self, plain: Callable[..., None], connection: Any, name: str) -> None:
        """Set a savepoint."""
        plain(connection, name)
        if (work := work_on(connection)) is not None:
            work.savepoint(name)

    def do_rollback_to_savepoint(self, plain: Callable[..., None], connection: Any, name: str) -> None:
        """Roll back to a savepoint."""
        plain(connection, name)
        if (work := work_on(connection)) is not None:
            work.rollback_to(name)

    def do_commit_twophase(self, plain: Callable[..., None], connection: Any, *rest: Any, **options: Any) -> None:
        """Commit what was prepared, then tell."""
        work = work_on(connection)
        try:
            plain(connection, *rest, **options)
        finally:
            _info(connection).pop(_WORK, None)
            self.tell((ALL_TABLES,) if work is None else work.tags)

    def do_rollback_twophase(self, plain: Callable[..., None], connection: Any, *rest: Any, **options: Any) -> None:
        """Roll back what was prepared."""
        _info(connection).pop(_WORK, None)
        plain(connection, *rest, **options)


_BOUNDARIES: Final[dict[str, Callable[..., None]]] = {
    "do_begin": Writes.do_begin,
    "do_commit": Writes.do_commit,
    "do_rollback": Writes.do_rollback,
    "do_savepoint": Writes.do_savepoint,
    "do_rollback_to_savepoint": Writes.do_rollback_to_savepoint,
    "do_commit_twophase": Writes.do_commit_twophase,
    "do_rollback_twophase": Writes.do_rollback_twophase,
}


def _declared(tables: Any) -> frozenset[str]:
    return frozenset(map(tag_of, (tables,) if isinstance(tables, str) else tables))


async def _told(manager: Any, tags: tuple[str, ...]) -> None:
    """Tell a manager, to the end even if the caller is cancelled."""

    async def tell() -> None:
        await manager.invalidate_tags(*tags)

    await asyncio.shield(asyncio.ensure_future(tell()))


def writes_of(target: Any, manager: Any | None = None) -> Writes:
    """Return what watches the writes of an engine, and have it tell ``manager``."""
    engine = engine_of(target)
    dialect: dict[str, Any] = vars(engine.dialect)
    writes: Writes | None = dialect.get(_WRITES)
    if writes is None:
        writes = dialect[_WRITES] = Writes(engine)
    if manager is not None:
        writes.managers.add(manager)
    return writes


def wrote(connection: Connection, table: str) -> None:
    """Note a write that went to the driver past SQLAlchemy, as COPY does."""
    writes: Writes | None = vars(connection.dialect).get(_WRITES)
    if writes is not None:
        writes.note(connection, (tag_of(table),))
