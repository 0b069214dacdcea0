"""The forms of a wrapper: its code can be exchanged while it is in use, and goes on with the next call."""

from collections.abc import Callable
from time import perf_counter_ns
from types import CodeType, FunctionType
from typing import Any, Literal, TypeAlias
from weakref import ref

from isp_perf.cache._hit_times import HitTimes

__all__ = ["Form", "Forms"]

# As fast as can be, asking for the mode of its context, or timing a hit (``_hit_times``).
Form: TypeAlias = Literal["plain", "asking", "timed"]


class Forms:
    """The forms of one wrapper, which is held weakly. All have the same closure, so that only the code differs.

    Args:
        make: makes a wrapper in one form.
        lock: the manager's.
        times: where timed hits are counted.
    """

    __slots__ = ("_codes", "_lock", "_make", "_times", "_wrapper")

    def __init__(self, make: Callable[[Form], FunctionType], lock: Any, times: HitTimes) -> None:
        self._make = make
        self._lock = lock
        self._times = times
        self._wrapper: Callable[[], FunctionType | None] = _nothing
        self._codes: dict[Form, CodeType] = {}

    def wrapper(self) -> FunctionType:
        """Return the wrapper, in its plain form."""
        function = self._make("plain")
        self._codes["plain"] = function.__code__
        self._wrapper = ref(function)
        return function

    def take_locked(self, form: Form) -> None:
        """Give the wrapper a form, if it is still there."""
        function = self._wrapper()
        if function is not None:
            function.__code__ = self._code(form)

    def sample(self) -> None:
        """Let the wrapper time its next hit, unless it asks for modes."""
        self._code("timed")  # before the lock: making it takes longer than a miss
        with self._lock:
            if self._has("plain"):
                self.take_locked("timed")

    def timed(self, started: int) -> None:
        """Count a hit that began at ``started`` (ns), and be plain again."""
        spent = perf_counter_ns() - started
        if not self._lock.acquire(blocking=False):
            return  # a hit waits for nobody: the next one is timed instead
        try:
            if self._has("timed"):
                self.take_locked("plain")
                self._times.count_locked(spent)
        finally:
            self._lock.release()

    def _has(self, form: Form) -> bool:
        function = self._wrapper()
        return function is not None and function.__code__ is self._codes[form]

    def _code(self, form: Form) -> CodeType:
        if form not in self._codes:
            self._codes[form] = self._make(form).__code__
        return self._codes[form]


def _nothing() -> None:
    """Stand for a wrapper that does not exist."""
