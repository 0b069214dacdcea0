"""Plain integers about what an installation saw and did."""

from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["QueryStats"]


@dataclass(slots=True)
class QueryStats:
    """Counters of one installation since ``install``; each is a whole number and only grows.

    Args:
        statements: statements the driver executed within a scope, or all of them where every checkout is one.
        nanoseconds: how long the driver worked on them.
        n_plus_one: N+1 findings.
        repeated_read: reads repeated with the same parameters.
        write_loop: loops of one-row writes.
        unused_preload: lines that preloaded a relationship ten scopes long, none of which read it.
        over_budget: scopes that sent more statements than the budget.
        batches: loads that were answered for several objects at once.
        peers: objects they were answered for.
        slow: statements that took ``slow_ms`` or longer.
        unexplained: slow statements whose plan the database could not be asked for.
    """

    statements: int = 0
    nanoseconds: int = 0
    n_plus_one: int = 0
    repeated_read: int = 0
    write_loop: int = 0
    unused_preload: int = 0
    over_budget: int = 0
    batches: int = 0
    peers: int = 0
    slow: int = 0
    unexplained: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)

    def copy(self) -> "QueryStats":
        """Return a snapshot."""
        values: list[Any] = [getattr(self, field.name) for field in fields(self)]
        return QueryStats(*values)
