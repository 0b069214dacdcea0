"""What must not be kept: results that can be used once, and objects that belong to a database session."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from isp_perf._core.kinds import record_fields
from isp_perf.errors import CodecError

__all__ = ["is_harmless", "refuse"]

_ONE_WAY: Final[tuple[type, ...]] = (CoroutineType, GeneratorType, AsyncGeneratorType)
_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_SERIES: Final = frozenset({list, tuple, set, frozenset})
_MOST_PARTS: Final = 1000


def is_harmless(value: Any) -> bool:
    """Return whether ``value`` is a scalar, or a container of nothing but scalars: no need to look closer."""
    kind = value.__class__
    if kind in _ATOMS:
        return True
    if kind is dict:
        return _ATOMS.issuperset(map(type, value.values()))
    return kind in _SERIES and len(value) <= _MOST_PARTS and _ATOMS.issuperset(map(type, value))


def refuse(value: Any) -> None:
    """Refuse ``value`` if it, or one of the first 1,000 parts of it, must not be kept.

    Raises:
        CodecError: a coroutine, a generator or an ORM instance, at any depth; the message names its type only.
    """
    ahead, left = [value], _MOST_PARTS
    while ahead and left:
        left -= 1
        part = ahead.pop()
        kind = part.__class__
        if kind in _ATOMS:
            continue
        if _is_refused(kind):
            raise CodecError(f"a {kind.__qualname__} must not be cached; return plain data instead")
        ahead += islice(_parts(part), left)


def _parts(value: Any) -> Iterable[Any]:
    kind: type = value.__class__
    parts: Iterable[Any] = (getattr(value, name, None) for name in record_fields(value) or ())
    if kind in _SERIES or issubclass(kind, tuple | list):
        parts = value
    elif issubclass(kind, dict):
        parts = value.values()
    return parts


@lru_cache(maxsize=1024)
def _is_refused(kind: type) -> bool:
    """Return whether no object of this class may be kept; SQLAlchemy marks the classes it maps."""
    return any(issubclass(kind, refused) for refused in _ONE_WAY) or hasattr(kind, "_sa_class_manager")
