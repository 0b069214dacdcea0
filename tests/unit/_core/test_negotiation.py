"""Accept-Encoding, rule by rule (N1 to N9 of the compression notes)."""

import json
import time
from pathlib import Path

import pytest

from isp_perf._core.negotiation import KNOWN_CODINGS, members_of, negotiate, qualities_of


@pytest.mark.parametrize(
    ("header", "candidates"),
    [
        (None, ()),
        (b"", ()),
        (b" \t ", ()),
        (b"gzip", ("gzip",)),
        (b"gzip, deflate, br, zstd", ("br", "zstd", "gzip", "deflate")),
        (b"deflate,gzip", ("gzip", "deflate")),
        (b" \tGZip\t;\tQ=0.5 ,x-unknown", ("gzip",)),
        (b"x-gzip", ("gzip",)),
        (b"gzip;q=0.2, br;q=0.1", ("gzip",)),
        (b"*", ("br", "zstd", "gzip", "deflate")),
        (b"*;q=0.5, br;q=0", ("zstd", "gzip", "deflate")),
        (b"gzip;q=0.5, *;q=0.9, br;q=0.1", ("zstd", "deflate")),
    ],
)
def test_the_highest_q_wins_and_the_server_breaks_ties(header, candidates):
    """The candidates are the codings with the client's highest q-value, in the server's order."""
    plan = negotiate(header)
    assert plan.candidates == candidates
    assert plan.coding == (candidates[0] if candidates else None)
    assert plan.identity_ok


@pytest.mark.parametrize(
    "header", [b"notgzip", b"gzip2", b"gzi", b"foo;gzip", b"foo;x=gzip", b'foo;x=",gzip,"', b"gzip p"]
)
def test_a_coding_is_a_whole_token(header):
    """A coding's name inside a longer token, a parameter or a quoted string offers nothing."""
    assert negotiate(header).candidates == ()


@pytest.mark.parametrize(
    "q", [b"0", b"0.", b"0.0", b"0.00", b"0.000", b"-1", b"2", b"1.001", b"0.0001", b"x", b"", b".5", b'"1"', b"1e3"]
)
def test_zero_and_malformed_q_refuse_the_coding(q):
    """A q-value of zero in any spelling, or one that is none, means the coding is never used."""
    plan = negotiate(b"gzip;q=" + q + b", *;q=0")
    assert plan.candidates == ()
    assert "gzip" not in plan.acceptable


@pytest.mark.parametrize(
    ("q", "weight"), [(b"1", 1000), (b"1.", 1000), (b"1.000", 1000), (b"0.5", 500), (b"0.05", 50), (b"0.123", 123)]
)
def test_q_is_read_in_thousandths(q, weight):
    """A well-formed q-value keeps all of its three digits."""
    assert qualities_of(b"br; q=" + q) == {"br": weight}


def test_the_last_mention_counts_and_the_least_q_of_one_member():
    """A coding listed twice has its last q-value; a member with two q parameters the lesser one."""
    assert qualities_of(b"gzip;q=0, x-gzip;q=0.5") == {"gzip": 500}
    assert qualities_of(b"gzip;q=0;q=1") == {"gzip": 0}


def test_a_parameter_q_without_a_value_refuses():
    """A bare q is malformed, and the member is refused."""
    assert qualities_of(b"gzip;q") == {"gzip": 0}


@pytest.mark.parametrize(
    ("header", "candidates", "identity_ok", "reason"),
    [
        (b"identity, gzip;q=0.5", (), True, "identity_preferred"),
        (b"identity;q=0.5, gzip;q=0.5", ("gzip",), True, None),
        (b"identity;q=0, gzip", ("gzip",), False, None),
        (b"*;q=0, gzip", ("gzip",), False, None),
        (b"*;q=0, gzip, identity;q=0.1", ("gzip",), True, None),
        (b"identity;q=0", (), False, "not_acceptable"),
        (b"*;q=0", (), False, "not_acceptable"),
        (b"compress", (), True, "identity_preferred"),
        (b"gzip;q=0", (), True, "identity_preferred"),
        (None, (), True, "no_accept_encoding"),
        (b"", (), True, "no_accept_encoding"),
    ],
)
def test_identity_is_weighed_as_the_client_weighs_it(header, candidates, identity_ok, reason):
    """Identity wins only when named with a greater q, and is refused by name or by the wildcard."""
    plan = negotiate(header)
    assert (plan.candidates, plan.identity_ok, plan.reason) == (candidates, identity_ok, reason)


@pytest.mark.parametrize(
    ("header", "dictionary"),
    [
        (b"*", False),
        (b"dcz", True),
        (b"dcz;q=0", False),
        (b"br, dcz;q=0.5", False),
        (b"br;q=0.5, dcz", True),
        (b"dcz, identity;q=0.1", True),
    ],
)
def test_a_wildcard_never_stands_for_dcz(header, dictionary):
    """The dictionary coding must be named, and be as welcome as the best other coding."""
    assert negotiate(header).dictionary is dictionary


def test_only_what_is_offered_is_chosen():
    """A plan never names a coding outside the server's list, and follows its order."""
    assert negotiate(b"br, gzip", ("gzip", "br")).candidates == ("gzip", "br")
    assert negotiate(b"br, zstd", ("gzip",)).candidates == ()


def test_every_byte_string_has_a_plan():
    """Bytes that are no text at all are read without an error, as unknown codings."""
    assert negotiate(bytes(range(256))).candidates == ()
    assert members_of(b'a;x="b,c",d') == [b'a;x="b,c"', b"d"]


@pytest.mark.parametrize("piece", [b",", b";", b'"', b'"\\', b"gzip;q=1,", b'a"b,"', b"\xff", b";q=", b" "])
def test_parsing_takes_linear_time(piece):
    """Sixteen times the header takes far less than the square of sixteen times the processor's time."""

    def seconds(size):
        header = (piece * size)[:size]
        started = time.thread_time()
        negotiate(header)
        return time.thread_time() - started

    pairs = [(seconds(4_000), seconds(64_000)) for _ in range(3)]
    short, long = map(min, zip(*pairs, strict=True))
    assert long < 100 * short + 0.01


def test_known_codings_put_brotli_before_gzip_before_deflate():
    """The default order is the one the service always had, with zstd between brotli and gzip."""
    assert KNOWN_CODINGS == ("br", "zstd", "gzip", "deflate")


def test_the_npm_package_negotiator_answers_the_same():
    """On generated headers our choice is that of the npm package negotiator, up to the agreed rule for a wildcard."""
    data = Path(__file__).parents[2] / "data" / "compression" / "negotiator.json"
    pairs = [(h, answer) for h, answer in json.loads(data.read_text()) if "identity" in h or "*" not in h]
    assert len(pairs) > 150
    plans = [negotiate(header.encode()) for header, _ in pairs]
    assert [p.coding or ("identity" if p.identity_ok else None) for p in plans] == [answer for _, answer in pairs]
