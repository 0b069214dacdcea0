"""`isp-perf bench` without a URL measures the hot paths of isp_perf itself."""

import json

from isp_perf.cli import _micro, main


def test_every_path_is_measured(monkeypatch, capsys):
    """Each path has a median below its p99, and the machine is named."""
    monkeypatch.setattr(_micro, "ROUNDS", 5)
    monkeypatch.setattr(_micro, "_ROUND_NS", 20_000)
    steps = []
    costs = _micro.measure(lambda: steps.append(1))
    assert len(costs) == _micro.PATHS
    assert len(steps) == 5 * _micro.PATHS
    for cost in costs:
        assert 0 < cost.p50_seconds <= cost.p99_seconds
        assert cost.per_second > 0
    assert main(["bench", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["costs"]] == [cost.name for cost in costs]
    assert main(["bench"]) == 0
    assert "cache hit" in capsys.readouterr().out
