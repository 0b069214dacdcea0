"""Large payloads are compressed when that pays, and opened within a limit.

A payload that is not compressed stays as it is: MessagePack, readable by any other language. A compressed one begins
with 0xC1, which no MessagePack value does, then the method and the size of the original.
"""

import zlib
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from isp_perf._runtime.resolve import zstd_module
from isp_perf.errors import CodecError

__all__ = ["LARGEST_BYTES", "expand", "squeeze"]

LARGEST_BYTES: Final = 64 << 20
_SMALLEST_BYTES: Final = 2048
_MARK: Final = 0xC1
_HEAD: Final = Struct(">BBI")
_AS_IT_IS: Final = 0
_ZLIB: Final = 1
_ZSTD: Final = 2
_WORTH_RATIO: Final = 0.9
_LEVEL: Final = 1
_ANY_ERROR: Final = Exception  # each library has errors of its own for damaged bytes


@lru_cache(maxsize=1)
def _zstd() -> Any:
    """Return the zstd library; looked for at the first large value."""
    return zstd_module()


def squeeze(data: bytes) -> bytes:
    """Return ``data``, compressed if it has 2 KiB or more and that saves at least a tenth."""
    if _SMALLEST_BYTES <= len(data) <= LARGEST_BYTES:
        zstd = _zstd()
        method = _ZLIB if zstd is None else _ZSTD
        body: bytes = zlib.compress(data, _LEVEL) if zstd is None else zstd.compress(data, _LEVEL)
        if _HEAD.size + len(body) <= _WORTH_RATIO * len(data):
            return _HEAD.pack(_MARK, method, len(data)) + body
    if data[:1] == bytes((_MARK,)):
        return _HEAD.pack(_MARK, _AS_IT_IS, len(data) & 0xFFFFFFFF) + data
    return data


def expand(data: bytes) -> bytes:
    """Return what ``squeeze`` was given.

    Raises:
        CodecError: damaged bytes, a method that this process has no library for, or more than 64 MB announced; nothing
            of that size is allocated.
    """
    if data[:1] != bytes((_MARK,)):
        return data
    if len(data) < _HEAD.size:
        raise CodecError("a compressed value is cut off")
    _, method, size = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if method == _AS_IT_IS:
        return body
    if not 0 < size <= LARGEST_BYTES:
        raise CodecError(f"a compressed value announces {size} bytes; {LARGEST_BYTES} at most are opened")
    try:
        opened = _open(method, body, size)
    except _ANY_ERROR as error:
        raise CodecError("a compressed value cannot be opened") from error
    if len(opened) != size:
        raise CodecError("a compressed value is not as long as it announces")
    return opened


def _open(method: int, body: bytes, size: int) -> bytes:
    """Return at most ``size`` + 1 bytes of the original."""
    if method == _ZLIB:
        return zlib.decompressobj().decompress(body, size + 1)
    opened: bytes = _zstd().ZstdDecompressor().decompress(body, size + 1) if method == _ZSTD else b""
    return opened
