"""Every test says what it promises."""

import pytest

from house.promises import broken_promises, promise_fault
from house.sources import ROOT, TESTS, Source, read_sources
from house.verdict import expect_none


def test_every_test_promises_one_thing():
    """Every test function has one sentence that says what holds."""
    expect_none(broken_promises(read_sources(TESTS)))


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        (None, "promises nothing: it has no docstring"),
        ("  ", "promises nothing: it has no docstring"),
        ("A hit counts once", "does not end its sentence"),
        ("A hit counts once. A miss counts too.", "promises more than one sentence"),
        ("A hit\n    counts once.", ""),
        ("Every ttl, e.g. 0.5 s, is kept.", ""),
    ],
)
def test_a_promise_is_one_sentence(docstring, fault):
    """Missing, unfinished and twofold promises are told apart."""
    assert promise_fault(docstring) == fault


def test_a_silent_test_is_found_in_a_class_too():
    """Async tests and methods of test classes are read as well."""
    text = "class TestX:\n    async def test_a(self): ...\n\n\ndef helper(): ...\n"
    assert broken_promises([Source(ROOT / "test_x.py", text)]) == [
        "test_x.py:2: test_a promises nothing: it has no docstring",
    ]
