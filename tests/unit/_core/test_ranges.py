"""The values of settings: durations, whole numbers, shares, words."""

from datetime import timedelta

import pytest

from isp_perf._core.ranges import one_of, seconds, share, whole
from isp_perf.errors import ConfigurationError


def test_numbers_and_timedeltas_become_float_seconds():
    """Seconds and timedeltas are accepted, zero where it is allowed."""
    assert seconds("ttl", 0, zero=True) == 0.0
    assert seconds("ttl", timedelta(minutes=1)) == 60.0


@pytest.mark.parametrize("value", [-1, True, "5", None, float("inf"), float("nan"), timedelta(seconds=-1)])
@pytest.mark.parametrize("zero", [True, False])
def test_what_is_no_duration_is_refused(value, zero):
    """Negative, endless and foreign values are a ConfigurationError with the setting's name."""
    with pytest.raises(ConfigurationError, match="ttl"):
        seconds("ttl", value, zero=zero)


def test_zero_is_refused_where_it_means_nothing():
    """A duration is above 0 unless the setting allows 0."""
    with pytest.raises(ConfigurationError, match="> 0"):
        seconds("timeout", 0)


@pytest.mark.parametrize("value", [0, True, 1.0, "3", None, 11])
def test_whole_numbers_stay_in_their_range(value):
    """Only an int within both ends is accepted."""
    assert whole("size", 10, most=10) == 10
    with pytest.raises(ConfigurationError, match=r"size.*whole number >= 1 and <= 10"):
        whole("size", value, most=10)


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, float("nan")])
def test_shares_are_ratios(value):
    """A share is a number above 0 up to 1; 0 where it is allowed."""
    assert share("ratio", 0, zero=True) == 0.0
    assert share("ratio", 1) == 1.0
    with pytest.raises(ConfigurationError, match="ratio"):
        share("ratio", value, zero=True)


def test_words_are_those_of_the_list():
    """A word outside the list is refused with the list."""
    one_of("on_error", "raise", ("raise", "collect"))
    with pytest.raises(ConfigurationError, match=r"must be one of \('raise', 'collect'\)"):
        one_of("on_error", "drop", ("raise", "collect"))
