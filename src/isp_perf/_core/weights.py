"""How many bytes of memory a value takes, estimated."""

from sys import getsizeof
from typing import Any, Final, cast

__all__ = ["ENTRY_BYTES", "estimated_bytes"]

ENTRY_BYTES: Final = 160
"""What an entry costs beside its key and value."""
_MOST_PARTS: Final = 1000
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})


def estimated_bytes(value: Any) -> int:
    """Return ``sys.getsizeof`` of ``value`` and of what it holds.

    Looks into lists, tuples, sets, dicts and the attributes of other objects, each object once. Of values with more
    than 1,000 parts the first 1,000 are measured, and what they hold besides counts as their average.
    """
    seen: set[int] = set()
    ahead: list[Any] = [value]
    total = 0
    while ahead and len(seen) < _MOST_PARTS:
        part = ahead.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        total += getsizeof(part)
        ahead += _parts(part)
    return total + len(ahead) * (total // len(seen) if seen else 0)


def _parts(value: Any) -> list[Any]:
    kind = cast("type[object]", type(value))
    if kind in _PLAIN:
        return []
    if issubclass(kind, dict):
        items = cast("dict[Any, Any]", value)
        return [*items.keys(), *items.values()]
    if issubclass(kind, list | tuple | set | frozenset):
        return list(cast("list[Any]", value))
    held = getattr(value, "__dict__", None)
    slots = [getattr(value, name, None) for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
    return slots if held is None else [held, *slots]
