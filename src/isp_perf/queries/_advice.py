"""Advises indexes for the statements that were sent, and against those that nothing needs."""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from isp_perf._core.index_rules import Candidate, Existing, Need, candidates, commonness, redundant, serves, takes_in
from isp_perf.errors import ConfigurationError
from isp_perf.queries._advice_catalog import indexes_of, unused_names
from isp_perf.queries._advice_plans import AS_WRITTEN, Plan, plan_of, taken_back
from isp_perf.queries._advice_texts import create_texts, drop_texts, name_for
from isp_perf.queries._colours import run
from isp_perf.queries._watch import LOG, WATCHES, Watch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["IndexAdvice", "suggest_indexes"]

_PAYS = 0.95  # of the cost before: what a new index must stay below

Table = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """An index to create or to drop. Nothing is done about it.

    Args:
        ddl: the statement to run.
        alembic: the line for a migration.
        statements: texts of the statements it serves, without values; empty for an index to drop.
        cost_before: what these cost in the planner's units, those left out that a shorter index was tried for, which
            this one begins with; ``None`` where the planner tells none (SQLite).
        cost_after: the same with the index; ``None`` unless it was tried.
        verified: whether the index was tried, and the planner used it.
        reason: ``"missing"``; or, for an index to drop, ``"duplicate"`` or ``"unused"``.
    """

    ddl: str
    alembic: str
    statements: tuple[str, ...]
    cost_before: float | None
    cost_after: float | None
    verified: bool
    reason: str = "missing"


@overload
def suggest_indexes(session: "Session | scoped_session[Any]", *, scratch: bool = False) -> list[IndexAdvice]: ...
@overload
def suggest_indexes(session: "AsyncSession", *, scratch: bool = False) -> Awaitable[list[IndexAdvice]]: ...
def suggest_indexes(
    session: "Session | scoped_session[Any] | AsyncSession", *, scratch: bool = False
) -> list[IndexAdvice] | Awaitable[list[IndexAdvice]]:
    """Say which indexes would serve the statements sent since ``install``, and which ones nothing needs.

    Reads the SELECTs of the first 1,000 texts that were sent. Equalities come first in an index, then the order of the
    rows with LIMIT, or one range; with ``IS NULL`` conditions partial indexes are tried, and on PostgreSQL ones that
    carry up to three more columns. What an existing index, key or unique constraint serves is left out. Index
    duplicates are reported for the tables of these statements, and on PostgreSQL indexes never read though their table
    was read 100 times; look at your replicas before you drop one.

    Changes nothing. Runs in the session's transaction, which stays open.

    Args:
        session: a ``Session`` or ``AsyncSession`` of an engine that is watched.
        scratch: ``True``: the database is a copy, so that each index may be made in a savepoint, shown to the planner
            and taken back, which locks the table for that time; only indexes that the planner then uses, on PostgreSQL
            at less than 0.95 of the cost, are advised. ``False`` (default): best guesses, ``verified`` is ``False``.

    Returns:
        What to create, then what to drop; an awaitable of it for an ``AsyncSession``.

    Raises:
        ConfigurationError: the engine is not watched, or is neither PostgreSQL nor SQLite.
    """

    def work(plain: Session) -> list[IndexAdvice]:
        connection = plain.connection()
        return _Advisor(connection, _watch_of(connection), scratch=scratch).advice()

    return run(session, work, name="suggest_indexes")


def _watch_of(connection: Connection) -> Watch:
    if connection.dialect.name not in {"postgresql", "sqlite"}:
        rule = "indexes are advised for PostgreSQL and SQLite"
        raise ConfigurationError("session", connection.dialect.name, rule, "ask a session of one of the two")
    for watch in list(WATCHES):
        if watch.engine.dialect is connection.dialect:
            return watch
    rule = "advice is about statements that were seen"
    raise ConfigurationError("session", "an engine that is not watched", rule, "call install(engine) when you start")


@dataclass(slots=True)
class _Choice:
    """An index that is advised so far, and what it does for whom."""

    candidate: Candidate
    statements: list[str] = field(default_factory=list[str])
    also: list[str] = field(default_factory=list[str])
    before: float | None = None
    after: float | None = None

    def add(self, text: str, before: float | None, after: float | None) -> None:
        self.statements.append(text)
        self.before = before if self.before is None or before is None else self.before + before
        self.after = after if self.after is None or after is None else self.after + after


