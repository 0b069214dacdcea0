"""The one hook on an engine: counts, times and compares every statement the driver executes.

``do_execute`` and its two relatives are the innermost events of SQLAlchemy. A listener there may run the cursor itself,
so one call both counts and times; two events around the cursor would cost four times as much. Listeners of others on
the same event still get their turn: they are asked, in their order, from inside the hook.
"""

import logging
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, perf_counter_ns
from typing import Any, Literal, TypeAlias

from sqlalchemy import Engine, event

from isp_perf._core.histogram import CELLS, cell_of
from isp_perf._core.index_rules import Need
from isp_perf._core.query_findings import Entry, Finding
from isp_perf.errors import NPlusOneError
from isp_perf.queries._advice_needs import needs_of
from isp_perf.queries._compat import go_first
from isp_perf.queries._scopes import CURRENT, Mark, Scope, fingerprint_of
from isp_perf.queries._slow import SlowLog
from isp_perf.queries._stats import QueryStats
from isp_perf.queries._unread import forget_reads, learn

__all__ = ["LOG", "WATCHES", "Detect", "NPlusOneWarning", "Watch", "noted"]

Detect: TypeAlias = Literal["off", "warn", "raise"]

LOG = logging.getLogger("isp_perf.queries")

_SCOPE = "isp_perf.queries.scope"
_SITES_KEPT = 1000
_TEXTS_KEPT = 1000
_UNREAD_SCOPES = 10  # in a row, after which a preload counts as unused
_LOG_INTERVAL = 60.0  # seconds between two lines about one site


class NPlusOneWarning(UserWarning):
    """One statement per object of a list was sent; the message names the line and the preload to add."""


