"""Entity tags of coded bodies."""

import pytest

from isp_perf._core.etags import mark, unmark_list

CODINGS = ("br", "zstd", "gzip", "deflate", "dcz")


@pytest.mark.parametrize(
    ("tag", "marked"),
    [
        (b'"v1"', b'W/"v1-br"'),
        (b' "v1" ', b'W/"v1-br"'),
        (b'W/"v1"', b'W/"v1"'),
        (b'""', b'W/"-br"'),
        (b"v1", None),
        (b'"', None),
        (b"", None),
    ],
)
def test_a_strong_tag_becomes_weak_and_marked(tag, marked):
    """A strong tag carries the coding's name and turns weak, a weak one is kept, and what is no tag is dropped."""
    assert mark(tag, "br") == marked


def test_a_suffix_keeps_the_tag_strong():
    """With fixed levels the marked tag may stay strong."""
    assert mark(b'"v1"', "gzip", strong=True) == b'"v1-gzip"'


@pytest.mark.parametrize(
    ("value", "restored", "marks"),
    [
        (b'W/"v1-br"', b'"v1"', {b'"v1"': ("br",)}),
        (b'W/"v1-br", W/"v1-gzip", "x"', b'"v1", "x"', {b'"v1"': ("br", "gzip")}),
        (b'"a,b", W/"a,b-zstd"', b'"a,b"', {b'"a,b"': ("zstd",)}),
        (b"*", b"*", {}),
        (b'"v1-br"', b'"v1-br"', {}),
        (b'W/"v1"', b'W/"v1"', {}),
        (b"W/v1-br", b"W/v1-br", {}),
        (b"", b"", {}),
    ],
)
def test_marks_of_every_coding_are_taken_off(value, restored, marks):
    """Each member of a condition that carries a mark is restored to the application's own tag, others pass."""
    assert unmark_list(value, CODINGS) == (restored, marks)


def test_strong_marks_are_looked_for_only_when_we_make_them():
    """A strong tag that looks marked is restored only in suffix mode."""
    assert unmark_list(b'"v1-br"', CODINGS, strong=True) == (b'"v1"', {b'"v1"': ("br",)})
