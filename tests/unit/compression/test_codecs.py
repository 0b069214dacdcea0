"""The codecs: what every decoder of the web must be able to read, and what an open stream may cost."""

import gc
import math
import os
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from codings import ZSTD
from isp_perf._core.cost import BEST_LEVELS, FAST_LEVELS, LEVELS
from isp_perf.compression._codecs import _Encoders, available, codec, dictionary_codec

CODINGS = available(("br", "zstd", "gzip", "deflate"))
needs_zstd = pytest.mark.skipif(ZSTD is None, reason="zstd is not installed")
EIGHT_MIB_LOG = 23


def small_decoder(**more):
    """A decoder that takes windows of 8 MiB at most, as RFC 9659 asks of every client."""
    return ZSTD.ZstdDecompressor(options={ZSTD.DecompressionParameter.window_log_max: EIGHT_MIB_LOG}, **more)


@needs_zstd
@pytest.mark.parametrize("level", sorted({LEVELS["zstd"], FAST_LEVELS["zstd"], BEST_LEVELS["zstd"]}))
def test_zstd_frames_need_a_window_of_8_mib_at_most(level):
    """Whole bodies at every level in use are read by a decoder with the least window the web allows (RFC 9659)."""
    body = b"sem sinal " * (2 << 20)
    assert small_decoder().decompress(codec("zstd").whole(body, level)) == body


@needs_zstd
@pytest.mark.parametrize("small", [True, False])
def test_zstd_streams_need_a_window_of_8_mib_at_most(small):
    """So are streams, of either kind, whatever their length."""
    part = b"sem sinal " * (1 << 20)
    encoder, decoder = codec("zstd").stream(small=small), small_decoder()
    for _ in range(2):
        assert decoder.decompress(encoder.feed(part)) == part
    assert decoder.decompress(encoder.end(part)) == part


@needs_zstd
@pytest.mark.parametrize("lasting", [True, False])
def test_dictionary_frames_keep_to_their_window(lasting):
    """A frame made with a dictionary needs no more than 8 MiB, well inside what RFC 9842 allows."""
    content = os.urandom(1 << 15)
    body = content * 300
    frame = dictionary_codec().prepare(content, lasting=lasting)(body)
    dictionary = ZSTD.ZstdDict(content, is_raw=True)
    assert small_decoder(zstd_dict=dictionary).decompress(frame) == body


def test_deflate_is_the_zlib_format():
    """The coding deflate is RFC 1950, never raw deflate, whole and streamed."""
    encoder = codec("deflate").stream(small=True)
    for coded in (codec("deflate").whole(b"a" * 999, 6), codec("deflate").whole(b"a" * 999, 1)):
        assert zlib.decompress(coded) == b"a" * 999
    assert zlib.decompress(encoder.feed(b"a") + encoder.end(b"b")) == b"ab"


@pytest.mark.parametrize("coding", CODINGS)
def test_every_level_in_use_has_a_shipped_speed_or_is_kept_for_variants(coding):
    """The budget can predict each level that may run on the event loop."""
    for level in {LEVELS[coding], FAST_LEVELS[coding]}:
        assert 0 < codec(coding).rates[level] < math.inf


MEASURE = """
import resource, sys
from isp_perf.compression._codecs import codec
def opened(number):
    streams = [codec("gzip").stream(small=True) for _ in range(number)]
    for stream in streams:
        stream.feed(b"data: " + bytes(range(256)) + b"\\n\\n")
    return streams
first = opened(50)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
second = opened(1000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is KiB on Linux only")
def test_an_open_event_stream_costs_40_kib_at_most():
    """A thousand open gzip event streams take no more than 40 KiB each."""
    gc.collect()
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) <= 40


@needs_zstd
@pytest.mark.parametrize("level", [1, 3, 19])
def test_an_encoder_that_is_used_again_codes_as_a_new_one(level):
    """Kept zstd encoders have no memory: every frame is the one that a new encoder makes."""
    bodies = [b"sem sinal " * size for size in (3, 400, 1, 90_000, 0, 400)]
    assert [codec("zstd").whole(body, level) for body in bodies] == [ZSTD.compress(body, level) for body in bodies]


@needs_zstd
def test_no_thread_uses_the_encoder_of_another():
    """Each thread makes an encoder of its own, once, and one of the highest levels each time."""
    made = []

    def make(level):
        made.append((threading.get_ident(), level))
        return ZSTD.ZstdCompressor(level=level)

    encoders = _Encoders(make, (3,))
    with ThreadPoolExecutor(1) as executor:
        for level in (3, 3, 19, 19):
            for run in (encoders.whole, lambda *job: executor.submit(encoders.whole, *job).result()):
                assert ZSTD.decompress(run(b"sem sinal", level)) == b"sem sinal"
    assert [level for thread, level in made if thread == threading.get_ident()] == [3, 19, 19]
    assert [level for thread, level in made if thread != threading.get_ident()] == [3, 19, 19]
