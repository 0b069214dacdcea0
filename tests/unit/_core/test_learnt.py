"""Sizes learnt from replies: what is believed of a family, and when it is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isp_perf._core.learnt import LearntSizes, family_of, size_of


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("avatar:17", b"avatar:"),
        (b"a:b:c", b"a:b:"),
        ("plain", b"plain"),
        (7, b""),
        (None, b""),
        ("é:1", "é:".encode()),
    ],
)
def test_a_family_is_a_command_and_a_key_up_to_its_last_colon(key, prefix):
    """Text and bytes are one; a key without a colon is its own family."""
    assert family_of("GET", key) == ("GET", prefix)


def test_sizes_are_counted_at_every_depth():
    """Values, lists, maps and sets count what is in them."""
    assert size_of(b"abc") == 3
    assert size_of([b"abc", [b"de", None]]) == 3 + (2 + 8 + 2) + 2
    assert size_of({b"a": b"bc"}) == 4
    assert size_of(12) == 8


def test_a_family_is_forgotten_after_a_row_of_small_replies():
    """Each time it has to be learnt again, the row doubles; a large reply starts the row anew."""
    learnt, family = LearntSizes(), ("GET", b"a:")
    learnt.note(family, large=False)
    assert not learnt.families
    for row in (64, 128, 256):
        learnt.note(family, large=True)
        for _ in range(row - 1):
            learnt.note(family, large=False)
        assert family in learnt.families
        learnt.note(family, large=False)
        assert family not in learnt.families
    learnt.note(family, large=True)
    for _ in range(511):
        learnt.note(family, large=False)
    learnt.note(family, large=True)
    learnt.note(family, large=False)
    assert family in learnt.families


@given(st.lists(st.tuples(st.integers(0, 5_000), st.booleans()), max_size=300))
def test_memory_is_bounded(notes):
    """However many families a program invents, only the newest are remembered."""
    learnt = LearntSizes()
    for number, large in notes:
        learnt.note(("GET", b"%d" % number), large=large)
    for number in range(3_000):
        learnt.note(("GET", b"%d" % number), large=True)
    assert len(learnt.families) == 1024
    assert ("GET", b"2999") in learnt.families
