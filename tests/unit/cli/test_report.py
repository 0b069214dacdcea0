"""The demo's table and JSON object say the same."""

import json

from isp_perf.cli._report import Comparison, Phase

OFF = Phase(50.0, 0.1, 0.2, 3000, 2_000_000, None, 0)
ON = Phase(500.0, 0.01, 0.1, 100, 500_000, 0.9, 0)
HITS = {"inbox": {"load_seconds": 0.005, "hit_seconds": 2e-7, "ratio": 25_000.0}}


def test_every_gain_is_more_than_one_when_it_became_better():
    """Rates divide on by off, everything that costs divides off by on."""
    better = Comparison(OFF, ON, HITS).as_values()["better_by"]
    assert better == {
        "requests_per_second": 10.0,
        "p50_seconds": 10.0,
        "p99_seconds": 2.0,
        "database_queries": 30.0,
        "bytes_received": 4.0,
        "hit_ratio": None,
    }


def test_the_table_shows_both_runs_and_the_hit():
    """One line per figure, with off, on and the gain, and one per measured hit."""
    lines = Comparison(OFF, ON, HITS).as_table().splitlines()
    assert [line.split() for line in lines if line.startswith("requests/s")] == [["requests/s", "50", "500", "10.0x"]]
    assert any(line.split() == ["hit", "ratio", "-", "0.900"] for line in lines)
    assert any("25,000 times faster" in line and "1,280" in line for line in lines)


def test_the_values_are_plain():
    """The JSON object has seconds, bytes and ratios as numbers."""
    values = json.loads(json.dumps(Comparison(OFF, ON, HITS).as_values()))
    assert values["off"]["p50_seconds"] == 0.1
    assert values["on"]["hit_ratio"] == 0.9
    assert values["hit"] == HITS


def test_nothing_is_divided_by_zero():
    """A figure of zero has no gain."""
    nothing = Phase(0.0, 0.0, 0.0, 0, 0, None, 0)
    assert set(Comparison(nothing, nothing, {}).as_values()["better_by"].values()) == {None}
    assert "requests/s" in Comparison(nothing, nothing, {}).as_table()
