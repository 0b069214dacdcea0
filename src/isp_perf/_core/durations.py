"""Durations: seconds as a number or a timedelta, checked once, kept as float."""

from datetime import timedelta
from math import isfinite

from isp_perf.errors import ConfigurationError

__all__ = ["Duration", "seconds"]

Duration = float | timedelta


def seconds(setting: str, value: object) -> float:
    """Return a duration as float seconds.

    Args:
        setting: name of the setting, for the error.
        value: seconds (int or float, >= 0, finite) or a ``timedelta``.

    Raises:
        ConfigurationError: negative, not finite, or no duration at all.
    """
    amount = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not isfinite(amount) or amount < 0:
        raise ConfigurationError(
            setting, value, "a duration is a number of seconds >= 0", "pass seconds or a timedelta"
        )
    return float(amount)
