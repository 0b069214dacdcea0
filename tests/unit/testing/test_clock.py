"""ManualClock: it stands still until it is told to move, and never goes back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


def test_a_new_clock_reads_its_start():
    """The first reading is the start, zero by default, as a float."""
    assert ManualClock()() == 0.0
    assert ManualClock(5)() == 5.0
    assert isinstance(ManualClock(5)(), float)


def test_the_clock_stands_still():
    """Reading the clock does not move it."""
    clock = ManualClock(1.5)
    assert [clock(), clock(), clock()] == [1.5, 1.5, 1.5]


def test_advancing_moves_the_clock_and_returns_the_reading():
    """The new reading is returned and stays."""
    clock = ManualClock(10)
    assert clock.advance(2.5) == 12.5
    assert clock() == 12.5


@given(st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False)))
def test_the_clock_is_monotonic(steps):
    """No sequence of steps makes the clock go back."""
    clock = ManualClock()
    readings = [clock(), *(clock.advance(step) for step in steps)]
    assert readings == sorted(readings)


@pytest.mark.parametrize("seconds", [-0.001, -math.inf, math.nan])
def test_a_step_back_is_refused_and_changes_nothing(seconds):
    """A negative step, or one that is no number, is a configuration error that names the rule."""
    clock = ManualClock(3)
    with pytest.raises(ConfigurationError, match="a monotonic clock never goes back") as caught:
        clock.advance(seconds)
    assert caught.value.setting == "seconds"
    assert clock() == 3


def test_the_clock_shows_its_reading():
    """The representation holds the present reading."""
    clock = ManualClock(1)
    clock.advance(0.25)
    assert repr(clock) == "ManualClock(1.25)"
