"""Says which statements were slow, and how the database would run them, without the values they came with."""

import asyncio
import re
import threading
from contextlib import suppress
from inspect import currentframe
from queue import Full, Queue
from time import monotonic, perf_counter_ns
from typing import Any, Final

from sqlalchemy import Engine

from isp_perf._core.query_findings import verb_of
from isp_perf.queries._compat import spawned
from isp_perf.queries._sites import caller
from isp_perf.queries._stats import QueryStats

__all__ = ["SlowLog", "explanation", "preparable"]

_INTERVAL: Final = 60.0  # seconds between two lines about one text
_TEXTS_KEPT: Final = 1000
_SHARE: Final = 100  # explaining takes at most this part of the time of the statements
_EVERY_ERROR: Final = Exception  # a plan is a courtesy: an error of any driver means none
_NAMED: Final = re.compile(r"%\((\w+)\)s")
_NUMBERED: Final = re.compile(r"\$(\d+)")
_GENERIC: Final = (12, 0)
_BEFORE: Final = [("SET statement_timeout = 500", ()), ("SET plan_cache_mode = force_generic_plan", ())]


class SlowLog:
    """The slow statements of one engine.

    A line at most once a minute for each text. Plans are asked for in a thread with a connection of its own, never in
    the user's transaction, and only while that takes less than a hundredth of the statements' own time.

    Args:
        engine: whose statements.
        limit: nanoseconds from which a statement is slow.
        stats: what it counts in.
        log: writes a line.
    """

    __slots__ = ("_engine", "_log", "_said", "_spent", "_stats", "_todo", "limit")

    limit: int

    def __init__(self, engine: Engine, limit: int, *, stats: QueryStats, log: Any) -> None:
        self.limit = limit
        self._engine = engine
        self._stats = stats
        self._log = log
        self._said: dict[str, float] = {}
        self._spent = 0
        self._todo: Queue[str] | None = None

    def note(self, text: str, nanoseconds: int) -> None:
        """Take note of a slow statement, from the frame that sent it."""
        self._stats.slow += 1
        now = monotonic()
        last = self._said.get(text)
        if last is not None and now - last < _INTERVAL:
            return
        if len(self._said) >= _TEXTS_KEPT:
            self._said.pop(next(iter(self._said)))
        self._said[text] = now
        file, line, function = caller(currentframe())
        self._log("%s:%d: %.0f ms in %s: %s", file, line, nanoseconds / 1e6, function, text)
        if self._spent * _SHARE <= self._stats.nanoseconds and verb_of(text) in {"read", "write"}:
            self._ask_for(text)

    def _ask_for(self, text: str) -> None:
        if self._todo is None:
            self._todo = Queue(1)
            threading.Thread(target=self._work, args=(self._todo,), name="isp_perf explain", daemon=True).start()
        with suppress(Full):
            self._todo.put_nowait(text)

    def _work(self, todo: "Queue[str]") -> None:
        while True:
            text = todo.get()
            started = perf_counter_ns()
            try:
                plan = explanation(self._engine, text)
            except _EVERY_ERROR:
                plan = None
            self._spent += perf_counter_ns() - started
            if plan is None:
                self._stats.unexplained += 1
            else:
                self._log("the plan of %s: %s", text, plan)


def explanation(engine: Engine, text: str) -> str | None:
    """Return how the database would run a statement, whatever its values; ``None`` where it cannot be asked.

    PostgreSQL 12 and later, and SQLite files. The statement is not run.
    """
    asking = _asking(engine, text)
    if asking is None:
        return None
    found: list[str] = []

    def ask() -> None:
        connection: Any = engine.pool.recreate().connect()
        connection.detach()
        try:
            cursor = connection.cursor()
            for order, parameters in asking:
                cursor.execute(order, parameters) if parameters else cursor.execute(order)
            found.extend(str(row[-1]) for row in cursor.fetchall())
            cursor.close()
        finally:
            connection.close()

    if engine.dialect.is_async:
        asyncio.run(spawned(ask))
    else:
        ask()
    return "; ".join(found)


def _asking(engine: Engine, text: str) -> list[tuple[str, tuple[None, ...]]] | None:
    """Return what to send to be told the plan."""
    dialect: Any = engine.dialect
    if dialect.name == "sqlite" and engine.url.database and "memory" not in str(engine.url):
        return [(f"EXPLAIN QUERY PLAN {text}", (None,) * text.count("?"))]
    if dialect.name == "postgresql" and dialect.server_version_info >= _GENERIC:
        numbered, values = preparable(text, dialect)
        asked = f"EXPLAIN EXECUTE isp_perf_slow({values})" if values else "EXPLAIN EXECUTE isp_perf_slow"
        return [*_BEFORE, (f"PREPARE isp_perf_slow AS {numbered}", ()), (asked, ())]
    return None


def preparable(text: str, dialect: Any) -> tuple[str, str]:
    """Return a statement of a driver with its parameters numbered, for PREPARE, and a list of as many NULLs."""
    numbers: dict[str, int] = {}
    numbered = _NAMED.sub(lambda match: f"${numbers.setdefault(match[1], len(numbers) + 1)}", text)
    if dialect.paramstyle in {"format", "pyformat"}:
        numbered = numbered.replace("%%", "%")
    return numbered, ", ".join(["NULL"] * max(map(int, _NUMBERED.findall(numbered)), default=0))
