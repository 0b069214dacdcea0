"""What is legal in a preload plan and yet slow: said once, when the plan is built, with the text that cures it."""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Column
from sqlalchemy.orm import RelationshipProperty
from sqlalchemy.orm.interfaces import RelationshipDirection

from isp_perf.queries._facts import key_attributes, leading_index, order_of
from isp_perf.queries._kinds import is_column

__all__ = ["PreloadWarning", "advice"]


class PreloadWarning(UserWarning):
    """A preload plan works, but will be slow: an index is missing, or it defers a column that its order needs."""


def advice(
    relation: RelationshipProperty[Any], path: str, *, limited: bool, only: Collection[str] | None
) -> Iterator[str]:
    """Yield a sentence, with its fix, for everything about loading ``relation`` that will be slow."""
    ordering = [order_of(clause)[0] for clause in relation.order_by or ()]
    columns = list(filter(is_column, ordering))
    if only is not None:
        yield from _order_advice(relation, path, key_attributes(relation.mapper, columns) - set(only))
    if relation.direction is RelationshipDirection.ONETOMANY:
        plain = limited and len(columns) == len(ordering)
        yield from _index_advice(relation, path, columns if plain else None)


def _order_advice(relation: RelationshipProperty[Any], path: str, missing: set[str]) -> Iterator[str]:
    for name in sorted(missing - key_attributes(relation.mapper, relation.mapper.primary_key)):
        yield f"{path}: only= defers {name!r}, which the list is ordered by; add it to only[{path!r}]"


def _index_advice(
    relation: RelationshipProperty[Any], path: str, order: Collection[Column[Any]] | None
) -> Iterator[str]:
    """Yield what index is missing for a list, which is cut off in ``order`` (``None``: it is loaded whole)."""
    keys = [column for column in relation.remote_side if is_column(column)]
    if not leading_index(keys):
        yield f"{path}: no index begins with {_listed(keys)}; add {_index(keys)} to the model"
    elif order is not None and not leading_index(keys, list(order)):
        yield f"{path}: a limit reads the first rows through an index; add {_index([*keys, *order])} to the model"


def _listed(columns: Collection[Column[Any]]) -> str:
    return ", ".join(f"{column.table.name}.{column.name}" for column in columns)


def _index(columns: Collection[Column[Any]]) -> str:
    names = [column.name for column in columns]
    table = next(iter(columns)).table.name
    return f"Index({'_'.join(['ix', table, *names])!r}, {', '.join(map(repr, names))})"
