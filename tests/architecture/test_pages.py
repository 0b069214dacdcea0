"""The pages say what is true: their blocks run, and their commands are the ones that the automation runs."""

import os
import re
from pathlib import Path

import pytest
from sybil import Document

from house.pages import close_page, fences, open_page, page_paths, pages
from house.sources import EXAMPLES, PACKAGE, ROOT, read_sources
from isp_perf.settings import Settings

COMMANDS = [
    'python3 -m venv .venv && .venv/bin/pip install -e ".[demo]" && .venv/bin/isp-perf demo',
    'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest',
]
SECTIONS = ["About", "Quick start", "Defaults", "Semantics", "Metrics", "Diagram", "Anti-patterns"]
ROOMS = sorted({path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py")} - {"cli"} | {"demo", "toolkit"})
READMES = ["README.md", "README.pt-BR.md"]


def run_page(tmp_path: Path, text: str) -> Document:
    """Run every block of a page and return it."""
    path = tmp_path / "page.md"
    path.write_text(text)
    document = pages().parse(path)
    open_page(document.namespace)
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        close_page(document.namespace)
    return document


@pytest.mark.parametrize("name", READMES)
def test_the_first_two_fenced_commands_are_the_two_promised_ones(name):
    """A newcomer finds the demo's command first and the tests' command second, each in a fence of its own."""
    blocks = fences((ROOT / name).read_text(encoding="utf-8"))
    assert [(tag, text.strip()) for tag, text in blocks[:2]] == [("bash", command) for command in COMMANDS]


def test_the_automation_runs_the_command_of_the_readme():
    """The script for continuous integration is executable and has the README's test command, letter by letter."""
    script = ROOT / ".ci" / "run"
    assert COMMANDS[1] in script.read_text(encoding="utf-8").splitlines()
    assert os.access(script, os.X_OK)


def test_every_variable_of_the_example_environment_is_read():
    """Each variable in .env.example is named in the code of the package or of the example service."""
    code = "".join(source.text for source in read_sources(PACKAGE, EXAMPLES))
    read = {name for name in variables() if f'"{name}"' in code or f'"{name.removeprefix("ISP_PERF_")}"' in code}
    assert set(variables()) == read


def test_the_example_environment_shows_every_setting_with_its_default():
    """Settings read from .env.example, Redis apart, are the defaults, and no variable of theirs is missing."""
    settings = (PACKAGE / "settings.py").read_text(encoding="utf-8")
    named = {f"ISP_PERF_{name}" for name in re.findall(r'reader\.\w+\("([A-Z_]+)"', settings)}
    assert named
    assert named <= set(variables())
    assert Settings.from_env({**variables(), "REDIS_URL": ""}) == Settings()


def variables() -> dict[str, str]:
    """Return the variables of .env.example as a shell would set them."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r'^([A-Z_]+)="(.*?)"', text, flags=re.MULTILINE))


def test_every_python_block_is_executed():
    """No block looks like Python to a reader and is passed over by the tests."""
    for path in page_paths():
        blocks = fences(path.read_text(encoding="utf-8"))
        tags = [tag for tag, _ in blocks if re.match(r"(?i)\{?(code-block\}? *)?py", tag)]
        examples = list(pages().parse(path).examples())
        assert tags == ["python"] * len(tags), path
        assert len(examples) >= len(tags), path


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_page_with_the_seven_sections(room):
    """Whoever knows one page finds his way on all of them."""
    page = (ROOT / "docs" / f"{room}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_within_the_repository_lead_somewhere(name):
    """Every relative link of the pages that are read on the hosting site points at a file that is there."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_a_block_may_wait_and_the_next_one_sees_its_names(tmp_path):
    """Blocks share names and one event loop, and may use await at their top level."""
    page = run_page(
        tmp_path,
        "```python\nimport asyncio\n\nevent = asyncio.Event()\nawait asyncio.sleep(0)\n```\n\n"
        "```python\nevent.set()\nasync def ask():\n    return await event.wait()\n\nanswer = await ask()\n```\n",
    )
    assert page.namespace["answer"] is True


def test_an_error_in_a_block_points_at_the_line_of_the_page(tmp_path):
    """A block that is not true fails, and its traceback names the line in the page."""
    with pytest.raises(AssertionError) as caught:
        run_page(tmp_path, "# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    assert caught.traceback[-1].lineno + 1 == 5


def test_a_prompt_is_compared_with_its_answer(tmp_path):
    """A block in the form of a session at the prompt is checked against the answers it prints."""
    with pytest.raises(Exception, match="Expected"):
        run_page(tmp_path, "```python\n>>> 1 + 1\n3\n```\n")


def test_fences_are_told_apart():
    """A fence inside a longer fence is content, not a block of its own."""
    text = "````text\n```bash\nx\n```\n````\n\n```bash\ny\n```\n"
    assert fences(text) == [("text", "```bash\nx\n```\n"), ("bash", "y\n")]
