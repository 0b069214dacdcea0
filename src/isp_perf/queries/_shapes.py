"""What the class of a record asks for: its fields, which of them hold further records, and how one is made."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from itertools import chain
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from isp_perf.errors import ConfigurationError

__all__ = ["Field", "Nested", "fields_of", "maker_of", "nested_of"]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_LISTS: dict[type, Callable[[list[Any]], Any]] = {tuple: tuple, set: set, frozenset: frozenset}


@dataclass(frozen=True, slots=True)
class Field:
    """One argument of a record's constructor.

    Args:
        name: its name.
        optional: the class has a default for it.
        positional: it can be given by position.
    """

    name: str
    optional: bool
    positional: bool


@dataclass(frozen=True, slots=True)
class Nested:
    """What a field holds that is filled from a relationship.

    Args:
        into: the class of the further records.
        collect: what the list of them is turned into; ``None``: it stays a list.
    """

    into: Callable[..., Any]
    collect: Callable[[list[Any]], Any] | None


@lru_cache(maxsize=256)
def fields_of(into: Any) -> tuple[Field, ...]:
    """Return the fields of a record class, in the order of its constructor.

    Raises:
        ConfigurationError: ``into`` is no class, or its constructor takes nothing by name.
    """
    parameters = _parameters(into)
    fields = tuple(
        Field(p.name, p.default is not Parameter.empty, p.kind in _POSITIONAL)
        for p in parameters
        if p.kind not in _VARIADIC
    )
    if fields:
        return fields
    raise ConfigurationError(
        "into",
        getattr(into, "__name__", type(into).__name__),
        "the class of a record has named fields",
        "pass a dataclass, a NamedTuple or a msgspec.Struct",
    )


def _parameters(into: Any) -> list[Parameter]:
    if not isinstance(into, type):
        return []
    try:
        return list(signature(into).parameters.values())
    except (TypeError, ValueError):
        return []


def nested_of(into: Any, name: str, *, many: bool) -> Nested:
    """Return what the annotation of field ``name`` says about the records in it.

    Raises:
        ConfigurationError: the annotation cannot be resolved, or names no single record class.
    """
    try:
        hints = get_type_hints(into)
    except NameError as error:
        raise ConfigurationError(
            "into",
            f"{into.__name__}.{name}",
            f"the annotations of the class must be resolvable: {error.name!r} is not",
            "define the classes at module level",
        ) from None
    collect, classes = _unfolded(hints.get(name))
    if len(classes) == 1 and many is (collect is not None):
        return Nested(classes[0], None if collect is list else collect)
    raise ConfigurationError(
        "into",
        f"{into.__name__}.{name}",
        "a field for a relationship is annotated with the class of its records",
        f"write '{name}: list[Record]'" if many else f"write '{name}: Record' or '{name}: Record | None'",
    )


def _unfolded(annotation: Any) -> tuple[Callable[[list[Any]], Any] | None, list[Any]]:
    """Take optional and collection types off an annotation; a collection is told by what it is made with."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is None:
        return None, [annotation] if _is_record(annotation) else []
    if origin is Annotated:
        return _unfolded(parts[0])
    found = list(map(_unfolded, filter(_is_something, parts)))
    if origin not in {Union, types.UnionType}:
        return _LISTS.get(origin, list), list(chain.from_iterable(records for _, records in found))
    return found[0] if len(found) == 1 else (None, [])


def _is_something(annotation: Any) -> bool:
    return annotation is not Ellipsis and annotation is not type(None)


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation is not type(None) and bool(_parameters(annotation))


def maker_of(into: Any, names: tuple[str, ...]) -> Callable[..., Any]:
    """Return what makes a record of values in the order of ``names``: the class itself, if its order is that one."""
    leading = fields_of(into)[: len(names)]
    if all(field.positional and field.name == name for field, name in zip(leading, names, strict=True)):
        making: Callable[..., Any] = into
        return making

    def by_name(*values: Any) -> Any:
        return into(**dict(zip(names, values, strict=True)))

    return by_name
