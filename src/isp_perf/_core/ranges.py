"""The values of settings, checked once and in one way: durations, whole numbers, shares, words."""

from datetime import timedelta
from math import isfinite
from typing import Any, TypeAlias

from isp_perf.errors import ConfigurationError

__all__ = ["Seconds", "one_of", "seconds", "share", "whole"]

Seconds: TypeAlias = float | timedelta
"""A duration as users write it: seconds, or a ``timedelta``."""


def seconds(setting: str, value: Any, *, zero: bool = False) -> float:
    """Return a duration as float seconds.

    Args:
        setting: name of the setting, for the error.
        value: a finite number of seconds, or a ``timedelta``; above 0.
        zero: allow 0 as well.

    Raises:
        ConfigurationError: no number, not finite, negative, or 0 where that is not allowed.
    """
    number: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(number) or not isfinite(number) or number < 0 or (number == 0 and not zero):
        rule = f"must be a number of seconds {'>= 0' if zero else '> 0'}, or a timedelta"
        raise ConfigurationError(setting, value, rule, "pass e.g. 30.0")
    return float(number)


def whole(setting: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``; raise ``ConfigurationError`` if not."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        limit = "" if most is None else f" and <= {most}"
        raise ConfigurationError(setting, value, f"must be a whole number >= {least}{limit}", f"pass e.g. {least}")
    return value


def share(setting: str, value: Any, *, zero: bool = False) -> float:
    """Return ``value`` if it is a ratio above 0 (or from 0, if ``zero``) up to 1; else raise ``ConfigurationError``."""
    if not _is_number(value) or not (0 < value <= 1 or (zero and value == 0)):
        rule = "must be a ratio from 0 to 1" if zero else "must be a ratio above 0 and up to 1"
        raise ConfigurationError(setting, value, rule, "pass e.g. 0.5 for 50 %")
    return float(value)


def one_of(setting: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is one of the words ``allowed``."""
    if value not in allowed or isinstance(value, bool):
        raise ConfigurationError(setting, value, f"must be one of {allowed}", f"write {allowed[0]!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
