"""Which outcome counts as what: the judge of exceptions.

A verdict that depends on the class alone is remembered per class, so that a failing call usually pays one dictionary
look-up. Predicates, exception groups and their leaves are judged anew each time.
"""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard, cast

from isp_perf.errors import ConfigurationError, RejectedError

__all__ = ["ErrorSpec", "Judge", "ask", "check_spec", "first_time", "logger", "matches"]

ErrorSpec = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], object]
"""An exception class, a tuple of them, or a predicate of an exception."""

ALWAYS_NEUTRAL = (CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit, RejectedError)
_REMEMBERED = 256
logger = logging.getLogger("isp_perf.breaker")


def check_spec(setting: str, spec: Any, /) -> None:
    """Raise ``ConfigurationError`` if ``spec`` is no ``ErrorSpec``."""
    several = spec.__class__ is tuple
    if all(isinstance(item, type) and issubclass(item, BaseException) for item in (spec if several else (spec,))):
        return
    if several or isinstance(spec, type) or not callable(spec):
        raise ConfigurationError(
            setting, spec, "must be an exception class, a tuple of them, or a predicate", "pass e.g. (OSError,)"
        )


def matches(setting: str, spec: ErrorSpec, error: BaseException) -> bool:
    """Tell whether ``error`` matches ``spec``; a predicate that raises has not said no."""
    if _is_classes(spec):
        return isinstance(error, spec)
    return bool(ask(setting, spec, error, otherwise=setting != "neutral"))


def ask(setting: str, function: Any, value: object, *, otherwise: Any = None) -> Any:
    """Return ``function(value)``, or ``otherwise`` if it raises: a fault in a predicate never reaches the call.

    The first fault of each setting is logged.
    """
    try:
        return function(value)
    except Exception:
        if first_time(setting):
            logger.exception("the function given as %s raised; it is taken to have no opinion", setting)
        return otherwise


def first_time(key: str) -> bool:
    """Tell whether this is the first time that ``key`` is asked about, so that a fault is logged once."""
    before = _seen.cache_info().misses
    _seen(key)
    return _seen.cache_info().misses != before


@lru_cache(maxsize=256)
def _seen(key: str) -> str:
    return key


def _is_classes(spec: ErrorSpec) -> TypeGuard[type[BaseException] | tuple[type[BaseException], ...]]:
    return isinstance(spec, type | tuple)


class Judge:
    """Tells failures from neutral outcomes.

    Args:
        failure: what counts as a failure.
        neutral: what counts as nothing, even if ``failure`` matches it.
    """

    __slots__ = ("_by_class", "_failure", "_neutral", "known")

    def __init__(self, failure: ErrorSpec, neutral: ErrorSpec) -> None:
        self._failure = failure
        self._neutral = neutral
        self._by_class = _is_classes(failure) and _is_classes(neutral)
        self.known: dict[type[BaseException], bool] = {}

    def __reduce__(self) -> tuple[type["Judge"], tuple[ErrorSpec, ErrorSpec]]:
        return Judge, (self._failure, self._neutral)

    def failed(self, error: BaseException) -> bool:
        """Tell whether ``error`` is a failure (true) or neutral (false)."""
        kind = error.__class__
        verdict = self.known.get(kind)
        if verdict is not None:
            return verdict
        if isinstance(error, BaseExceptionGroup):
            return any(self.failed(leaf) for leaf in cast("BaseExceptionGroup[BaseException]", error).exceptions)
        verdict = (
            not isinstance(error, ALWAYS_NEUTRAL)
            and matches("failure", self._failure, error)
            and not matches("neutral", self._neutral, error)
        )
        if self._by_class and len(self.known) < _REMEMBERED:
            self.known[kind] = verdict
        return verdict
