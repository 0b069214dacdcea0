"""Functions and modules stay short enough to be read at once."""

from house.sizes import code_lines, drawers, too_long
from house.sources import EXAMPLES, HOUSE, PACKAGE, ROOT, Source, read_sources
from house.verdict import expect_none

MEASURED = read_sources(PACKAGE, EXAMPLES, HOUSE)


def source(text: str) -> Source:
    return Source(ROOT / "sample.py", text)


def lines(number: int, indent: str = "    ") -> str:
    return f"{indent}x = 1\n" * number


def test_functions_and_modules_are_short():
    """No function has more than 40 and no module more than 300 code lines."""
    expect_none(too_long(MEASURED))


def test_a_function_of_41_lines_is_too_long():
    """The forty-first line is found, and forty lines are not."""
    assert too_long([source("def f():\n" + lines(39))]) == []
    assert too_long([source("def f():\n" + lines(40))]) == ["sample.py:1: f has 41 code lines, 40 allowed"]


def test_a_method_counts_like_a_function():
    """An async method above the limit is found."""
    assert too_long([source("class C:\n    async def g(self):\n" + lines(40, "        "))]) == [
        "sample.py:2: g has 41 code lines, 40 allowed"
    ]


def test_a_module_of_301_lines_is_too_long():
    """The limit of a module is found to the line."""
    assert too_long([source(lines(300, ""))]) == []
    assert too_long([source(lines(301, ""))]) == ["sample.py: module of 301 code lines, 300 allowed"]


def test_blank_lines_comments_and_docstrings_are_not_code():
    """What explains the code is free; a string that is used is code."""
    text = '"""M.\n\nMore.\n"""\n\n# note\n\ndef f():\n    """S.\n\n    More.\n    """\n    # y\n    x = """a\nb"""\n'
    assert code_lines(source(text)) == (8, 14, 15)


def test_modules_are_named_after_what_they_do():
    """No module is called utils, helpers, common or misc."""
    expect_none(drawers(read_sources(PACKAGE)))


def test_a_drawer_is_found():
    """A module whose name says nothing is found, with or without its underscore."""
    found = drawers([Source(ROOT / "src" / name, "") for name in ("utils.py", "_helpers.py", "keys.py")])
    assert found == [
        "src/utils.py: name the module after what it does",
        "src/_helpers.py: name the module after what it does",
    ]
