"""Whether what was read back is what was written: the same types all the way down."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, Final

from isp_perf._core.kinds import record_fields

__all__ = ["came_back"]


def came_back(value: Any, back: Any) -> bool:
    """Return whether ``back`` has the types of ``value`` throughout.

    An int may have become an equal float, and a subclass of a scalar the scalar it equals, unless it is an Enum.
    """
    kind: Any = value.__class__
    if kind is not back.__class__:
        return _is_equal_scalar(value, back)
    for base, compare in _CONTAINERS:
        if issubclass(kind, base):
            return compare(value, back)
    if issubclass(kind, datetime):
        return (value.tzinfo is None) == (back.tzinfo is None)
    fields = None if issubclass(kind, _SCALARS) else record_fields(value)
    return all(came_back(getattr(value, name), getattr(back, name)) for name in fields or ())


def _is_equal_scalar(value: Any, back: Any) -> bool:
    if isinstance(value, Enum | bool) or isinstance(back, Enum | bool):
        return False
    if isinstance(value, int | float) and isinstance(back, int | float):
        return value == back
    return isinstance(value, str | bytes) and isinstance(value, type(back)) and value == back


def _sequence(value: Any, back: Any) -> bool:
    return len(value) == len(back) and all(map(came_back, value, back))


def _mapping(value: Any, back: Any) -> bool:
    return _sequence(list(value), list(back)) and _sequence(list(value.values()), list(back.values()))


def _set(value: Any, back: Any) -> bool:
    return value == back and _kinds(value) == _kinds(back)


def _kinds(value: Any) -> Counter[Any]:
    return Counter(part.__class__ for part in value)


_SCALARS: Final = (str, bytes, int, float, Enum, type(None))
_CONTAINERS: Final[tuple[tuple[Any, Callable[[Any, Any], bool]], ...]] = (
    (dict, _mapping),
    ((list, tuple), _sequence),
    ((set, frozenset), _set),
)
