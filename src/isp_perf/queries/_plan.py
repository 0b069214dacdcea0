"""Preload plans: which relationships a statement brings along, and by which statements.

A plan is written as paths, checked when it is built, and comes out as plain SQLAlchemy loader options.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipProperty, joinedload, load_only, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from isp_perf._core.preload_plan import Node, Relation, choose, merge, nearest, refuse_unknown
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import CHUNKS
from isp_perf.queries._facts import finds_one, key_attributes, self_referencing
from isp_perf.queries._kinds import Entity
from isp_perf.queries._limit import cut_off, refuse_unlimitable
from isp_perf.queries._lint import PreloadWarning, advice
from isp_perf.queries._paths import Path, attribute_of, dotted, entity_of, relationship_of, resolve, target_of

__all__ = ["preload"]

PathKey: TypeAlias = str | QueryableAttribute[Any] | tuple[str | QueryableAttribute[Any], ...]
Columns: TypeAlias = Sequence[str | QueryableAttribute[Any]]


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for beside the paths, hashable: pairs of dotted path and value."""

    strategy: str | tuple[tuple[str, str], ...] | None
    limit: int | tuple[tuple[str, int], ...] | None
    only: tuple[tuple[str, tuple[str, ...]], ...]


def preload(
    model: Any,
    /,
    *paths: Path,
    strategy: str | Mapping[Any, str] | None = None,
    limit: int | Mapping[Any, int] | None = None,
    only: Mapping[Any, Columns] | None = None,
) -> tuple[ORMOption, ...]:
    """Build the loader options that bring relationships along with ``model``, in as few statements as possible.

    Use it as ``select(Conversa).options(*preload(Conversa, "cliente", "mensagens.autor"))``. To-one paths that find at
    most one row are joined, at most four deep; every other path costs one statement for all objects of the level
    (one for each 1,000 parents). Results are those of plain lazy loading. Joins are outer joins unless the
    relationship itself says ``innerjoin=True``: a filter added by ``with_loader_criteria``, or a key that points
    nowhere, would make an inner join lose the parent.

    Args:
        model: a mapped class, or an alias of one.
        paths: relationships to load: attributes (``Conversa.cliente``, also with ``of_type``), dotted strings
            (``"mensagens.autor"``), or tuples of both. Order and repetition do not matter.
        strategy: ``"joined"`` or ``"selectin"`` for every path, or a mapping of path to one of them; ``None`` (default)
            chooses by rule. A to-one with few targets that repeat over many rows may be better with ``"selectin"``.
        limit: rows per parent in the relationship's ``order_by``, for every one-to-many of the plan or as a mapping of
            path to number: ``20`` keeps the first twenty, ``-20`` the last twenty. Ties are broken by primary key.
            The list is then not the whole collection: treat it as read-only. A filter by ``with_loader_criteria`` is
            seen by the limit if it has ``include_aliases=True``.
        only: columns to load per path, by name or attribute; ``""`` stands for the model itself. Keys are always
            loaded; other columns are deferred.

    Returns:
        Loader options for ``statement.options(*...)``; the same tuple for the same arguments.

    Raises:
        ConfigurationError: an unknown name, a column where a relationship is needed, a path that leaves the model, a
            strategy that would multiply rows, a limit without an order or on a collection that a flush could delete
            by, or a setting for a path that is not in the plan.

    Warns:
        PreloadWarning: once per plan, if an index is missing that the plan needs.
    """
    entity = entity_of(model)
    request = _Request(
        strategy if strategy is None or isinstance(strategy, str) else _frozen(dotted(entity, strategy)),
        limit if limit is None or isinstance(limit, int) else _frozen(dotted(entity, limit)),
        tuple(sorted((path, _names(columns)) for path, columns in dotted(entity, only).items())),
    )
    return _build(entity, merge(resolve(entity, path) for path in paths), request)


def _frozen(given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(given.items()))


def _names(columns: Columns) -> tuple[str, ...]:
    if isinstance(columns, str):
        raise ConfigurationError("only", columns, "columns come as a list", f"write [{columns!r}]")
    return tuple(column if isinstance(column, str) else column.key for column in columns)


