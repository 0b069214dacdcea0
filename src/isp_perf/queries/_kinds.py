"""Type guards for SQLAlchemy's generic classes, whose parameters a bare ``isinstance`` leaves open."""

from typing import Any, TypeAlias, TypeGuard

from sqlalchemy import Column, Select
from sqlalchemy.orm import InstanceState, Mapper, RelationshipProperty
from sqlalchemy.orm.util import AliasedInsp

__all__ = ["Entity", "is_column", "is_entity", "is_relationship", "is_select", "is_state"]

Entity: TypeAlias = Mapper[Any] | AliasedInsp[Any]


def is_column(thing: object) -> TypeGuard[Column[Any]]:
    """Whether ``thing`` is a column of a table."""
    return isinstance(thing, Column)


def is_entity(thing: object) -> TypeGuard[Entity]:
    """Whether ``thing`` is a mapper or an inspected alias of a mapped class."""
    return isinstance(thing, Mapper | AliasedInsp)


def is_state(thing: object) -> TypeGuard[InstanceState[Any]]:
    """Whether ``thing`` is the state of a mapped object."""
    return isinstance(thing, InstanceState)


def is_select(thing: object) -> TypeGuard[Select[Any]]:
    """Whether ``thing`` is a SELECT."""
    return isinstance(thing, Select)


def is_relationship(thing: object) -> TypeGuard[RelationshipProperty[Any]]:
    """Whether ``thing`` is a mapped relationship."""
    return isinstance(thing, RelationshipProperty)
