"""The codecs: the only room that knows brotli, zstd, isal and zlib-ng, each loaded on first use and none required.

A library that is not installed removes its coding from what is offered, never more. Streams of every coding are
flushed per chunk, so that what was fed can be decoded at once.
"""

import struct
import threading
import zlib
from collections.abc import Callable, Container, Mapping
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Final, Protocol

__all__ = ["Codec", "DictionaryCodec", "Encoder", "available", "codec", "dictionary_codec", "library", "padded"]

_BROTLI_MIN_WINDOW = 16
_BROTLI_MAX_WINDOW = 22
_BROTLI_STREAM_WINDOW = 18
_BROTLI_SMALL_WINDOW = 16
_ZSTD_MAX_WINDOW = 23  # 8 MiB: what every decoder of the web must take (RFC 9659)
_ZSTD_SMALL_WINDOW = 15
_GZIP, _ZLIB = 16, 0  # added to the window bits: the gzip or the zlib wrapping
_WINDOW = 15
_SMALL_WINDOW, _SMALL_MEMORY, _SMALL_LEVEL = 12, 5, 4
_MEMORY = 8
_GZIP_HEADER = 10
_COMMENT_FLAG = 0x10
_EMPTY_STORED_BLOCK = b"\x00\x00\x00\xff\xff"
_SKIPPABLE = 0x184D2A50
_MAX_METADATA = 256
_BROTLI_SMALL_LEVEL = 5
_MIN_SAMPLE, _MIN_SAMPLES = 8, 1024  # bytes of one sample and of all, to train a dictionary from
_DEFLATE_LIBRARIES: Final = ("isal.isal_zlib", "zlib_ng.zlib_ng")


class Encoder(Protocol):
    """One coded stream in the making. Not for two threads at once."""

    def feed(self, data: bytes) -> bytes:
        """Encode ``data`` and flush: all that was fed so far can be decoded from what was returned so far."""
        ...

    def end(self, data: bytes) -> bytes:
        """Encode the last ``data`` and close the stream."""
        ...


class Codec(Protocol):
    """One coding: whole bodies and streams."""

    @property
    def rates(self) -> Mapping[int, float]:
        """Shipped speeds, bytes per microsecond by level."""
        ...

    def whole(self, body: bytes, level: int, padding: int = 0) -> bytes:
        """Encode a complete body; ``padding`` > 0 lengthens it by about as many ignored bytes."""
        ...

    def stream(self, *, small: bool, padding: int = 0) -> Encoder:
        """Open a stream; ``small`` trades a few per cent of bytes for a tenth of the memory."""
        ...


