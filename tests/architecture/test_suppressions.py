"""Tools are silenced rarely, and never without a reason."""

import pytest

from house.sources import EXAMPLES, PACKAGE, ROOT, Source, read_sources
from house.suppressions import too_many, unexplained
from house.verdict import expect_none

SILENCED = read_sources(PACKAGE, EXAMPLES)


def source(text: str) -> Source:
    return Source(ROOT / "sample.py", text)


def test_suppressions_are_rare():
    """There is at most one suppression per 1,000 code lines of the package."""
    expect_none(too_many(read_sources(PACKAGE)))


def test_suppressions_are_explained():
    """Every suppression names the code it silences and the reason."""
    expect_none(unexplained(SILENCED))


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# noqa: S101",
        "# type: ignore",
        "# type: ignore  # the stub is wrong",
        "# type: ignore[override]",
        "# pyright: ignore",
        "# pyright: basic",
        "# pragma: no cover",
        "# mypy: ignore-errors",
    ],
)
def test_a_suppression_without_code_or_reason_is_found(comment):
    """Silence without a code, or without a reason, is found."""
    assert len(unexplained([source(f"x = 1  {comment}\n")])) == 1


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S101 - pytest rewrites it",
        "# type: ignore[override]  # the stub of the driver is wrong",
        "# pyright: ignore[reportUnknownMemberType] -- untyped driver",
        "# pragma: no cover - free-threaded builds only",
    ],
)
def test_a_suppression_with_code_and_reason_is_accepted(comment):
    """Silence with its code and its reason passes."""
    assert unexplained([source(f"x = 1  {comment}\n")]) == []


def test_one_suppression_in_999_lines_is_too_many():
    """The rate is one per thousand code lines, and a string that looks like a suppression is none."""
    loud = "x = '# noqa'\n"
    silent = "x = 1  # noqa: S101 - pytest rewrites it\n"
    assert too_many([source(loud * 999 + silent)]) == []
    assert too_many([source(loud * 998 + silent)]) == [
        "1 suppressions in 999 code lines, 1 per 1000 allowed",
        "sample.py:999: # noqa: S101 - pytest rewrites it",
    ]
