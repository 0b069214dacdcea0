"""The shipped alert rules and dashboards: whatever they ask for exists, and every alert says what to do."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from isp_perf.metrics import registry

ROOT = Path(__file__).parents[3]
OPS = files("isp_perf.ops")
RULES = OPS.joinpath("rules/isp_perf.yml").read_text("utf-8")
CASES = (ROOT / "tests/data/ops/isp_perf_test.yml").read_text("utf-8")
BOARDS = sorted(file.name for file in OPS.joinpath("dashboards").iterdir() if file.name.endswith(".json"))
ALERTS = re.findall(r"- alert: (\w+)", RULES)
_METRIC = re.compile(r"\b(isp_[a-z0-9_]+|conversation_[a-z_]+|message_[a-z_]+|cache_hit_rate)\b")
_SUFFIXES = ("_bucket", "_count", "_sum")


def families():
    """Return the names of every family, as a scrape writes them."""
    return set(registry.collect().columns)


def asked_for(text):
    """Return the families that PromQL in ``text`` reads; recorded series have a colon in their names."""
    plain = re.sub(r"\b\w+:\w+(?::\w+)?", "", re.sub(r"(?m)^\s*#.*$", "", text))
    names = {name for name in _METRIC.findall(plain) if name != "isp_perf"}
    known = families()
    return {name.removesuffix(s) for name in names for s in _SUFFIXES if name.endswith(s) and name not in known} | {
        name for name in names if name in known or not name.endswith(_SUFFIXES)
    }


def test_there_are_enough_alerts():
    """At least twelve alerts ship, three windows of burn rates for each objective among them."""
    assert len(ALERTS) == len(set(ALERTS)) >= 12
    for objective in ("Error", "Latency"):
        assert {f"Isp{objective}Budget{speed}" for speed in ("Fast", "Medium", "Slow")} <= set(ALERTS)


def test_every_rule_reads_families_that_exist():
    """No alert waits for a metric that nobody exports."""
    assert asked_for(re.sub(r"(?m)^\s*(summary|runbook_url|- alert|- name):.*$", "", RULES)) <= families()


def test_every_alert_has_a_runbook():
    """Each alert links to a section of the runbooks that exists."""
    page = (ROOT / "docs/runbooks.md").read_text("utf-8")
    headings = {line.removeprefix("## ").strip() for line in page.splitlines() if line.startswith("## ")}
    assert set(ALERTS) <= headings
    linked = re.findall(r"runbook_url: \S+#(\w+)", RULES)
    assert linked == [alert.lower() for alert in ALERTS]


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    """The cases for promtool show each alert both ways."""
    fired = re.findall(r'alertname="(\w+)", alertstate="firing"\}\n        exp_samples: \[\{', CASES)
    silent = re.findall(r'alertname="(\w+)", alertstate="firing"\}\n        exp_samples: \[\]', CASES)
    assert set(ALERTS) == set(fired) == set(silent)
    assert len(fired) + len(silent) >= 30


def test_there_are_three_dashboards():
    """Overview, cache with Redis, and resilience are the boards for Grafana."""
    assert BOARDS == ["isp_perf_cache.json", "isp_perf_overview.json", "isp_perf_resilience.json"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_reads_families_that_exist(name):
    """Each panel of a board has a title, a unit and queries over families that are exported."""
    board = json.loads(OPS.joinpath("dashboards", name).read_text("utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) >= 6
    for panel in panels:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert asked_for(target["expr"]) <= families(), panel["title"]
            assert "$job" in target["expr"], panel["title"]