class Watch:
    """What is watched on one engine, and what is done about findings.

    Args:
        engine: the engine whose statements are seen from now on.
        stats: the counters to count in.

    Attributes:
        cells: the statements by the time the driver worked on each, in nanoseconds (``_core.histogram``).
    """

    __slots__ = (
        "__weakref__",
        "_hooks",
        "_seen",
        "_unread",
        "budget",
        "cells",
        "detect",
        "engine",
        "handle",
        "observed",
        "sites",
        "slow",
        "stats",
    )

    cells: list[int]
    engine: Engine
    observed: dict[str, tuple[str, list[Need]]]
    sites: dict[tuple[str, str, str, int], int]
    stats: QueryStats

    def __init__(self, engine: Engine, stats: QueryStats) -> None:
        self.engine = engine
        self.stats = stats
        self.cells = [0] * CELLS
        self.detect: Detect = "off"
        self.budget: int | None = None
        self.slow: SlowLog | None = None
        self.sites = {}  # (kind, path, file, line) -> findings, of the first sites only
        self.observed = {}  # compiled text -> the text sent and what it asks of indexes, without values
        self.handle: Any = None  # what install() returned, kept alive with the engine
        self._seen: dict[tuple[str, int, str], float] = {}
        self._unread: dict[tuple[str, int, str], int] = {}
        names = ("do_execute", "do_executemany", "do_execute_no_params")
        self._hooks: dict[str, Callable[..., Any]] = {name: partial(self._run, name) for name in names}
        for name, hook in self._hooks.items():
            event.listen(engine, name, hook)
            go_first(engine.dialect, name, hook)
        self._hooks["checkin"] = self._checkin
        event.listen(engine, "checkin", self._checkin)
        WATCHES.add(self)

    def remove(self) -> None:
        """Stop watching."""
        for name, hook in self._hooks.items():
            event.remove(self.engine, name, hook)
        WATCHES.discard(self)
        if not WATCHES:
            forget_reads()

    def _run(self, name: str, *call: Any) -> bool:
        """Execute one statement in the driver's place, between two looks at the clock."""
        context = call[-1]
        self._observe(call[1], context)
        scope = CURRENT.get()
        if scope is None and (scope := self._of_checkout(context)) is None:
            return self._time(name, call)
        entry = scope.entries.get(call[1])
        if entry is not None and entry.quiet and scope.outer is None and _is_known(scope, entry, call):
            return self._count(name, call, scope, entry)
        marks = self._begin(scope, call, context)
        failed = True
        started = perf_counter_ns()
        try:
            self._execute(name, call, context)
            failed = False
        finally:
            spent = perf_counter_ns() - started
            for mark in marks:
                mark.done(spent, failed=failed)
            self._add(call, spent)
        return True

    def _observe(self, text: str, context: Any) -> None:
        """Keep what the first statements, one of each text, ask of indexes."""
        compiled: Any = context.compiled
        shape = None if compiled is None or context.isddl else compiled.string
        if shape is not None and shape not in self.observed and len(self.observed) < _TEXTS_KEPT:
            self.observed[shape] = text, needs_of(compiled)

    def _time(self, name: str, call: tuple[Any, ...]) -> bool:
        """Execute a statement for which no scope is open, if it is of interest whether it is slow."""
        if self.slow is None:
            return False
        started = perf_counter_ns()
        try:
            self._execute(name, call, call[-1])
        finally:
            self._add(call, perf_counter_ns() - started)
        return True

    def _add(self, call: tuple[Any, ...], spent: int) -> None:
        self.stats.statements += 1
        self.stats.nanoseconds += spent
        cell = cell_of(spent)
        self.cells[cell] += 1
        if self.slow is not None and spent >= self.slow.limit:
            self.slow.note(call[1], spent)

    def _count(self, name: str, call: tuple[Any, ...], *where: Any) -> bool:
        """Execute a statement about which everything is known, and count it."""
        scope, entry = where
        started = perf_counter_ns()
        try:
            self._execute(name, call, call[-1])
        finally:
            spent = perf_counter_ns() - started
            scope.count += 1
            scope.nanoseconds += spent
            entry.count += 1
            entry.nanoseconds += spent
            settled = entry.settled
            if settled is not None:
                settled.total += 1
                settled.nanoseconds += spent
            self._add(call, spent)
        return True

    def _execute(self, name: str, call: tuple[Any, ...], context: Any) -> None:
        own, dialect = self._hooks[name], context.dialect
        for listener in getattr(dialect.dispatch, name):
            if listener is not own and listener(*call):
                return
        getattr(dialect, name)(*call)

    def _begin(self, scope: Scope | None, call: Sequence[Any], context: Any) -> list[Mark]:
        parameters = _parameters(call)
        marks: list[Mark] = []
        while scope is not None:
            mark = scope.begin(call[1], parameters, context)
            if mark is None:
                return marks
            marks.append(mark)
            scope = scope.outer
        if marks[0].news is not None:
            self._report(marks[0].news)
        if not marks[0].entry.count and CURRENT.get() is not None:
            learn(marks, context, self._preloaded)
        return marks

    def _preloaded(self, finding: Finding, *, used: bool) -> None:
        """Report a preload that was not read in any of the first scopes that had it; called as each of them ends."""
        place = (finding.file, finding.line, finding.path)
        unread = self._unread.get(place, 0)
        if unread < _UNREAD_SCOPES and (unread or len(self._unread) < _SITES_KEPT):
            self._unread[place] = _UNREAD_SCOPES if used else unread + 1
            if self._unread[place] == _UNREAD_SCOPES and not used:
                self._report(finding)

    # ---- without a scope, one checkout of a connection is one --------------------------------------------------------

    def _of_checkout(self, context: Any) -> Scope | None:
        if self.detect == "off" and self.budget is None:
            return None
        try:
            info = context.root_connection.info
        except NotImplementedError:  # what the dialect itself asks of a new connection: not the user's statement
            return None
        scope: Scope | None = info.get(_SCOPE)
        if scope is None:
            scope = info[_SCOPE] = Scope()
        return scope

    def _checkin(self, _connection: Any, record: Any) -> None:
        scope: Scope | None = record.info.pop(_SCOPE, None)
        if scope is not None and self.budget is not None and scope.count > self.budget:
            self.over_budget(scope, "one checkout of a connection")

    # ---- what is done about findings ---------------------------------------------------------------------------------

    def tell_slow(self, milliseconds: float | None) -> None:
        """Log statements that take so long; ``None``: none."""
        limit = None if milliseconds is None else int(milliseconds * 1e6)
        self.slow = None if limit is None else SlowLog(self.engine, limit, stats=self.stats, log=LOG.warning)

    def over_budget(self, scope: Scope, where: str) -> None:
        """Log that ``scope`` sent more statements than the budget allows."""
        self.stats.over_budget += 1
        findings = "; ".join(map(str, scope.findings())) or "no statement repeats"
        LOG.warning("%d statements in %s, %s allowed: %s", scope.count, where, self.budget, findings)

    def _report(self, finding: Finding) -> None:
        setattr(self.stats, finding.kind, getattr(self.stats, finding.kind) + 1)
        site = (finding.kind, finding.path, finding.file, finding.line)
        if site in self.sites or len(self.sites) < _SITES_KEPT:
            self.sites[site] = self.sites.get(site, 0) + 1
        loop = finding.kind == "n_plus_one"
        if loop and self.detect == "raise":
            raise NPlusOneError(str(finding), (finding,))
        if self.detect != "off":
            self._say(finding, loop=loop)

    def _say(self, finding: Finding, *, loop: bool) -> None:
        """Log a finding once a minute for each site, and warn of an N+1 once for all."""
        site = (finding.file, finding.line, finding.path)
        now = monotonic()
        last = self._seen.get(site)
        if last is None or now - last >= _LOG_INTERVAL:
            LOG.log(logging.WARNING if loop else logging.INFO, "%s", finding)
            self._seen[site] = now
        if len(self._seen) > _SITES_KEPT:
            self._seen.pop(next(iter(self._seen)))
        if last is None and loop:
            warnings.warn_explicit(str(finding), NPlusOneWarning, finding.file or "<unknown>", finding.line)


def _is_known(scope: Scope, entry: Entry, call: Sequence[Any]) -> bool:
    """Whether an execution of a quiet text can only be counted."""
    if scope.limit is not None:
        return False
    return not (entry.watchful and entry.is_news(fingerprint_of(_parameters(call))))


def _parameters(call: Sequence[Any]) -> Any:
    """Return a statement's parameters; the event for statements without any hands over none."""
    return () if call[2] is call[-1] else call[2]


WATCHES: "weakref.WeakSet[Watch]" = weakref.WeakSet()
"""Every engine that is watched now."""


def noted(dialect: Any, text: str, nanoseconds: int) -> None:
    """Count a statement that went to the driver past SQLAlchemy, as COPY does."""
    for watch in list(WATCHES):
        scope = CURRENT.get() if watch.engine.dialect is dialect else None
        while scope is not None:
            scope.note(text, nanoseconds)
            scope = scope.outer
