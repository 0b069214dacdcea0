"""Log-linear cells: contiguous, narrow, clamped; quantiles and merging by the book."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf._core.histogram import (
    CELLS,
    LARGEST,
    cell_of,
    cumulative,
    lower_edge,
    merge,
    octave_edges,
    quantile,
    upper_edge,
)

VALUES = st.integers(min_value=0, max_value=LARGEST)


def test_cells_are_contiguous():
    """Every cell begins right after the one before it ends, from 0 to the largest value."""
    assert [cell_of(lower_edge(cell)) for cell in range(CELLS)] == list(range(CELLS))
    assert [cell_of(upper_edge(cell)) for cell in range(CELLS)] == list(range(CELLS))
    assert upper_edge(CELLS - 1) == LARGEST


def test_an_hour_in_nanoseconds_has_its_cell():
    """One hour falls in cell 317, inside the layout."""
    assert cell_of(3600 * 10**9) == 317


@pytest.mark.parametrize(("value", "cell"), [(-1, 0), (-(10**20), 0), (LARGEST + 1, CELLS - 1), (10**30, CELLS - 1)])
def test_values_outside_count_as_the_nearer_end(value, cell):
    """A negative or huge value is clamped, never an index from the end of the list."""
    assert cell_of(value) == cell


@settings(deadline=None)
@given(VALUES)
def test_the_middle_of_a_cell_is_at_most_a_sixteenth_off(value):
    """The middle of the cell is within 6.25 % of any value in it."""
    cell = cell_of(value)
    assert lower_edge(cell) <= value <= upper_edge(cell)
    middle = (lower_edge(cell) + upper_edge(cell)) / 2
    assert abs(middle - value) <= value * 0.0625


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=200), st.floats(min_value=0, max_value=0.999))
def test_quantiles_are_within_a_sixteenth_of_the_exact_ones(values, share):
    """The quantile differs from the nearest-rank quantile of the raw values by at most 6.25 %."""
    cells = [0] * CELLS
    for value in values:
        cells[cell_of(value)] += 1
    exact = sorted(values)[max(0, -(-share * len(values) // 1) - 1).__int__()]
    assert abs(quantile(cells, share) - exact) <= exact * 0.0625


def test_quantiles_of_nothing():
    """Without observations there is no quantile."""
    assert quantile([0] * CELLS, 0.5) is None
    assert quantile([], 0.5) is None


def test_the_whole_share_is_the_top_of_the_highest_used_cell():
    """A share of 1 answers with the largest value that could have been seen."""
    cells = [0] * CELLS
    cells[cell_of(1000)] = 1
    assert quantile(cells, 1.0) == upper_edge(cell_of(1000))


def test_octave_edges_fall_on_cell_edges():
    """Every bound shown is the inclusive upper edge of the last cell it takes in."""
    for below, bound in octave_edges(0, 42):
        assert upper_edge(below - 1) == bound


def test_cumulative_counts_take_whole_cells():
    """Cumulative counts add up whole cells and end at the total."""
    cells = [1] * CELLS
    assert cumulative(cells, [1, 16, CELLS]) == [1, 16, CELLS]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(min_value=0), min_size=4, max_size=4), min_size=1, max_size=5), st.randoms())
def test_merging_has_no_order(parts, chance):
    """Merging is commutative and associative: any order and any grouping give the same cells."""
    whole = merge(parts)
    shuffled = list(parts)
    chance.shuffle(shuffled)
    assert merge(shuffled) == whole
    cut = chance.randrange(len(parts) + 1)
    halves = [merge(half) for half in (parts[:cut], parts[cut:]) if half]
    assert merge(halves) == whole
