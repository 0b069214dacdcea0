"""Breakers in tests: broken, healthy, fresh, and services that fail, dawdle or hang on purpose."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from isp_perf._core.ranges import seconds, share
from isp_perf.breaker import CircuitBreaker, CircuitRegistry, circuits, pipeline
from isp_perf.breaker._wrapping import Site

__all__ = ["ChaosError", "Mayhem", "broken", "chaos", "fresh_circuits", "healthy"]

F = TypeVar("F", bound=Callable[..., Any])

_LONG = 3600.0
_SMALL = 1e-9  # the first call of a share is struck


class ChaosError(Exception):
    """The failure that ``chaos`` makes."""


@contextmanager
def broken(name: str, *, registry: CircuitRegistry = circuits) -> Generator[CircuitBreaker]:
    """Reject every call of the breaker ``name`` within the block, as if its service were down.

    Args:
        name: a breaker of ``registry``; one that nobody has defined yet is defined with the default configuration.
        registry: where it is found.
    """
    breaker = registry.define(name)
    with breaker.isolate("isp_perf.testing.broken"):
        yield breaker


@contextmanager
def healthy(name: str, *, registry: CircuitRegistry = circuits) -> Generator[CircuitBreaker]:
    """Make every call of the breaker ``name`` within the block, whatever has failed; afterwards it is closed.

    Args:
        name: a breaker of ``registry``; one that nobody has defined yet is defined with the default configuration.
        registry: where it is found.
    """
    breaker = registry.define(name)
    breaker.disable()
    try:
        yield breaker
    finally:
        breaker.reset()


@contextmanager
def fresh_circuits(registry: CircuitRegistry = circuits) -> Generator[CircuitRegistry]:
    """Make every breaker of ``registry`` as new before and after the block: closed, with nothing counted.

    Decorated functions keep the breakers they were decorated with. The pytest fixture ``fresh_circuits`` does this for
    the default registry; for another one write a fixture like this:

    Args:
        registry: default ``isp_perf.breaker.circuits``.

    Example:
        >>> import pytest
        >>> @pytest.fixture(autouse=True)
        ... def circuits_are_fresh():
        ...     with fresh_circuits():
        ...         yield
    """
    registry.start_over()
    try:
        yield registry
    finally:
        registry.start_over()


class Mayhem:
    """The strategy that ``chaos`` returns: a decorator, also inside ``pipeline``.

    Attributes:
        failed: failures made so far.
        hung: calls made to hang so far.
    """

    failed: int
    hung: int

    def __init__(self, *, fail: float, delay: float, hang: float, error: Callable[[], BaseException]) -> None:
        self.fail = fail
        self.delay = delay
        self.hang = hang
        self.failed = 0
        self.hung = 0
        self._error = error
        self._fail_credit = self._hang_credit = 1.0 - _SMALL

    def __call__(self, function: F, /) -> F:
        """Decorate ``function``."""
        return pipeline(self)(function)

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        rest = site.bind("sleep", asyncio.sleep if site.asynchronous else time.sleep)
        held, pause = site.bind("mayhem", self), site.local("pause")
        begin = [f"{pause} = {held}.pause()", f"if {pause}:", f"    {site.maybe_await}{rest}({pause})"]
        return [*begin, f"{site.bind('strike', self.strike)}()", *inner]

    def pause(self) -> float:
        """Return for how long this call dawdles."""
        self._hang_credit += self.hang
        if self._hang_credit < 1.0:
            return self.delay
        self._hang_credit -= 1.0
        self.hung += 1
        return _LONG

    def strike(self) -> None:
        """Raise a failure, if it is this call's turn."""
        self._fail_credit += self.fail
        if self._fail_credit >= 1.0:
            self._fail_credit -= 1.0
            self.failed += 1
            raise self._error()


def chaos(
    fail: float = 0.0,
    delay: float = 0.0,
    hang: float = 0.0,
    *,
    error: Callable[[], BaseException] = ChaosError,
) -> Mayhem:
    """Make a protected function misbehave: a decorator, or the innermost strategy of a ``pipeline``.

    Nothing is left to chance: of 10 calls with ``fail=0.3``, the first, the fourth and the eighth fail, every time.

    Args:
        fail: share (0-1) of calls that raise ``error()`` before the function is called.
        delay: seconds (>= 0) that every call takes longer.
        hang: share (0-1) of calls that do not answer for an hour.
        error: makes what is raised: an exception class, or a function that returns an exception.

    Raises:
        ConfigurationError: a value is out of its range.

    Example:
        >>> @chaos(fail=1.0, error=OSError)
        ... def fetch() -> int:
        ...     return 1
        >>> fetch()
        Traceback (most recent call last):
        OSError
    """
    return Mayhem(
        fail=share("fail", float(fail), zero=True),
        delay=seconds("delay", delay, zero=True),
        hang=share("hang", float(hang), zero=True),
        error=error,
    )
