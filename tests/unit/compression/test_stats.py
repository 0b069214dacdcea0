"""The record of what compression did (T1 to T3)."""

import json

from isp_perf.compression import CompressionMiddleware, CompressionStats
from isp_perf.compression._stats import live_stats


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
