"""Asks the planner what a statement costs, as things are or with an index that is taken back at once."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from isp_perf.queries._slow import preparable

__all__ = ["AS_WRITTEN", "Plan", "plan_of", "taken_back"]

_GENERIC = (12, 0)
AS_WRITTEN = {"no_parameters": True}
"""For statements in which a percent sign is one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner says.

    Args:
        text: the plan, in the form of the database.
        cost: in the planner's units; ``None`` where it tells none.
    """

    text: str
    cost: float | None

    def uses(self, index: str) -> bool:
        """Whether the plan names an index."""
        return f'"{index}"' in self.text or f" {index} " in f"{self.text} "


@contextmanager
def taken_back(connection: Connection) -> Generator[None]:
    """Take back what is done within, and leave the transaction around it as it was."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def plan_of(connection: Connection, text: str) -> Plan | None:
    """Return how the database would run a statement whatever its values; ``None`` where it does not say."""
    dialect: Any = connection.dialect
    try:
        with taken_back(connection):
            if dialect.name == "sqlite":
                return _of_sqlite(connection, text)
            if dialect.name == "postgresql" and dialect.server_version_info >= _GENERIC:
                return _of_postgresql(connection, text)
    except DBAPIError:  # a statement of another schema, or one that cannot be prepared
        return None
    return None


def _of_sqlite(connection: Connection, text: str) -> Plan:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (None,) * text.count("?")).all()
    return Plan("; ".join(f"{row[-1]} " for row in rows), None)


def _of_postgresql(connection: Connection, text: str) -> Plan:
    numbered, values = preparable(text, connection.dialect)
    orders = ("SET LOCAL plan_cache_mode = force_generic_plan", f"PREPARE isp_perf_advice AS {numbered}")
    for order in orders:
        connection.exec_driver_sql(order, execution_options=AS_WRITTEN)
    try:
        asked = "EXPLAIN (FORMAT JSON) EXECUTE isp_perf_advice" + (f"({values})" if values else "")
        answer: Any = connection.exec_driver_sql(asked, execution_options=AS_WRITTEN).scalar()
    finally:
        connection.exec_driver_sql("DEALLOCATE isp_perf_advice", execution_options=AS_WRITTEN)
    plan: Any = json.loads(answer) if isinstance(answer, str) else answer
    return Plan(json.dumps(plan), float(plan[0]["Plan"]["Total Cost"]))
