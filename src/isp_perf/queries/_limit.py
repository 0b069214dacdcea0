"""Some rows per parent, as a plain criterion of a select-in load.

The usual way, ``row_number() OVER (PARTITION BY ...)``, reads and numbers every row of every parent. Here the load of
the targets gets one more condition: their key is among the first ``n`` of their parent, looked up parent by parent
through an index. The statement already carries the parents' keys, and the condition reads them from the same
parameter, so no further round trip is needed. It is written in several forms, and compiled to the one that fits:

* ``LATERAL`` where the database has it;
* on PostgreSQL the same, with single keys put into an array first: one sorted walk along the index then finds their
  rows, where a join would look up each of them;
* on SQLite a correlated key list, which it evaluates once per parent;
* without the parents' keys, that is when one expired list is loaded again, a correlated ``EXISTS``.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Select, Tuple, any_, bindparam, exists, func, select, true, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapper, RelationshipProperty, aliased
from sqlalchemy.orm.interfaces import RelationshipDirection
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine

from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import SELECTIN_KEYS, adapted
from isp_perf.queries._facts import are_unique, order_of
from isp_perf.queries._kinds import is_column

__all__ = ["cut_off", "mirrored", "refuse_unlimitable"]


def refuse_unlimitable(relation: RelationshipProperty[Any], path: str, *, narrowed: bool) -> None:
    """Check that "the first rows per parent" is well defined and harmless for ``relation``.

    Raises:
        ConfigurationError: it is no one-to-many of a keyed parent, has no order, or a flush could take the limited
            list for the whole collection and delete by it.
    """
    listed = relation.direction is RelationshipDirection.ONETOMANY and relation.uselist
    if not listed or not are_unique(relation, relation.local_columns):
        rule, fix = "limit counts rows of a one-to-many whose rows have one parent each", "leave the limit out"
    elif narrowed or relation.entity.is_aliased_class:
        rule, fix = "limit works on relationships to a mapped class itself", "leave of_type() or the limit out"
    elif not relation.order_by:
        rule, fix = "a limit without an order is chance", "give the relationship an order_by"
    elif _deletes(relation):
        rule = "its cascade could delete by this list, and a limited list is not the collection"
        fix = f"map a second relationship(viewonly=True, order_by=...) beside {relation.key!r} and limit that"
    else:
        return
    raise ConfigurationError("limit", path, rule, fix)


def _deletes(relation: RelationshipProperty[Any]) -> bool:
    """Whether a flush may delete rows because of what is, or is not, in the loaded list."""
    cascade = relation.cascade
    return not relation.viewonly and (cascade.delete_orphan or (cascade.delete and relation.passive_deletes is False))


def mirrored(clause: Any) -> ColumnElement[Any]:
    """Return an ORDER BY element that sorts exactly the other way round, NULLs included."""
    element, descending, nulls_first = order_of(clause)
    turned: ColumnElement[Any] = element.asc() if descending else element.desc()
    if nulls_first is None:
        return turned
    return turned.nulls_last() if nulls_first else turned.nulls_first()


_LATERAL, _ARRAY, _NESTED, _ALONE = range(4)


class _Cut(FunctionElement[Any]):
    """One condition in several forms; see the top of this module."""

    inherit_cache = True
    name = "isp_perf_first_rows"
    type: TypeEngine[Any] = (
        NullType()
    )  # as Boolean, SQLite would be asked whether it equals 1, and could no longer use an index


def _compiled(element: Any, compiler: Any, options: dict[str, Any], *, form: int) -> str:
    if SELECTIN_KEYS not in compiler.binds:
        form = _ALONE
    text: str = compiler.process(list(element.clauses)[form], **options)
    return text


@compiles(_Cut)
def _compile_lateral(element: Any, compiler: Any, **options: Any) -> str:
    return _compiled(element, compiler, options, form=_LATERAL)


@compiles(_Cut, "postgresql")
def _compile_array(element: Any, compiler: Any, **options: Any) -> str:
    return _compiled(element, compiler, options, form=_ARRAY)


@compiles(_Cut, "sqlite")
def _compile_nested(element: Any, compiler: Any, **options: Any) -> str:
    return _compiled(element, compiler, options, form=_NESTED)


def _row(columns: Sequence[Any]) -> Any:
    return columns[0] if len(columns) == 1 else tuple_(*columns)


def cut_off(relation: RelationshipProperty[Any], limit: int) -> ColumnElement[bool]:
    """Return the condition that keeps ``limit`` rows of ``relation`` per parent.

    Args:
        relation: checked by ``refuse_unlimitable``.
        limit: the first rows in the relationship's order if positive, the last ones if negative; not 0. Ties are
            broken by the target's primary key, so that the same rows are kept each time.
    """
    parent, target, other = (aliased(mapper.class_) for mapper in (relation.parent, relation.mapper, relation.mapper))
    first = (
        select(*_keys(target, relation.mapper))
        .where(getattr(parent, relation.key).of_type(target))
        .order_by(*_order(relation, target, backwards=limit < 0))
        .limit(abs(limit))
        .correlate(parent)
    )
    asked = _row(_keys(parent, relation.parent)).in_(bindparam(SELECTIN_KEYS, expanding=True))
    mine = _row(_keys(relation.mapper.class_, relation.mapper))
    lateral = first.lateral()
    kept = select(*lateral.c).select_from(parent).join(lateral, true()).where(asked)
    others = _keys(other, relation.mapper)
    nested = select(*others).select_from(parent).join(other, _row(others).in_(first)).where(asked)
    own = getattr(parent, relation.key)
    alone = exists().select_from(parent).where(own, mine.in_(first)).correlate(relation.mapper.class_)
    return _Cut(mine.in_(kept), _in_array(mine, kept), mine.in_(nested), alone)


def _in_array(mine: Any, kept: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that ``mine`` is among the keys ``kept``, which are put into an array if they are single."""
    if isinstance(mine, Tuple):
        return mine.in_(kept)
    keys: Any = func.array(kept.scalar_subquery(), type_=ARRAY(mine.type))
    found: ColumnElement[bool] = mine == any_(keys)
    return found


def _keys(entity: Any, mapper: Mapper[Any]) -> list[Any]:
    return [getattr(entity, mapper.get_property_by_column(column).key) for column in mapper.primary_key]


def _order(relation: RelationshipProperty[Any], target: Any, *, backwards: bool) -> list[Any]:
    """Return the relationship's order for the alias ``target``, made total by its primary key."""
    declared = list(relation.order_by or ())
    elements = (order_of(clause)[0] for clause in declared)
    named = {element.key for element in filter(is_column, elements)}
    order = [adapted(target, clause) for clause in declared]
    order += [key for key in _keys(target, relation.mapper) if key.key not in named]
    return list(map(mirrored, order)) if backwards else order
