"""Counting the statements of a block, and holding it to a budget."""

from contextvars import Token
from types import TracebackType
from typing import Self

from isp_perf._core.query_findings import Finding, Statement, require_budget
from isp_perf.errors import ConfigurationError, QueryBudgetError
from isp_perf.queries._scopes import CURRENT, Scope
from isp_perf.queries._watch import WATCHES

__all__ = ["QueryCount", "count_queries", "query_budget"]

_SHOWN = 5


class QueryCount:
    """What was asked of the database within a ``with`` block; made by ``count_queries`` and ``query_budget``.

    Statements of every engine that ``install`` was called on are counted: of this task or thread, and of tasks, and of
    threads that got its context (``asyncio.to_thread`` and the thread pools of ASGI frameworks do so). BEGIN, COMMIT
    and savepoints are not counted. Blocks nest, an inner one counts for the outer one too.

    Args:
        limit: statements allowed; ``None``: any number.
        at_once: raise before the first statement too many, not on leaving.
        watched: refuse to count while no engine is watched.

    Raises:
        ConfigurationError: on leaving, if no engine is watched: the count would say nothing. Also on entering twice.
        QueryBudgetError: on leaving, if there is a budget and it was exceeded.
    """

    __slots__ = ("_at_once", "_limit", "_scope", "_token", "_watched")

    def __init__(self, limit: int | None = None, *, at_once: bool = False, watched: bool = True) -> None:
        self._limit = limit
        self._at_once = at_once
        self._watched = watched
        self._scope = Scope()
        self._token: Token[Scope | None] | None = None

    @property
    def count(self) -> int:
        """Statements sent so far; >= 0."""
        return self._scope.count

    @property
    def seconds(self) -> float:
        """Seconds the driver worked on them, without the fetching of rows."""
        return self._scope.nanoseconds / 1e9

    @property
    def statements(self) -> list[Statement]:
        """The texts sent, in the order of their first use, each with count, seconds and site."""
        return self._scope.statements()

    @property
    def findings(self) -> list[Finding]:
        """What could have been done in fewer statements, the most wasteful first."""
        return self._scope.findings()

    def __enter__(self) -> Self:
        if self._token is not None:
            raise ConfigurationError("count_queries", "entered twice", "one block, one count", "call it anew")
        self._scope.outer = CURRENT.get()
        if self._at_once:
            self._scope.limit, self._scope.beyond = self._limit, self._refuse
        self._token = CURRENT.set(self._scope)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            CURRENT.reset(self._token)
        if error is not None:
            return
        self._scope.close()
        if self._watched and not WATCHES:
            raise ConfigurationError(
                "count_queries",
                "no engine",
                "only statements of installed engines are seen",
                "call isp_perf.queries.install(engine) first",
            )
        if self._limit is not None and self.count > self._limit:
            raise QueryBudgetError(self.excess(self._limit), tuple(self.findings))

    def _refuse(self) -> None:
        if self._limit is not None:
            raise QueryBudgetError(self.excess(self._limit, one_more=True), tuple(self.findings))

    def excess(self, limit: int, *, one_more: bool = False) -> str:
        """Say what a budget of ``limit`` statements was spent on, without any value.

        Args:
            limit: statements allowed.
            one_more: count the statement that is about to be sent.
        """
        count = self.count + one_more
        findings = [str(finding) for finding in self.findings]
        most = sorted(self.statements, key=lambda statement: -statement.count)[:_SHOWN]
        lines = findings or [f"{entry.count} x {' '.join(entry.text.split())[:120]} ({entry.site})" for entry in most]
        return "\n  ".join([f"{count} statements, {limit} allowed", *lines])


def count_queries() -> QueryCount:
    """Count the statements of a block, to be read within it and after it.

    Returns:
        An object with ``count``, ``seconds``, ``statements`` and ``findings``, which may be read within the block and
        after it.
    """
    return QueryCount()


def query_budget(max_queries: int, *, at_once: bool = False) -> QueryCount:
    """Allow a ``with`` block no more than ``max_queries`` statements.

    Args:
        max_queries: statements allowed; >= 0.
        at_once: raise before the first statement too many is sent; default: on leaving the block, with everything
            that was found. An exception of the block itself is never replaced.

    Raises:
        ConfigurationError: ``max_queries`` is not a whole number >= 0.
        QueryBudgetError: the block sent more; ``findings`` and the message say from where.
    """
    require_budget("max_queries", max_queries)
    return QueryCount(max_queries, at_once=at_once)
