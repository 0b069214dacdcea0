"""Grows the statements of plain records from a class of records, a mapped class and the paths to read.

To-one paths that find at most one row come with their parent's statement by an outer join; every other path is one
statement more, which is asked with the keys of all rows of the level above.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Dialect, select
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import Mapper, RelationshipProperty, aliased
from sqlalchemy.orm.exc import UnmappedColumnError

from isp_perf._core.preload_plan import Node, Relation, choose, nearest
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import adapted
from isp_perf.queries._facts import equalities, finds_one, pairs_once, self_referencing
from isp_perf.queries._keys import asked_for
from isp_perf.queries._kinds import Entity, is_entity
from isp_perf.queries._levels import Joined, Level, Linked, Part, Plain
from isp_perf.queries._paths import relationship_of, target_of
from isp_perf.queries._shapes import Field, fields_of, maker_of, nested_of
from isp_perf.queries._statements import Prepared

__all__ = ["Draft", "Place", "grow"]

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Draft:
    """A statement in the making.

    Args:
        dialect: of the database it is for.
        options: options of the user's statement, such as criteria, that statements below it carry as well.
        settings: execution options of the user's statement, for them too.
        joinable: to-one joins may be added to it.

    Attributes:
        columns: what it selects.
        joins: what it joins beside what it has.
    """

    __slots__ = ("columns", "dialect", "joinable", "joins", "options", "settings")

    dialect: Dialect
    joinable: bool
    options: tuple[Any, ...]
    settings: Mapping[str, Any]
    columns: list[Any]
    joins: list[Any]

    def __init__(
        self, dialect: Dialect, options: tuple[Any, ...] = (), settings: Mapping[str, Any] = EMPTY, *, joinable: bool
    ) -> None:
        self.dialect = dialect
        self.options = options
        self.settings = settings
        self.joinable = joinable
        self.columns = []
        self.joins = []

    def add(self, expression: Any) -> int:
        """Select one more column and return its place."""
        self.columns.append(expression.label(f"isp_{len(self.columns)}"))
        return len(self.columns) - 1

    def applied(self, statement: Any) -> Any:
        """Return ``statement`` with the columns and joins of the draft."""
        statement = statement.with_only_columns(*self.columns, maintain_column_froms=True)
        for attribute in self.joins:
            statement = statement.outerjoin(attribute)
        return statement


class Place:
    """Where a level hangs.

    Args:
        entity: what its rows are of.
        into: the class of the records made of them.
        path: the dotted path to it.
        joins: how many joins lead there within its statement.
    """

    __slots__ = ("entity", "into", "joins", "path")

    entity: Entity
    into: Any
    joins: int
    path: str

    def __init__(self, entity: Entity, into: Any, *, path: str = "", joins: int = 0) -> None:
        self.entity = entity
        self.into = into
        self.path = path
        self.joins = joins

    def below(self, name: str) -> str:
        """Return the dotted path of relationship ``name`` from here."""
        return f"{self.path}.{name}" if self.path else name


def grow(draft: Draft, place: Place, nodes: Sequence[Node]) -> Level:
    """Add to ``draft`` what the records at ``place`` need, and return how they are made of its rows.

    Raises:
        ConfigurationError: a field without a default has no attribute or path, or a path has no field.
    """
    into = place.into
    by_name = {node.step.name: node for node in nodes}
    parts: dict[str, Part] = {}
    for field in fields_of(into):
        node = by_name.pop(field.name, None)
        part = _plain(draft, place, field) if node is None else _related(draft, place, node)
        if part is not None:
            parts[field.name] = part
    for name in by_name:
        rule = f"a path that is read needs a field to be put in, and {into.__name__} has none of this name"
        raise ConfigurationError("preload", place.below(name), rule, f"add '{name}' to {into.__name__}")
    if not parts:
        raise ConfigurationError("into", into.__name__, "no field has a counterpart in the model", "name them alike")
    return Level(maker_of(into, tuple(parts)), list(parts.values()))


def _plain(draft: Draft, place: Place, field: Field) -> Part | None:
    """Return the column of a field; ``None`` if it is left to its default."""
    expression = _expression(place.entity, field.name)
    if expression is not None:
        return Plain(draft.add(expression))
    if not field.optional:
        _refuse_field(place, field.name)
    return None


def _expression(entity: Entity, name: str) -> Any | None:
    """Return what an attribute selects; ``None`` if there is none of this name, or it is no single expression."""
    mapper = entity.mapper
    if name in mapper.relationships or name in mapper.composites or name not in mapper.all_orm_descriptors:
        return None
    expression = getattr(entity.entity, name)
    return expression if hasattr(expression, "label") else None


def _refuse_field(place: Place, name: str) -> None:
    mapper, into = place.entity.mapper, place.into
    if name in mapper.relationships:
        rule, fix = "a field for a relationship is filled only if its path is read", f"add {place.below(name)!r} to it"
        raise ConfigurationError("preload", place.below(name), rule, fix)
    close = nearest(name, mapper.column_attrs.keys())
    model = mapper.class_.__name__
    raise ConfigurationError(
        "into",
        f"{into.__name__}.{name}",
        f"a field without a default is filled from a column of {model}, which has none of this name",
        f"did you mean {close!r}?" if close else f"{model} has {', '.join(mapper.column_attrs.keys())}",
    )


def _related(draft: Draft, place: Place, node: Node) -> Part:
    relation, path = relationship_of(place.entity, node.step.name), place.below(node.step.name)
    many = bool(relation.uselist)
    nested = nested_of(place.into, node.step.name, many=many)
    facts = Relation(path, many, single=finds_one(relation), self_referencing=self_referencing(relation))
    target = target_of(relation, node.step)
    joined = draft.joinable and choose(facts, asked=None, joins=place.joins) == "joined"
    if joined and not target.is_aliased_class:
        alias: Any = aliased(target.mapper.class_)
        attribute = getattr(place.entity.entity, relation.key)
        draft.joins.append(attribute.of_type(alias))
        below = Place(_inspected(alias), nested.into, path=path, joins=place.joins + 1)
        presence = draft.add(_keys(below.entity)[0])
        return Joined(grow(draft, below, node.children), presence)
    below = Place(target, nested.into, path=path)
    linked = _linked(draft, (place.entity, relation, below), node.children)
    linked.many, linked.collect = many, nested.collect
    return linked


def _linked(draft: Draft, way: tuple[Entity, RelationshipProperty[Any], Place], nodes: Sequence[Node]) -> Linked:
    """Start a statement of its own for a relationship and return how it hangs together with its parent's."""
    parent, relation, place = way
    link = _direct_link(parent, relation) if place.entity is relation.entity else None
    link = link or _link_by_parent(parent, relation, place.entity)
    child = Draft(draft.dialect, draft.options, draft.settings, joinable=True)
    for column in link.remote:
        child.add(column)
    level = grow(child, place, nodes)
    once = [] if relation.secondary is None or pairs_once(relation) else list(map(child.add, _keys(place.entity)))
    keys = asked_for(link.remote, draft.dialect)
    order = [*link.remote, *link.order] if link.order else []  # by parent first: an index on (key, order) has it so
    statement = child.applied(link.base.where(keys.condition).order_by(*order))
    statement = statement.options(*draft.options).execution_options(**draft.settings)
    linked = Linked(Prepared(lambda _: statement), keys, level)
    linked.local, linked.once = [draft.add(column) for column in link.local], once
    return linked


