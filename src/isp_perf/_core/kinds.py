"""What kind of value something is, told without importing what defines such values."""

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any, TypeGuard, cast

__all__ = ["is_uuid_kind", "record_fields"]


def is_uuid_kind(kind: type) -> bool:
    """Return whether ``kind`` is ``uuid.UUID`` itself; nobody has one before somebody has imported it."""
    return getattr(sys.modules.get("uuid"), "UUID", None) is kind


def record_fields(value: object) -> list[str] | None:
    """Return the declared field names of a dataclass, Struct or pydantic model; ``None`` for anything else."""
    if _is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    kind: Any = type(value)
    for attribute in ("__struct_fields__", "model_fields", "__pydantic_fields__"):
        declared: object = getattr(kind, attribute, None)
        if isinstance(declared, tuple | dict):
            return list(cast("Iterable[str]", declared))
    return None


def _is_dataclass(value: object) -> TypeGuard[Any]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
