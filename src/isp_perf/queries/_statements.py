"""Runs the statements of plain records and hands their rows over as columns, at the price of the driver.

The first run of a statement goes the ordinary way, through the session, and what SQLAlchemy made of it is kept: the
compiled form, and what turns raw values into Python's. From then on its text goes straight to the driver, on the
session's own connection, where counting and other listeners of the engine still see it. Whatever could change it on
its way (hooks on the session or the engine, options, translated schema names) keeps it on the ordinary way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from isp_perf.queries._compat import autoflush
from isp_perf.queries._compat_rows import (
    before_execute_hooks,
    driver_call,
    is_translated,
    orm_hooks,
    raw_result,
    rows_of,
    statement_key,
)
from isp_perf.queries._peers import Batching

__all__ = ["Columns", "Prepared", "Run"]

Columns = list[Sequence[Any]]

_DIRECT = {"postgresql", "sqlite"}


class Run:
    """One reading: the session it runs on, and the values of this call's statement.

    Args:
        session: the plain session.
        statement: what the user asked.
        mapper: what decides which engine is asked; ``None``: the statement itself.
        extracted: the bound parameters of the statement, in the order of its cache key; ``None`` if something in it
            stands against the short way.
    """

    __slots__ = ("connection", "extracted", "mapper", "session", "statement")

    connection: Connection
    extracted: list[Any] | None
    session: Session

    def __init__(self, session: Session, statement: Any, *, mapper: Any, extracted: list[Any] | None) -> None:
        self.session = session
        self.statement = statement
        self.mapper = mapper
        self.connection = session.connection(bind_arguments=self.binding)
        self.extracted = extracted if self._is_open() else None
        if self.extracted is not None:
            autoflush(session)

    @property
    def binding(self) -> Any:
        """What the session chooses the engine by."""
        return {"mapper": self.mapper, "clause": self.statement}

    def _is_open(self) -> bool:
        """Whether nobody may change statements of this session on their way."""
        return (
            self.connection.dialect.name in _DIRECT
            and not before_execute_hooks(self.connection)
            and all(isinstance(hook, Batching) for hook in orm_hooks(self.session))
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What SQLAlchemy made of a statement.

    Args:
        compiled: its compiled form.
        processors: what turns raw values into Python's, by column.
        constants: the parameters it was compiled with.
        places: for each of them its place among the parameters of the user's statement; ``None`` for a constant.
    """

    compiled: Any
    processors: tuple[tuple[int, Callable[[Any], Any]], ...]
    constants: list[Any]
    places: list[int | None]


class Prepared:
    """One statement, and what is known of it.

    Args:
        make: returns the statement to run for what the user asked.
    """

    __slots__ = ("_known", "_make")

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._known: _Known | None = None

    def columns(self, run: Run, values: Mapping[str, Any] | None = None) -> Columns:
        """Run the statement and return its columns; no columns at all if there are no rows.

        Args:
            run: the reading it belongs to.
            values: parameters of this execution, by name; they mark it as a part of a larger whole.
        """
        known, extracted = self._known, run.extracted
        if known is None or extracted is None:
            rows, processors = self._through_session(run, values)
        else:
            rows, processors = _directly(run, known, values)
        if not rows:
            return []
        columns: Columns = [list(map(itemgetter(index), rows)) for index in range(len(rows[0]))]
        for index, processor in processors:
            columns[index] = list(map(processor, columns[index]))
        return columns

    def _through_session(self, run: Run, values: Mapping[str, Any] | None) -> tuple[Any, Any]:
        statement = self._make(run.statement)
        options: Any = {} if values is None else {"isp_part": True}
        result = run.session.execute(
            statement, dict(values or {}), execution_options=options, bind_arguments=run.binding
        )
        found = raw_result(result)
        if found is None:
            return [tuple(row) for row in result], ()
        rows, processors, context = found
        if run.extracted is not None and not is_translated(context.compiled):
            self._known = _learned(statement, run.extracted, _Known(context.compiled, processors, [], []))
        return rows, processors


def _directly(run: Run, known: _Known, values: Mapping[str, Any] | None) -> tuple[Any, Any]:
    asked = run.extracted or []
    pairs = zip(known.constants, known.places, strict=True)
    extracted = [own if place is None else asked[place] for own, place in pairs]
    text, parameters = driver_call(known.compiled, extracted, values)
    return rows_of(run.connection, text, parameters, part=values is not None), known.processors


def _learned(statement: Any, asked: list[Any], found: _Known) -> _Known | None:
    key = statement_key(statement)
    if key is None:
        return None
    places = {id(parameter): place for place, parameter in enumerate(asked)}
    return _Known(found.compiled, found.processors, key[1], [places.get(id(parameter)) for parameter in key[1]])
