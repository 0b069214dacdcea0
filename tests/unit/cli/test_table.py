"""Tables stand in columns, and a line of blocks shows the highest value full."""

from isp_perf.cli._table import spark, table


def test_columns_are_as_wide_as_their_widest_cell():
    """Names stand left, figures right, nothing is cut and no line ends in spaces."""
    assert table(("route", "rate"), [("/a", "1/s"), ("/longer", "1,000/s")]) == [
        "route       rate",
        "/a           1/s",
        "/longer  1,000/s",
    ]
    assert table(("route", "rate"), []) == ["route  rate"]


def test_blocks_follow_the_values():
    """Zero is the lowest block, the highest value the full one; nothing is nothing."""
    assert spark([0, 1, 2]) == "\u2581\u2585\u2588"
    assert spark([0, 0]) == "\u2581\u2581"
    assert spark([]) == ""