class _Link:
    """Which columns of a statement for targets tell the parent, and by which columns of the parent."""

    __slots__ = ("base", "local", "order", "remote")

    def __init__(self, local: list[Any], remote: list[Any], base: Any) -> None:
        self.local = local
        self.remote = remote
        self.base = base
        self.order: list[Any] = []


def _direct_link(entity: Entity, relation: RelationshipProperty[Any]) -> _Link | None:
    """Return the link by the relationship's own columns, if its condition is nothing but equalities of these."""
    pairs = list(equalities(relation.primaryjoin))
    if relation.entity.is_aliased_class or len(pairs) != _leaves(relation.primaryjoin):
        return None
    sides = [side for pair in pairs for side in _sides(entity, relation, pair)]
    if len(sides) != len(pairs):
        return None
    local, remote = zip(*sides, strict=True)
    link = _Link(list(local), list(remote), _targets_of(relation))
    link.order = list(relation.order_by or ())
    return link


def _targets_of(relation: RelationshipProperty[Any]) -> Any:
    """Return a SELECT of the targets, joined to what stands between them and their parents."""
    target = relation.entity.entity
    if relation.secondary is None:
        return select(target)
    return select(target).select_from(relation.secondary).join(target, relation.secondaryjoin)


def _sides(entity: Entity, relation: RelationshipProperty[Any], pair: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what two columns set equal are on the parent and on the other side; nothing if one is not mapped."""
    if type(pair[0].type) is not type(pair[1].type):
        return
    for near, far in (pair, pair[::-1]):
        if _is_so(near, far, relation):
            here, there = _attribute(entity, near), _far_attribute(relation, far)
            if here is not None and there is not None:
                yield here, there
            return


def _is_so(near: Any, far: Any, relation: RelationshipProperty[Any]) -> bool:
    """Whether ``near`` is the parent's column of a pair, and ``far`` the other side's."""
    if relation.secondary is not None:
        return getattr(far, "table", None) is relation.secondary
    return any(near.compare(local) and far.compare(remote) for local, remote in relation.local_remote_pairs or ())


def _far_attribute(relation: RelationshipProperty[Any], column: Any) -> Any | None:
    secondary: Any = relation.secondary
    return _attribute(relation.entity, column) if secondary is None else secondary.c[column.key]


def _leaves(clause: Any) -> int:
    parts = getattr(clause, "clauses", None)
    return 1 if parts is None else sum(map(_leaves, parts))


def _attribute(entity: Entity, column: Any) -> Any | None:
    """Return the attribute of ``entity`` that holds ``column``, if it is mapped."""
    try:
        name = entity.mapper.get_property_by_column(column).key
    except UnmappedColumnError:
        return None
    return getattr(entity.entity, name)


def _link_by_parent(entity: Entity, relation: RelationshipProperty[Any], target: Entity) -> _Link:
    """Return the link by the parent's primary key, through an alias of the parent: right for any condition."""
    parent = aliased(relation.parent.class_)
    base: Any = select(target.entity).select_from(parent)
    narrowed = target is not relation.entity
    if relation.secondary is not None and not narrowed:
        base = base.join(relation.secondary, adapted(parent, relation.primaryjoin))
        base = base.join(target.entity, relation.secondaryjoin)
    else:
        own = getattr(parent, relation.key)
        base = base.join(own.of_type(target.entity) if narrowed else own)
    link = _Link(_keys(entity, relation.parent), _keys(_inspected(parent)), base)
    order = list(relation.order_by or ())
    moved = narrowed and not isinstance(target, Mapper)
    link.order = [adapted(target.entity, clause) for clause in order] if moved else order
    return link


def _inspected(alias: Any) -> Entity:
    entity: object = inspect(alias)
    if is_entity(entity):
        return entity
    raise AssertionError(alias)


def _keys(entity: Entity, mapper: Mapper[Any] | None = None) -> list[Any]:
    """Return the attributes of ``entity`` that hold the primary key of ``mapper``; default: its own."""
    owner = mapper or entity.mapper
    return [getattr(entity.entity, owner.get_property_by_column(column).key) for column in owner.primary_key]
