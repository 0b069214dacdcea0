"""Templates and field texts."""

import re
from datetime import date
from uuid import UUID

import pytest

from isp_perf._core.field_text import field_text
from isp_perf._core.keys import parse_template, shorten
from isp_perf.errors import ConfigurationError


def text(value, bare=None, typed=False, escaped=""):
    return field_text(value, bare=bare, typed=typed, secret=b"k", escaped=escaped)


@pytest.mark.parametrize(
    ("value", "bare", "expected"),
    [
        (42, int, "42"),
        (42, None, "42"),
        ("42", None, "%s42"),
        ("42", str, "42"),
        (42, str, "%n42"),
        ("abc", int, "%sabc"),
        (1.5, float, "1.5"),
        (1.5, None, "%n1.5"),
        (True, int, "1"),
        (None, str, "%z"),
        ("a:b", str, "a%3Ab"),
        ("a b*", None, "a%20b%2A"),
        ("\ud800", str, "%ED%A0%80"),
        (UUID(int=1), None, "00000000-0000-0000-0000-000000000001"),
        (UUID(int=1), str, "%u00000000-0000-0000-0000-000000000001"),
        ("00000000-0000-0000-0000-000000000001", None, "%s00000000-0000-0000-0000-000000000001"),
        (date(2026, 11, 23), None, "%t2026-11-23"),
    ],
)
def test_field_text(value, bare, expected):
    """A value of the annotated type is written bare, any other carries a tag that no text can produce."""
    assert text(value, bare) == expected


def test_other_values_are_digests():
    """Lists and records appear as a 128-bit digest."""
    assert re.fullmatch(r"%k[0-9a-f]{32}", text([1, 2]))
    assert text([1]) == text([True])
    assert text([1], typed=True) != text([True], typed=True)


def join(template, names, values):
    parsed = parse_template(template, names)
    return parsed.join([text(value, escaped=parsed.escaped) for value in values])


@pytest.mark.parametrize("template", ["{a}:{b}", "{a}{b}", "{a}-{b}", "{a}x{b}", "{a}.{b}", "{a} {b}"])
def test_neighbouring_fields_never_merge(template):
    """Moving text over the border of two fields gives another key, whatever separates them."""
    pairs = [
        ("a", "bc"),
        ("ab", "c"),
        ("a-b", "c"),
        ("a", "b-c"),
        ("a:b", "c"),
        ("a", "b:c"),
        ("axb", "c"),
        ("a", "bxc"),
    ]
    keys = {join(template, ["a", "b"], pair) for pair in pairs}
    assert len(keys) == len(pairs)


def test_double_braces_are_literal():
    """{{tag}} writes a cluster hash tag."""
    assert join("user:{{{a}}}", ["a"], [1]) == "user:{1}"


def test_long_keys_keep_a_head():
    """A key over 200 bytes is a readable head and the digest of the whole."""
    long = "user:" + "x" * 300
    assert shorten(long).startswith("user:xxx")
    assert len(shorten(long)) == 64 + 2 + 32
    assert shorten(long) != shorten(long + "y")
    assert shorten("x" * 200) == "x" * 200


@pytest.mark.parametrize("template", ["{b}", "{}", "{0}", "{a:>3}", "{a!r}", "{a", "a}", "a", "{hash.x}", "{a.1}"])
def test_bad_templates(template):
    """A template that cannot work is a ConfigurationError that shows it."""
    with pytest.raises(ConfigurationError) as caught:
        parse_template(template, ["a"])
    assert caught.value.value == template
