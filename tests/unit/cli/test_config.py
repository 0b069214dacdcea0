"""`isp-perf config show`: what the service would see, no secret, and all mistakes at once."""

import json

import pytest

from isp_perf.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no .env of whoever runs the tests


def test_every_setting_is_shown_and_secrets_are_not(monkeypatch, capsys):
    """All settings are printed, changed ones without the mark of a default, passwords masked in both forms."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2@db/support")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@cache:6379/0")
    monkeypatch.setenv("ISP_PERF_CACHE_TTL", "60")
    assert main(["config", "show"]) == 0
    text = capsys.readouterr().out
    assert "hunter2" not in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert lines["cache_ttl"] == ["60.0"]
    assert lines["namespace"] == ["isp", "default"]
    assert lines["redis.url"] == ["redis://***@cache:6379/0"]
    assert lines["compression"] == ["on", "default"]
    assert lines["secret"] == ["none", "default"]
    assert main(["config", "show", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert json.loads(shown)["settings"]["cache_ttl"] == 60.0
    assert json.loads(shown)["settings"]["redis"]["protocol"] == 3


def test_five_mistakes_are_five_lines(monkeypatch, capsys):
    """Every wrong variable is named with rule and fix in one run, and the exit code is 2."""
    wrong = {
        "ISP_PERF_NAMESPACE": "a:b",
        "ISP_PERF_CACHE_TTL": "soon",
        "ISP_PERF_CACHE_MAX_ENTRIES": "0",
        "ISP_PERF_COMPRESSION": "perhaps",
        "ISP_PERF_OPS": "ops",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    assert main(["config", "show"]) == 2
    errors = capsys.readouterr().err
    assert all(name in errors for name in wrong)
    assert main(["config", "show", "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {one["setting"] for one in problems} == set(wrong)
    assert all(one["rule"] and one["fix"] for one in problems)


def test_the_action_is_needed(capsys):
    """`isp-perf config` alone says what it can do."""
    with pytest.raises(SystemExit) as left:
        main(["config"])
    assert left.value.code == 2
    assert "action" in capsys.readouterr().err
