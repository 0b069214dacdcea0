"""Durations."""

from datetime import timedelta

import pytest

from isp_perf._core.durations import seconds
from isp_perf.errors import ConfigurationError


def test_numbers_and_timedeltas_become_float_seconds():
    """Seconds and timedeltas are accepted, zero included."""
    assert seconds("ttl", 0) == 0.0
    assert seconds("ttl", timedelta(minutes=1)) == 60.0


@pytest.mark.parametrize("value", [-1, True, "5", None, float("inf"), float("nan"), timedelta(seconds=-1)])
def test_anything_else_is_refused(value):
    """Negative, endless and foreign values are a ConfigurationError with the setting's name."""
    with pytest.raises(ConfigurationError, match="ttl"):
        seconds("ttl", value)
