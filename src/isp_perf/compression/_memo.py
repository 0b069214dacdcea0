"""A bounded memory of a pure function's answers, which costs a hit no Python call."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Memo"]

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """``memo[argument]`` is ``function(argument)``, computed once.

    Strangers choose the arguments, so it is bounded: when it is full it starts over, which costs a recomputation per
    argument in use and needs no order to be kept on a hit.

    Args:
        function: pure; what it raises is raised and not remembered.
        size: answers that are kept, >= 1.
    """

    __slots__ = ("_function", "_size")

    def __init__(self, function: Callable[[K], V], size: int) -> None:
        super().__init__()
        self._function = function
        self._size = size

    def __missing__(self, key: K) -> V:
        value = self._function(key)
        if len(self) >= self._size:
            self.clear()
        self[key] = value
        return value