class _Advisor:
    """One look at what was observed."""

    def __init__(self, connection: Connection, watch: Watch, *, scratch: bool) -> None:
        self.connection = connection
        self.scratch = scratch
        self.indexes: dict[Table, list[Existing]] = {}
        seen = [(text, need) for text, needs in list(watch.observed.values()) for need in needs]
        for table in dict.fromkeys(need.table for _, need in seen):
            self._learn(table)
        self.seen = [(text, need) for text, need in seen if need.table in self.indexes]

    def _learn(self, table: Table) -> None:
        indexes = indexes_of(self.connection, table)
        if indexes is not None:
            self.indexes[table] = indexes

    def advice(self) -> list[IndexAdvice]:
        """Return what to create, then what to drop."""
        choices = self._choices()
        wanted = [each for each in choices.values() if not self._absorbed(each, choices.values())]
        return [*map(self._missing, wanted), *self._needless()]

    def _choices(self) -> dict[Candidate, _Choice]:
        common = commonness(need for _, need in self.seen)
        choices: dict[Candidate, _Choice] = {}
        for text, need in self.seen:
            tried = self._unserved(need, candidates(need, common))
            before = plan_of(self.connection, text) if tried else None
            best = self._best(text, tried, before)
            if best is not None:
                choice = choices.setdefault(best[0], _Choice(best[0]))
                choice.add(text, None if before is None else before.cost, None if best[1] is None else best[1].cost)
        return choices

    def _unserved(self, need: Need, tried: list[Candidate]) -> list[Candidate]:
        """Leave out what existing indexes do, and variants of it."""
        known = self.indexes[need.table]
        served = {_head(each) for each in tried if any(serves(index, each) for index in known)}
        postgresql = self.connection.dialect.name == "postgresql"
        return [each for each in tried if _head(each) not in served and (postgresql or not each.include)]

    def _best(self, text: str, tried: list[Candidate], before: Plan | None) -> tuple[Candidate, Plan | None] | None:
        """Return the candidate to advise, with the plan that uses it if it was tried."""
        if not tried or before is None:
            return None
        if not self.scratch:
            return tried[0], None
        best: tuple[Candidate, Plan | None] | None = None
        lowest = before
        for each in tried:
            plan = self._with(each, text)
            if plan is not None and _pays(lowest, plan, first=best is None):
                best, lowest = (each, plan), plan
        return best

    def _with(self, candidate: Candidate, text: str) -> Plan | None:
        """Return the plan with an index that is there for this question only; ``None`` if it is not used."""
        name = self._name(candidate)
        ddl = create_texts(candidate, name, self.connection.dialect)[0]
        try:
            with taken_back(self.connection):
                self.connection.exec_driver_sql(ddl, execution_options=AS_WRITTEN)
                plan = plan_of(self.connection, text)
        except DBAPIError as error:
            LOG.warning("an index could not be tried (%s): %s", type(error.orig).__name__, ddl)
            return None
        return plan if plan is not None and plan.uses(name) else None

    def _absorbed(self, choice: _Choice, others: Iterable[_Choice]) -> bool:
        """Hand the statements of a choice to one that begins as it goes, if there is one."""
        for other in others:
            if takes_in(other.candidate, choice.candidate):
                other.also.extend(choice.statements)  # served, but not measured with this index
                return True
        return False

    def _missing(self, choice: _Choice) -> IndexAdvice:
        ddl, alembic = create_texts(choice.candidate, self._name(choice.candidate), self.connection.dialect)
        statements = tuple(dict.fromkeys((*choice.statements, *choice.also)))
        return IndexAdvice(ddl, alembic, statements, choice.before, choice.after, verified=self.scratch)

    def _name(self, candidate: Candidate) -> str:
        return name_for(candidate, {index.name for index in self.indexes[candidate.table]})

    def _needless(self) -> Iterable[IndexAdvice]:
        for table, indexes in self.indexes.items():
            doubled = {index.name for index, _ in redundant(indexes)}
            reasons = dict.fromkeys(unused_names(self.connection, table), "unused")
            reasons.update(dict.fromkeys(sorted(doubled), "duplicate"))
            for name, reason in reasons.items():
                ddl, alembic = drop_texts(table, name, self.connection.dialect)
                yield IndexAdvice(ddl, alembic, (), None, None, verified=False, reason=reason)


def _head(candidate: Candidate) -> frozenset[str]:
    return frozenset(name for name, _ in candidate.columns[: candidate.first])


def _pays(before: Plan, after: Plan, *, first: bool) -> bool:
    """Whether a plan is better by more than a little; of plans without costs the first one is."""
    if before.cost is None or after.cost is None:
        return first
    return after.cost < before.cost * _PAYS
