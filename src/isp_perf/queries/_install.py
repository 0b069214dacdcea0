"""Switches watching and batching on and off."""

import warnings
from typing import Any, Literal

from sqlalchemy import Engine, event

from isp_perf._core.query_findings import require_budget
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import can_batch
from isp_perf.queries._peers import Batching
from isp_perf.queries._stats import QueryStats
from isp_perf.queries._targets import engine_of, sessions_of
from isp_perf.queries._watch import WATCHES, Detect, Watch

__all__ = ["BatchingWarning", "Installed", "install"]

_DETECT = ("off", "warn", "raise")
_BATCHING = ("peers", "off")
_EVENT = "do_orm_execute"


class BatchingWarning(UserWarning):
    """Peer batching is not available with this SQLAlchemy; lazy loads go their plain way."""


class Installed:
    """What ``install`` put on an engine: the handle to its counters and to its removal.

    Args:
        watch: the hook on the engine; handles are made by ``install`` only.
    """

    __slots__ = ("_hooks", "_watch")

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._hooks: list[tuple[Any, Batching]] = []

    @property
    def engine(self) -> Engine:
        """The engine that is watched; for async targets the plain engine inside."""
        return self._watch.engine

    def stats(self) -> QueryStats:
        """Return a snapshot of the counters."""
        return self._watch.stats.copy()

    def remove(self) -> None:
        """Stop watching and batching; calling it again does nothing."""
        self.stop_batching()
        if self._watch in WATCHES:
            self._watch.remove()

    def batch(self, target: Any) -> None:
        """Batch the lazy loads of the sessions of ``target`` as well."""
        sessions, bind = sessions_of(target)
        if all(sessions is not known for known, _ in self._hooks):
            hook = Batching(self._watch.stats, bind)
            event.listen(sessions, _EVENT, hook)
            self._hooks.append((sessions, hook))

    def stop_batching(self) -> None:
        """Let every lazy load go its plain way again."""
        for sessions, hook in self._hooks:
            event.remove(sessions, _EVENT, hook)
        self._hooks.clear()


def install(
    target: Any,
    *,
    batching: Literal["peers", "off"] = "peers",
    detect: Detect = "off",
    slow_ms: float | None = None,
    budget: int | None = None,
) -> Installed:
    """Batch the lazy loads of an engine's sessions, and watch its statements.

    Touch a relationship, or a deferred or expired column, of one of the objects that one query returned, and it is
    loaded for all of them in one statement; results are those of plain lazy loading. Statements can be counted, held
    to a budget and searched for N+1. Calling it again for the same engine, or for a factory or session of it, changes
    the settings and returns the same handle.

    Args:
        target: an engine, a session factory that has a bind, or a session; sync or async. With an engine, sessions
            whose ``bind`` it is are batched; with a factory or session, those sessions.
        batching: ``"peers"`` (default) or ``"off"``; per statement ``execution_options(isp_batching="off")``. Needs
            SQLAlchemy 2.0 or 2.1; where it is not available one ``BatchingWarning`` says so and lazy loads stay plain.
        detect: what to do about N+1. ``"off"`` (default): findings are kept for ``count_queries`` only. ``"warn"``: one
            ``NPlusOneWarning`` per line and relationship, at the user's line, and one log line a minute on
            ``isp_perf.queries``. ``"raise"``: ``NPlusOneError`` in place of the third statement.
        slow_ms: milliseconds (>= 0) from which a statement is logged as slow on ``isp_perf.queries``, once a minute for
            each text, with the line that sent it and, from PostgreSQL 12 on and for SQLite files, the plan; never with
            values. ``None`` (default): none.
        budget: statements allowed per request (see ``QueryBudgetMiddleware``) or, where no scope is open, per checkout
            of a connection; more are logged as a warning. ``None`` (default): any number. Never an error.

    Returns:
        A handle with ``stats()`` and ``remove()``.

    Raises:
        ConfigurationError: ``target`` leads to no engine, ``batching`` or ``detect`` is unknown, ``budget`` is no whole
            number >= 0, or ``slow_ms`` is negative.
    """
    _check(batching, detect, budget=budget, slow_ms=slow_ms)
    watch = _watch_of(engine_of(target))
    watch.detect, watch.budget = detect, budget
    watch.tell_slow(slow_ms)
    handle: Installed = watch.handle or Installed(watch)
    watch.handle = handle
    if batching == "off":
        handle.stop_batching()
    elif can_batch():
        handle.batch(target)
    else:
        warnings.warn(
            "peer batching needs the select-in loader of SQLAlchemy 2.0 or 2.1", BatchingWarning, stacklevel=2
        )
    return handle


def _check(batching: str, detect: str, *, budget: int | None, slow_ms: float | None) -> None:
    if detect not in _DETECT:
        raise ConfigurationError("detect", detect, "detect is 'off', 'warn' or 'raise'", "take one of the three")
    if batching not in _BATCHING:
        raise ConfigurationError("batching", batching, "batching is 'peers' or 'off'", "take one of the two")
    if budget is not None:
        require_budget("budget", budget)
    if slow_ms is not None and not slow_ms >= 0:
        raise ConfigurationError("slow_ms", slow_ms, "a time is >= 0 milliseconds", "leave it out to log none")


def _watch_of(engine: Engine) -> Watch:
    for watch in list(WATCHES):
        if watch.engine.dialect is engine.dialect:
            return watch
    return Watch(engine, QueryStats())