@lru_cache(maxsize=256)
def _build(entity: Entity, tree: tuple[Node, ...], request: _Request) -> tuple[ORMOption, ...]:
    builder = _Builder(request)
    builder.refuse_strays(tree)
    root = _Place(entity, "", 0)
    options = (*builder.columns(root, tree), *builder.options(root, tree))
    builder.refuse_idle_limit()
    for text in builder.advice:
        warnings.warn(PreloadWarning(text), stacklevel=3)
    return options


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a level of the plan hangs: its entity, the dotted path to it, and the joins that lead there."""

    entity: Entity
    path: str
    joins: int

    def below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class _Builder:
    """Walks a plan from the root and emits one option per node."""

    __slots__ = ("advice", "idle", "limits", "only", "request", "strategies")

    def __init__(self, request: _Request) -> None:
        self.request = request
        self.strategies = dict(request.strategy) if isinstance(request.strategy, tuple) else {}
        self.limits = dict(request.limit) if isinstance(request.limit, tuple) else {}
        self.only = dict(request.only)
        self.idle = isinstance(request.limit, int)
        self.advice: list[str] = []

    def refuse_strays(self, tree: tuple[Node, ...]) -> None:
        """Check that every per-path setting belongs to a path, and that limits are numbers."""
        known = set(_paths(tree))
        refuse_unknown("strategy", self.strategies, known)
        refuse_unknown("limit", self.limits, known)
        refuse_unknown("only", self.only, known | {""})
        for limit in self.limits.values():
            _refuse_odd(limit)
        if isinstance(self.request.limit, int):
            _refuse_odd(self.request.limit)

    def refuse_idle_limit(self) -> None:
        """Check that a limit for every list found at least one list."""
        if self.idle:
            fix = "preload a one-to-many relationship, or leave the limit out"
            raise ConfigurationError("limit", self.request.limit, "there is no list in the plan to limit", fix)

    def options(self, place: _Place, nodes: tuple[Node, ...]) -> list[Any]:
        """Return one option for each of ``nodes``, which hang at ``place``."""
        return [self.option(place, node) for node in nodes]

    def option(self, place: _Place, node: Node) -> Any:
        """Return the option of ``node`` with all that is loaded behind it."""
        relation, path = relationship_of(place.entity, node.step.name), place.below(node.step.name)
        attribute = attribute_of(place.entity, node.step)
        limit = self.limit_of(relation, path)
        facts = Relation(path, bool(relation.uselist), finds_one(relation), self_referencing(relation))
        asked = self.request.strategy if isinstance(self.request.strategy, str) else self.strategies.get(path)
        joined = choose(facts, asked=asked, joins=place.joins) == "joined"
        if limit is not None:
            refuse_unlimitable(relation, path, narrowed=node.step.narrowed is not None)
            attribute = attribute.and_(cut_off(relation, limit))
        self.advice += advice(relation, path, limited=limit is not None, only=self.only.get(path))
        option = joinedload(attribute) if joined else selectinload(attribute, **CHUNKS)
        target = _Place(target_of(relation, node.step), path, place.joins + 1 if joined else 0)
        inner = (*self.columns(target, node.children, relation), *self.options(target, node.children))
        return option.options(*inner) if inner else option

    def limit_of(self, relation: RelationshipProperty[Any], path: str) -> int | None:
        """Return how many rows per parent ``relation`` is to load; ``None`` for all of them."""
        if isinstance(self.request.limit, int):
            if not relation.uselist:
                return None
            self.idle = False
            return self.request.limit
        return self.limits.get(path)

    def columns(
        self, place: _Place, nodes: tuple[Node, ...], relation: RelationshipProperty[Any] | None = None
    ) -> tuple[Any, ...]:
        """Return the option that loads only the columns asked for at ``place``, and the keys; nothing if all are."""
        wanted = self.only.get(place.path)
        if wanted is None:
            return ()
        mapper = place.entity.mapper
        _refuse_strange(mapper, wanted)
        keys = set(mapper.primary_key)
        for node in nodes:
            keys |= relationship_of(place.entity, node.step.name).local_columns
        if mapper.version_id_col is not None:
            keys.add(mapper.version_id_col)
        if relation is not None:
            keys |= relation.remote_side
        names = sorted({*wanted, *key_attributes(mapper, keys)})
        return (load_only(*(getattr(place.entity.entity, name) for name in names)),)


def _refuse_strange(mapper: Mapper[Any], names: Columns) -> None:
    known = mapper.column_attrs.keys()
    for name in names:
        if name not in known:
            close = nearest(str(name), known)
            fix = f"did you mean {close!r}?" if close else f"it has {', '.join(sorted(known))}"
            raise ConfigurationError(
                "only", f"{mapper.class_.__name__}.{name}", "there is no such column attribute", fix
            )


def _refuse_odd(limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit == 0:
        fix = "20 keeps the first rows, -20 the last"
        raise ConfigurationError("limit", limit, "rows per parent are a whole number other than 0", fix)


def _paths(nodes: tuple[Node, ...], prefix: str = "") -> Iterator[str]:
    for node in nodes:
        yield prefix + node.step.name
        yield from _paths(node.children, f"{prefix}{node.step.name}.")
