"""Header lists: read once, rewritten into new ones."""

import pytest

from isp_perf._core.headers import (
    Vary,
    coded_headers,
    collect,
    declared_length,
    has_token,
    marked_headers,
    plain_headers,
    without_digests,
)

AE = Vary((b"Accept-Encoding",))


def test_fields_are_collected_in_any_case_and_joined():
    """Deciding fields are found whatever their case, and several lines of one field are one list."""
    found = collect([(b"Content-Type", b"a/b"), (b"VARY", b"Origin"), (b"vary", b"Cookie"), (b"x", b"y")])
    assert found == {b"content-type": b"a/b", b"vary": b"Origin, Cookie"}


@pytest.mark.parametrize(
    ("value", "there"),
    [
        (b"no-transform", True),
        (b"public, No-Transform", True),
        (b"no-transform=1", True),
        (b"x-no-transform", False),
        (b"no-transforms", False),
        (b'private="no-transform, x"', False),
        (b"", False),
    ],
)
def test_a_directive_is_a_whole_token(value, there):
    """A Cache-Control directive is found as a whole member only."""
    assert has_token(value, b"no-transform") is there


@pytest.mark.parametrize(
    ("value", "length"), [(b"12", 12), (b"0", 0), (b"-1", None), (b"1, 1", None), (b"x", None), (b"9" * 30, None)]
)
def test_only_a_plain_number_is_a_length(value, length):
    """A Content-Length that is not one number is not believed."""
    assert declared_length({b"content-length": value}) == length


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], [b"Accept-Encoding"]),
        ([b"Origin"], [b"Origin, Accept-Encoding"]),
        ([b"Origin", b"Cookie"], [b"Origin", b"Cookie, Accept-Encoding"]),
        ([b"accept-ENCODING"], [b"accept-ENCODING"]),
        ([b"*"], [b"*"]),
        ([b""], [b"Accept-Encoding"]),
        ([b"X-Accept-Encoding"], [b"X-Accept-Encoding, Accept-Encoding"]),
    ],
)
def test_vary_gains_one_member_once(lines, expected):
    """Vary names Accept-Encoding exactly once, and keeps its other values and lines."""
    headers = [(b"Vary", value) for value in lines]
    before = list(headers)
    vary = collect(headers).get(b"vary")
    plain = plain_headers(headers, vary, AE)
    coded = coded_headers(headers, "br", vary=vary, wanted=AE, strong=False)
    assert [v for k, v in plain if k.lower() == b"vary"] == expected
    assert [v for k, v in coded if k.lower() == b"vary"] == expected
    assert headers == before


def test_coded_headers_drop_what_described_other_bytes():
    """Length, ranges, digests and framing go; every other line keeps its order and multiplicity."""
    headers = [
        (b"Content-Length", b"9"),
        (b"Set-Cookie", b"a=1"),
        (b"Accept-Ranges", b"bytes"),
        (b"Content-MD5", b"x"),
        (b"Digest", b"x"),
        (b"Content-Digest", b"x"),
        (b"Repr-Digest", b"x"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Encoding", b"identity"),
        (b"Set-Cookie", b"b=2"),
        (b"ETag", b'"v"'),
        (b"etag", b"broken"),
    ]
    assert coded_headers(headers, "gzip", vary=None, wanted=AE, strong=False) == [
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"ETag", b'W/"v-gzip"'),
        (b"vary", b"Accept-Encoding"),
        (b"content-encoding", b"gzip"),
    ]


def test_a_304_carries_the_tag_that_was_presented():
    """The chosen coding's mark is used if it was presented, else the first that was."""
    headers = [(b"ETag", b'"v"'), (b"x", b"y")]
    marks = {b'"v"': ("gzip", "br")}
    assert marked_headers(headers, marks, "br", strong=False) == [(b"ETag", b'W/"v-br"'), (b"x", b"y")]
    assert marked_headers(headers, marks, "zstd", strong=False)[0] == (b"ETag", b'W/"v-gzip"')
    assert marked_headers([(b"ETag", b'W/"v"')], marks, None, strong=False) == [(b"ETag", b'W/"v-gzip"')]
    assert marked_headers([(b"ETag", b'"other"')], marks, "br", strong=False) == [(b"ETag", b'"other"')]


def test_trailers_lose_their_digests():
    """Digests of the uncoded bytes are dropped from trailers too."""
    assert without_digests([(b"Repr-Digest", b"x"), (b"server-timing", b"y")]) == [(b"server-timing", b"y")]