@lru_cache(maxsize=16)
def library(*names: str) -> Any:
    """Return the first of the modules ``names`` that can be imported, or ``None``."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def padded(coding: str, coded: bytes, padding: int) -> bytes:
    """Lengthen the beginning of a coded body by bytes that every decoder skips.

    gzip: a comment in the header (RFC 1952); zstd: a skippable frame (RFC 8878 3.1.2); deflate: empty stored blocks
    of 5 bytes each. brotli cannot be lengthened afterwards: its encoder does it.
    """
    if padding <= 0 or coding == "br":
        return coded
    if coding == "zstd":
        return struct.pack("<II", _SKIPPABLE, padding) + bytes(padding) + coded
    if coding == "deflate":
        return coded[:2] + _EMPTY_STORED_BLOCK * padding + coded[2:]
    flags = bytes((coded[3] | _COMMENT_FLAG,))
    comment = b" " * padding + b"\x00"
    return coded[:3] + flags + coded[4:_GZIP_HEADER] + comment + coded[_GZIP_HEADER:]


def _metadata(padding: int) -> bytes:
    """Return one brotli metadata block (RFC 7932 9.2: MNIBBLES 0, then the skip length) for a byte-aligned place."""
    length = min(padding, _MAX_METADATA)
    return struct.pack("<H", (3 << 1) | (1 << 4) | ((length - 1) << 6)) + bytes(length)


class _Padded:
    """A stream whose first output is lengthened."""

    __slots__ = ("_coding", "_encoder", "_padding")

    def __init__(self, encoder: Encoder, coding: str, padding: int) -> None:
        self._encoder = encoder
        self._coding = coding
        self._padding = padding

    def _first(self, data: bytes) -> bytes:
        padding, self._padding = self._padding, 0
        return padded(self._coding, data, padding)

    def feed(self, data: bytes) -> bytes:
        return self._first(self._encoder.feed(data))

    def end(self, data: bytes) -> bytes:
        return self._first(self._encoder.end(data))


class _BrotliStream:
    __slots__ = ("_encoder", "_head")

    def __init__(self, encoder: Any, padding: int) -> None:
        self._encoder = encoder
        self._head: bytes = encoder.process(b"") + encoder.flush() + _metadata(padding) if padding else b""

    def feed(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        out: bytes = head + self._encoder.process(data) + self._encoder.flush()
        return out

    def end(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        out: bytes = head + self._encoder.process(data) + self._encoder.finish()
        return out


class _Brotli:
    """brotli (RFC 7932). Levels 0 and 1 forget their context at a flush, so streams use 5."""

    __slots__ = ("_module",)
    rates: Mapping[int, float] = {1: 250.0, 4: 70.0, 5: 45.0, 11: 0.6}

    def __init__(self, module: Any) -> None:
        self._module = module

    def whole(self, body: bytes, level: int, padding: int = 0) -> bytes:
        # There is no size hint: a window fitted to the body is what keeps the encoder from clearing megabytes.
        window = min(_BROTLI_MAX_WINDOW, max(_BROTLI_MIN_WINDOW, len(body).bit_length()))
        if padding:
            return _BrotliStream(self._module.Compressor(quality=level, lgwin=window), padding).end(body)
        coded: bytes = self._module.compress(body, quality=level, lgwin=window)
        return coded

    def stream(self, *, small: bool, padding: int = 0) -> Encoder:
        window = _BROTLI_SMALL_WINDOW if small else _BROTLI_STREAM_WINDOW
        return _BrotliStream(self._module.Compressor(quality=_BROTLI_SMALL_LEVEL, lgwin=window), padding)


class _ZstdStream:
    __slots__ = ("_encoder", "_flush", "_frame")

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._flush = encoder.FLUSH_BLOCK
        self._frame = encoder.FLUSH_FRAME

    def feed(self, data: bytes) -> bytes:
        out: bytes = self._encoder.compress(data, self._flush)
        return out

    def end(self, data: bytes) -> bytes:
        out: bytes = self._encoder.compress(data, self._frame)
        return out


class _Encoders(threading.local):
    """Zstd encoders for whole bodies, kept by thread and level: making one costs more than coding 1 KB with it.

    An encoder locks itself, and an event loop must not wait for a thread that codes megabytes: each has its own.

    Args:
        make: makes an encoder for a level.
        levels: those whose encoders are kept; at the highest ones they take tens of megabytes, and are rarely needed.
    """

    def __init__(self, make: Callable[..., Any], levels: Container[int]) -> None:
        self._make = make
        self._levels = levels
        self._made: dict[int, Any] = {}

    def whole(self, body: bytes, level: int) -> bytes:
        """Return one frame."""
        encoder = self._made.get(level) or self._new(level)
        frame: bytes = encoder.compress(body, encoder.FLUSH_FRAME)
        return frame

    def _new(self, level: int) -> Any:
        encoder = self._make(level=level)
        if level in self._levels:
            self._made[level] = encoder
        return encoder


class _Zstd:
    """zstd (RFC 8878), with a window of at most 8 MiB at every level (RFC 9659)."""

    __slots__ = ("_encoders", "_module")
    rates: Mapping[int, float] = {1: 400.0, 3: 280.0}

    def __init__(self, module: Any) -> None:
        self._module = module
        self._encoders = _Encoders(module.ZstdCompressor, self.rates)

    def whole(self, body: bytes, level: int, padding: int = 0) -> bytes:
        return padded("zstd", self._encoders.whole(body, level), padding)

    def stream(self, *, small: bool, padding: int = 0) -> Encoder:
        parameter = self._module.CompressionParameter
        window = _ZSTD_SMALL_WINDOW if small else _ZSTD_MAX_WINDOW - 2
        options = {parameter.compression_level: 1 if small else 3, parameter.window_log: window}
        encoder = _ZstdStream(self._module.ZstdCompressor(options=options))
        return _Padded(encoder, "zstd", padding) if padding else encoder


class _DeflateStream:
    __slots__ = ("_encoder",)

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def feed(self, data: bytes) -> bytes:
        out: bytes = self._encoder.compress(data) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        return out

    def end(self, data: bytes) -> bytes:
        out: bytes = self._encoder.compress(data) + self._encoder.flush()
        return out


class _Deflate:
    """gzip (RFC 1952) and deflate in its zlib wrapping (RFC 1950): the fastest library there is for each job.

    isal has the fast level, zlib-ng the ordinary ones and the streams, and the standard library does it all if need
    be. Small-window streams always use the standard library, whose memory is the smallest.
    """

    __slots__ = ("_coding", "_fast", "_wrapping", "_zlib", "rates")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._wrapping = _GZIP if coding == "gzip" else _ZLIB
        isal, ng = (library(name) for name in _DEFLATE_LIBRARIES)
        self._zlib: Any = ng or zlib
        self._fast: tuple[Any, int] = (isal, 2) if isal else (self._zlib, 1)
        self.rates: Mapping[int, float] = {6: 56.0 if ng else 28.0, 1: 300.0 if isal else 100.0}

    def whole(self, body: bytes, level: int, padding: int = 0) -> bytes:
        bits = self._wrapping + _WINDOW
        if level <= 1:
            module, level = self._fast
            coded: bytes = module.compress(body, level, bits)
        else:  # measured between other work, a stream codes 10 KB up to a third sooner than the one-shot function
            encoder = self._zlib.compressobj(level, zlib.DEFLATED, bits, _MEMORY)
            coded = encoder.compress(body) + encoder.flush()
        return padded(self._coding, coded, padding) if padding else coded

    def stream(self, *, small: bool, padding: int = 0) -> Encoder:
        if small:
            bits = self._wrapping + _SMALL_WINDOW
            encoder = _DeflateStream(zlib.compressobj(_SMALL_LEVEL, zlib.DEFLATED, bits, _SMALL_MEMORY))
        else:
            bits = self._wrapping + _WINDOW
            encoder = _DeflateStream(self._zlib.compressobj(6, zlib.DEFLATED, bits, _MEMORY))
        return _Padded(encoder, self._coding, padding) if padding else encoder


@lru_cache(maxsize=8)
def codec(coding: str) -> Codec | None:
    """Return the codec for a coding, or ``None`` if its library is not installed."""
    if coding in ("gzip", "deflate"):
        return _Deflate(coding)
    if coding == "br":
        module = library("brotli", "brotlicffi")
        return None if module is None else _Brotli(module)
    module = library("compression.zstd", "backports.zstd")
    return None if module is None or coding != "zstd" else _Zstd(module)


class DictionaryCodec:
    """zstd against a dictionary of raw content."""

    __slots__ = ("_module",)
    LEVEL: Final = 3

    def __init__(self, module: Any) -> None:
        self._module = module

    def prepare(self, content: bytes, *, lasting: bool) -> Callable[[bytes], bytes]:
        """Return a function that makes one zstd frame of a body with this dictionary.

        The dictionary is digested once. One that is ``lasting`` keeps an encoder for each thread too (some 1 MB), which
        makes a small body three times quicker.
        """
        dictionary = self._module.ZstdDict(content, is_raw=True)
        if lasting:  # the encoder digests it once, for its own parameters, which is a little better and quicker still
            make = partial(self._module.ZstdCompressor, zstd_dict=dictionary.as_undigested_dict)
            return partial(_Encoders(make, (self.LEVEL,)).whole, level=self.LEVEL)
        return partial(self._module.compress, level=self.LEVEL, zstd_dict=dictionary.as_digested_dict)

    def train(self, samples: list[bytes], size: int) -> bytes | None:
        """Return a dictionary of at most ``size`` bytes, or ``None`` if the samples do not do.

        The library's trainer ends the whole process (a division by zero) on a handful of bytes: it is not asked then.
        """
        usable = [sample for sample in samples if len(sample) >= _MIN_SAMPLE]
        if sum(map(len, usable)) < _MIN_SAMPLES:
            return None
        try:
            content: bytes = self._module.train_dict(usable, size).dict_content
        except (self._module.ZstdError, ValueError):
            return None
        return content


def dictionary_codec() -> DictionaryCodec | None:
    """Return the dictionary codec, or ``None`` if no zstd library is installed."""
    module = library("compression.zstd", "backports.zstd")
    return None if module is None else DictionaryCodec(module)


def available(encodings: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``encodings`` whose library is installed, in their order."""
    return tuple(coding for coding in encodings if codec(coding) is not None)
