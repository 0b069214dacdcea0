"""The record of what compression did (T1 to T3)."""

import json
from hashlib import sha256

import pytest

from isp_perf.compression import Breach, CompressionMiddleware, CompressionStats
from isp_perf.compression._stats import REASONS, live_stats


def test_the_seeds_json_keeps_its_keys_and_arithmetic():
    """The seed's keys are there with its figures: 45,000,000 bytes are 42.9 MB, in their order."""
    stats = CompressionStats()
    stats.encoded.update(br=3000, gzip=2000)
    stats.saved.update(br=30_000_000, gzip=15_000_000)
    got = stats.as_dict()
    assert list(got)[:4] == ["total_requests", "total_bytes_saved", "total_bytes_saved_mb", "by_encoding"]
    assert got["total_requests"] == 5000
    assert (got["total_bytes_saved"], got["total_bytes_saved_mb"]) == (45_000_000, 42.9)
    assert got["by_encoding"] == {
        "brotli": {"requests": 3000, "bytes_saved": 30_000_000},
        "gzip": {"requests": 2000, "bytes_saved": 15_000_000},
    }
    assert json.loads(json.dumps(got)) == got


def test_an_unused_record_names_brotli_and_gzip():
    """Both of the seed's codings are there before the first request, the others once used."""
    stats = CompressionStats()
    assert list(stats.as_dict()["by_encoding"]) == ["brotli", "gzip"]
    stats.count("zstd", 10, 4)
    assert list(stats.as_dict()["by_encoding"]) == ["brotli", "gzip", "zstd"]


async def test_requests_and_bytes_add_up(http, big):
    """Coded and skipped responses are all requests, and bytes in are bytes out plus bytes saved."""
    stats = CompressionStats()
    requests = 0
    for accept in (b"br", b"gzip", b"zstd", None, b"gzip, identity;q=0"):
        for app in (
            http.answer(big),
            http.answer(chunks=[big, big, b""]),
            http.answer(b"x"),
            http.answer(big, b"image/png"),
        ):
            for method in ("GET", "HEAD"):
                await http.call(CompressionMiddleware(app, stats=stats), accept, method=method)
                requests += 1
    got = stats.as_dict()
    assert got["total_requests"] + sum(got["skipped"].values()) == requests
    assert got["bytes_in"] == got["bytes_out"] + got["total_bytes_saved"]
    assert got["total_requests"] == sum(c["requests"] for c in got["by_encoding"].values())
    assert got["codec_seconds"] > 0


def test_live_records_can_be_found():
    """Metrics find every record in use, and none that is gone."""
    stats = CompressionStats()
    assert stats in live_stats
    before = len(live_stats)
    del stats
    assert len(live_stats) == before - 1


BODY = b'{"cliente": "Ana"}' * 200
PACKED = b"".join(sha256(b"%d" % i).digest() for i in range(60))
JSON = (b"content-type", b"application/json")
START, MORE = "http.response.start", "http.response.body"


def reply(*fields, status=200, body=BODY, method="GET", accept=b"br", path="/", request=(), scope=None, **settings):
    """One response and what was asked for it."""
    return {
        "messages": [{"type": START, "status": status, "headers": list(fields)}, {"type": MORE, "body": body}],
        "accept": accept,
        "scope": {"method": method, "path": path, "headers": request, **(scope or {})},
        "settings": settings,
    }


def with_messages(*messages):
    return {**reply(), "messages": list(messages)}


HEAD = {"type": START, "status": 200, "headers": [JSON]}
CASES = {
    "no_accept_encoding": reply(JSON, accept=None),
    "identity_preferred": reply(JSON, accept=b"identity, br;q=0.5"),
    "not_acceptable": reply(JSON, accept=b"*;q=0"),
    "too_small": reply(JSON, body=b"{}"),
    "not_smaller": reply(JSON, body=PACKED),
    "type": reply((b"content-type", b"image/png")),
    "already_encoded": reply(JSON, (b"content-encoding", b"gzip")),
    "no_transform": reply(JSON, (b"cache-control", b"no-transform")),
    "status": reply(JSON, status=304, body=b""),
    "range": reply(JSON, (b"content-range", b"bytes 0-9/99"), status=206),
    "head": reply(JSON, (b"content-length", b"5000"), body=b"", method="HEAD"),
    "empty": reply(JSON, body=b""),
    "pathsend": with_messages(HEAD, {"type": "http.response.pathsend", "path": "/x"}),
    "excluded": reply(JSON, path="/raw/1", exclude=("/raw/*",)),
    "opted_out": reply(JSON, scope={"isp_perf.compression": False}),
    "cross_site": reply(JSON, request=[(b"sec-fetch-site", b"cross-site"), (b"cookie", b"a=b")], breach=Breach()),
    "wrong_length": reply(JSON, (b"content-length", b"9999")),
    "other_message": with_messages(HEAD, {"type": "http.response.debug", "info": {}}, {"type": MORE, "body": BODY}),
    "aborted": with_messages(),
}


@pytest.mark.parametrize("reason", REASONS)
async def test_every_reason_has_a_response_that_is_counted_under_it(http, reason):
    """Each reason of ``skipped`` is given for the response it names, once, and for nothing else."""
    case = CASES[reason]

    async def app(scope, receive, send):
        for message in case["messages"]:
            await send(message)

    middleware = CompressionMiddleware(app, **case["settings"])
    await http.call(middleware, case["accept"], **case["scope"])
    assert middleware.stats.as_dict()["skipped"] == {reason: 1}
    assert middleware.stats.total_requests == 0
