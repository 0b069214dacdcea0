"""Resolves what the user wrote as a path against the mapped classes, and says what is wrong with it at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipProperty

from isp_perf._core.preload_plan import Step, nearest
from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import criteria_of, narrowed_to
from isp_perf.queries._kinds import Entity, is_entity

__all__ = ["Path", "attribute_of", "dotted", "entity_of", "relationship_of", "resolve", "target_of"]

Path: TypeAlias = str | QueryableAttribute[Any] | Sequence[str | QueryableAttribute[Any]]
V = TypeVar("V")

_UNLOADABLE = {"dynamic", "write_only"}


def entity_of(model: Any) -> Entity:
    """Return the mapper of a mapped class, or the inspected alias of one.

    Raises:
        ConfigurationError: ``model`` is neither.
    """
    try:
        entity: object = inspect(model)
    except NoInspectionAvailable:
        entity = None
    if not is_entity(entity):
        name = getattr(model, "__name__", type(model).__name__)
        raise ConfigurationError("Model", name, "it must be a mapped class or an alias of one", "pass the model class")
    entity.mapper.registry.configure()
    return entity


def relationship_of(entity: Entity, name: str) -> RelationshipProperty[Any]:
    """Return the relationship ``name`` of ``entity``.

    Raises:
        ConfigurationError: there is no such relationship; the message names the nearest one.
    """
    mapper = entity.mapper
    found = mapper.relationships.get(name)
    model = mapper.class_.__name__
    if found is None:
        _refuse_name(mapper, name)
    elif found.lazy in _UNLOADABLE:
        raise ConfigurationError(
            "paths",
            f"{model}.{name}",
            f"a {found.lazy!r} relationship is a query, it is never loaded as a whole",
            "query it through its own methods, or map a view-only relationship beside it",
        )
    else:
        return found
    raise AssertionError(name)


def _refuse_name(mapper: Mapper[Any], name: str) -> None:
    model, relations = mapper.class_.__name__, sorted(mapper.relationships.keys())
    if name in mapper.all_orm_descriptors:
        rule = "a path names relationships; this is a column or another kind of attribute"
        fix = f"take one of {', '.join(relations)}" if relations else f"{model} has no relationships"
        raise ConfigurationError("paths", f"{model}.{name}", rule, fix)
    for sub in mapper.self_and_descendants:
        if name in sub.relationships:
            fix = f"preload from {sub.class_.__name__}, or narrow the step before with of_type({sub.class_.__name__})"
            raise ConfigurationError("paths", f"{model}.{name}", "only a subclass has this relationship", fix)
    close = nearest(name, relations)
    fix = f"did you mean {close!r}?" if close else f"{model} has {', '.join(relations) or 'no relationships'}"
    raise ConfigurationError("paths", f"{model}.{name}", "there is no such relationship", fix)


def target_of(relation: RelationshipProperty[Any], step: Step) -> Entity:
    """Return what the next step of a path starts from."""
    narrowed = step.narrowed
    return narrowed if is_entity(narrowed) else relation.entity


def resolve(entity: Entity, path: Path) -> tuple[Step, ...]:
    """Turn one path of the user's into steps, each checked against the class it starts from.

    Raises:
        ConfigurationError: the path is empty, names what is no relationship, or leaves the model.
    """
    steps: list[Step] = []
    for part in _parts(path):
        step = Step(part) if isinstance(part, str) else _step_of(entity, part)
        entity = target_of(relationship_of(entity, step.name), step)
        steps.append(step)
    return tuple(steps)


def _parts(path: Path) -> Iterable[str | QueryableAttribute[Any]]:
    pieces: list[Any] = [path] if isinstance(path, str | QueryableAttribute) else list(path)
    parts: list[Any] = []
    for piece in pieces:
        parts += piece.split(".") if isinstance(piece, str) else [piece]
    if parts and all(map(_is_part, parts)):
        return parts
    raise ConfigurationError(
        "paths",
        path if isinstance(path, str) else type(path).__name__,
        "a path is a dotted string, a relationship attribute, or a sequence of them",
        "write 'mensagens.autor' or Conversa.mensagens",
    )


def _is_part(part: object) -> bool:
    return isinstance(part, QueryableAttribute) or (isinstance(part, str) and bool(part))


def _step_of(entity: Entity, attribute: QueryableAttribute[Any]) -> Step:
    owner: object = attribute.parent
    if not (is_entity(owner) and entity.mapper.isa(owner.mapper)):
        raise ConfigurationError(
            "paths",
            str(attribute),
            f"the path leaves the model: at this point it stands at {entity.mapper.class_.__name__}",
            "write the whole path from the model on, as a dotted string or a tuple of attributes",
        )
    if criteria_of(attribute):
        raise ConfigurationError(
            "paths",
            str(attribute),
            "a path loads the whole relationship; criteria of and_() would make it another list",
            "map a view-only relationship with these criteria, or pass selectinload(...) yourself",
        )
    return Step(attribute.key, narrowed_to(attribute))


def dotted(entity: Entity, given: Mapping[Any, V] | None) -> dict[str, V]:
    """Return a per-path setting with its paths as dotted strings; ``""`` stands for the model itself."""
    return {
        ".".join(step.name for step in resolve(entity, path)) if _is_path(path) else path: value
        for path, value in (given or {}).items()
    }


def _is_path(path: object) -> bool:
    return isinstance(path, QueryableAttribute | tuple)


def attribute_of(entity: Entity, step: Step) -> Any:
    """Return the class-bound attribute that a loader option takes for ``step``."""
    owner: Any = entity.entity
    attribute = getattr(owner, step.name)
    narrowed = step.narrowed
    return attribute.of_type(narrowed.entity) if is_entity(narrowed) else attribute
