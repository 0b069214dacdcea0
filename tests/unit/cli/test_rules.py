"""`isp-perf rules`: what the package ships, printed or written, and nobody's file overwritten by surprise."""

import json

import pytest

from isp_perf.cli import _rules, main


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A package with one rule file and one dashboard."""
    package = tmp_path / "package"
    for name, text in {"rules/cache.yml": "groups: []\n", "dashboards/all.json": "{}", "rules/notes.txt": "x"}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(_rules, "files", lambda _: package)
    return package


def test_rules_are_printed_as_yaml_documents(shipped, capsys):
    """Without options the rules go to stdout, each file as one document; dashboards do not."""
    assert main(["rules"]) == 0
    assert capsys.readouterr().out == "---\n# rules/cache.yml\ngroups: []\n"


def test_files_are_written_once_and_never_replaced_unasked(shipped, capsys, tmp_path):
    """--out writes all files; a file that differs is refused with exit code 2 unless --force is given."""
    out = tmp_path / "out"
    assert main(["rules", "--out", str(out)]) == 0
    assert (out / "rules/cache.yml").read_text() == "groups: []\n"
    assert (out / "dashboards/all.json").read_text() == "{}"
    assert main(["rules", "--out", str(out)]) == 0
    (out / "rules/cache.yml").write_text("mine")
    assert main(["rules", "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (out / "rules/cache.yml").read_text() == "mine"
    assert main(["rules", "--out", str(out), "--force"]) == 0
    assert (out / "rules/cache.yml").read_text() == "groups: []\n"


def test_names_alone(shipped, capsys):
    """--list prints names, --json names and sizes."""
    assert main(["rules", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["dashboards/all.json", "rules/cache.yml"]
    assert main(["rules", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][1] == {"name": "rules/cache.yml", "bytes": 11}


def test_the_package_itself_answers(capsys):
    """With what is really shipped the command works."""
    assert main(["rules", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["files"], list)
