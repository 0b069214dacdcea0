"""No function takes more decisions than a reader can hold."""

from house.complexity import too_complex
from house.sources import EXAMPLES, HOUSE, NOXFILE, PACKAGE
from house.verdict import expect_none


def test_no_function_is_too_complex():
    """Every function has a cyclomatic complexity of at most 8, counted by radon."""
    expect_none(too_complex(PACKAGE, EXAMPLES, HOUSE, NOXFILE))


def test_a_function_with_nine_ways_is_found(tmp_path):
    """A method and a nested function above the limit are found, and one at the limit is not."""
    ways = "".join(f"        if x == {number}:\n            return {number}\n" for number in range(8))
    (tmp_path / "sample.py").write_text(
        f"class C:\n    def nine(self, x):\n{ways}\n    def eight(self, x):\n{ways[: ways.rindex('        if')]}\n"
        f"def outer():\n    def inner(x):\n{ways}\n    return inner\n"
    )
    assert too_complex(tmp_path) == [
        f"{tmp_path / 'sample.py'}:2: nine has complexity 9, 8 allowed",
        f"{tmp_path / 'sample.py'}:37: inner has complexity 9, 8 allowed",
    ]
