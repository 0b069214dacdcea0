"""Systematic sampling: as many choices as were asked for, in proportion to the weights."""

from hypothesis import given
from hypothesis import strategies as st

from isp_perf._core.sampling import evenly

phases = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_heavy_ones_are_chosen_in_proportion():
    """Ten choices of weights 6, 0, 3 and 1 are six, none, three and one."""
    assert evenly([6, 0, 3, 1], 10, 0.5) == {0: 6, 2: 3, 3: 1}


def test_another_phase_chooses_others():
    """One choice of two equals is the first or the second, as the phase says."""
    assert evenly([1, 1], 1, 0.25) == {0: 1}
    assert evenly([1, 1], 1, 0.75) == {1: 1}


def test_nothing_is_chosen_of_nothing():
    """No weights, no weight at all, or no choice: nothing."""
    assert evenly([], 3, 0.0) == evenly([0, 0], 3, 0.0) == evenly([5], 0, 0.0) == {}


@given(st.lists(st.integers(min_value=0, max_value=1 << 60), min_size=1), st.integers(1, 50), phases)
def test_every_choice_falls_on_something_with_weight(weights, number, phase):
    """The number of choices is exact, each falls on an index with weight, and none is more than one off its share."""
    chosen = evenly(weights, number, phase)
    total = sum(weights)
    assert sum(chosen.values()) == (number if total else 0)
    for index, times in chosen.items():
        assert weights[index] > 0
        assert abs(times - number * weights[index] / total) < 1 + 1e-6 * number + number / total
