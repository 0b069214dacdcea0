"""Templates and field texts."""

import re
from datetime import date
from uuid import UUID

import pytest

from isp_perf._core.field_text import field_text
from isp_perf._core.keys import HASH, RESERVED, Field, field_value, parse_template, shorten, wire_key
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


@pytest.mark.parametrize(
    ("template", "parameters", "setting", "told"),
    [
        ("{a", ["a"], "key", ("key", "braces come in pairs", "write {name} for a field and {{ }} for literal braces")),
        ("{hash}", ["a"], "tags", ("tags", "a tag names fields, not {hash}", "name the parameters it depends on")),
        (
            "constant",
            ["a", "b"],
            "key",
            ("key", "a template without a field gives every call one key", "add {a} or {hash}"),
        ),
        (
            "{a!r}",
            ["a"],
            "key",
            ("key", "a field is a parameter or an attribute of one", "write {name} or {name.attribute}, no format"),
        ),
        ("{c}", ["a", "b"], "key", ("key", "{c} names no parameter", "use one of {a}, {b}, {hash}")),
        ("{c}", [], "key", ("key", "{c} names no parameter", "use one of none, {hash}")),
    ],
)
def test_errors_say_what_to_write(template, parameters, setting, told):
    """Each mistake has its own rule, and a fix that names what may be written."""
    with pytest.raises(ConfigurationError) as caught:
        parse_template(template, parameters, setting=setting)
    assert (caught.value.setting, caught.value.rule, caught.value.fix) == told
    assert caught.value.value == template


def test_a_tag_may_be_constant():
    """Tags need no field; keys of functions without parameters need none either."""
    assert parse_template("all", ["a"], setting="tags").join([]) == "all"
    assert parse_template("all", []).join([]) == "all"
    with pytest.raises(ConfigurationError):
        parse_template("all", ["a"])


def test_fields_of_attributes_are_followed():
    """A field is an argument, or an attribute of an attribute of one; {hash} stands for all of them."""
    parsed = parse_template("{a.real.imag}:{a}:{hash}", ["a"])
    assert parsed.fields == (Field("a", ("real", "imag")), Field("a"), Field("hash"))
    assert field_value(parsed.fields[0], {"a": 5}) == 0
    assert field_value(parsed.fields[1], {"a": 5}) == 5
    assert HASH == "hash"


def test_neighbours_are_told_apart_in_the_key():
    """A reserved separator is enough, another one is escaped in the fields, and none becomes a border mark."""
    assert parse_template("{a}:{b}", ["a", "b"]).escaped == ""
    dashed = parse_template("{a}-{b}", ["a", "b"])
    assert (dashed.literals, dashed.escaped) == (("", "-", ""), "-")
    assert parse_template("{a}x{b}", ["a", "b"]).literals == ("", "%.x", "")
    for separator in "-_./,;|=&@+~!$()#'\"<>^`":
        assert parse_template(f"{{a}}{separator}{{b}}", ["a", "b"]).escaped == separator
    for other in "?x\x80":
        assert parse_template(f"{{a}}{other}{{b}}", ["a", "b"]).escaped == ""


def test_reserved_characters_are_these():
    """Separators of keys, glob characters, the escape itself, space and control characters."""
    assert sorted(RESERVED) == sorted({*":{}*?[]%\\ \x7f", *map(chr, range(32))})


def test_too_few_texts_are_no_key():
    """A key has a text for each field."""
    with pytest.raises(ValueError, match="argument 2"):
        parse_template("{a}:{b}", ["a", "b"]).join(["1"])


def test_a_pattern_finds_the_fields_of_a_key():
    """The pattern of a template gives back the texts of its keys, and nothing for keys of others."""
    parsed = parse_template("x.{a}-{b}:end", ["a", "b"])
    pattern = parsed.pattern()
    assert pattern.fullmatch("x.1%2D-2:end").groups() == ("1%2D", "2")
    assert pattern.fullmatch("x.-:end").groups() == ("", "")
    for other in ("xy1-2:end", "x.1-2-3:end", "x.1-2", "y.1-2:end", "x.1-2:endless", "x.a b-2:end", "x.?-2:end"):
        assert pattern.fullmatch(other) is None


def test_a_text_moves_between_templates():
    """What one template escapes and the other does not is written as the other does."""
    dashed, dotted = parse_template("{a}-{b}", ["a", "b"]), parse_template("{a}.{b}", ["a", "b"])
    assert dashed.text_for(dotted, "1%2D2.3") == "1-2%2E3"
    assert dotted.text_for(dashed, "1-2%2E3") == "1%2D2.3"
    assert dashed.text_for(dashed, "1%2D2.3") == "1%2D2.3"


def test_lengths_are_those_of_bytes():
    """200 bytes are kept and 201 are not; a head never ends within a character; surrogates are counted too."""
    assert shorten("x" * 201) != "x" * 201
    assert shorten("\ud800" * 66) == "\ud800" * 66
    assert shorten("\ud800" * 67).startswith("%~")
    accented = shorten("x" + "\u00e9" * 200)
    assert accented.startswith("x" + "\u00e9" * 31 + "%~")
    assert wire_key("isp:1:", "user:1") == "isp:1:user:1"
