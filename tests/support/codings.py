"""What both ends of a connection do with each content coding, straight from the libraries."""

import gzip
import zlib

import brotli

from isp_perf.compression._codecs import library

ZSTD = library("compression.zstd", "backports.zstd")

PACK = {
    "br": brotli.compress,
    "deflate": zlib.compress,
    "gzip": gzip.compress,
    "zstd": ZSTD and ZSTD.compress,
}
"""Code a whole body."""

UNPACK = {
    "br": brotli.decompress,
    "deflate": zlib.decompress,
    "gzip": gzip.decompress,
    "zstd": ZSTD and ZSTD.decompress,
}
"""Decode a whole body; what is cut or damaged is an error."""

READ = {
    "br": lambda: brotli.Decompressor().process,
    "deflate": lambda: zlib.decompressobj(zlib.MAX_WBITS).decompress,
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS + 16).decompress,
    "zstd": lambda: ZSTD.ZstdDecompressor().decompress,
}
"""Make a reader of a stream, which returns what can be decoded so far."""
