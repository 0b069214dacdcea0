"""A bounded memory of a pure function's answers, which costs a hit no Python call."""

from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["Memo"]

V = TypeVar("V")
_LONGEST: Final = 256


class Memo(dict[bytes | None, V]):
    """``memo[field value]`` is ``function(field value)``, computed once.

    Strangers choose the values, so it is bounded: values above 256 bytes are not kept, and when it is full it starts
    over, which costs a recomputation per value in use and needs no order to be kept on a hit.

    Args:
        function: pure, of a field value or ``None`` for an absent field; what it raises is raised and not remembered.
        size: answers that are kept, >= 1.
    """

    __slots__ = ("_function", "_size")

    def __init__(self, function: Callable[[bytes | None], V], size: int) -> None:
        super().__init__()
        self._function = function
        self._size = size

    def __missing__(self, key: bytes | None) -> V:
        value = self._function(key)
        if key is not None and len(key) > _LONGEST:
            return value
        if len(self) >= self._size:
            self.clear()
        self[key] = value
        return value
