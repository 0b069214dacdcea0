"""Decoding what strangers sent: piece by piece, so that no chunk can expand into more than was asked for."""

import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

from isp_perf.compression._codecs import library

__all__ = ["Chain", "RefusedBodyError", "decodable"]

_PIECE: Final = 1 << 16
_SLICE: Final = 1 << 16
_BROTLI_BLOCK: Final = 32_752
_RATIO_FLOOR: Final = 1 << 20
_ZSTD_MAX_WINDOW = 23  # 8 MiB (RFC 9659): the window is memory that the sender asks of us
_BAD_REQUEST, _TOO_LARGE = 400, 413
Room = Callable[[], int]
"""How many bytes may be decoded next, 1 or more."""
_TOO_MUCH_MEMORY = "too much memory"


class RefusedBodyError(Exception):
    """A request body that is not taken.

    Args:
        status: 400 (corrupt, cut off, or followed by garbage) or 413 (too large, or expanding too much).
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Decoder(Protocol):
    """One coding of one body."""

    @property
    def complete(self) -> bool:
        """Whether the body may end here."""
        ...

    def pieces(self, data: bytes, room: Room) -> Iterator[bytes]:
        """Decode ``data`` (one byte or more) into pieces of ``room()`` bytes at most; raise if it is corrupt."""
        ...


class _Framed:
    """gzip, deflate and zstd: a body is one member or several (RFC 1952 2.2, RFC 8878 3.1)."""

    __slots__ = ("_coding", "_empty", "_member", "_module")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._module = library("compression.zstd", "backports.zstd") if coding == "zstd" else None
        self._member = self._open()
        self._empty = True

    def _open(self) -> Any:
        if self._module is None:
            return zlib.decompressobj(31 if self._coding == "gzip" else 15)
        options = {self._module.DecompressionParameter.window_log_max: _ZSTD_MAX_WINDOW}
        return self._module.ZstdDecompressor(options=options)

    @property
    def complete(self) -> bool:
        return self._empty or bool(self._member.eof)

    def pieces(self, data: bytes, room: Room) -> Iterator[bytes]:
        self._empty = False
        while data:
            if self._member.eof:
                if self._coding == "deflate":
                    raise RefusedBodyError(_BAD_REQUEST)
                self._member = self._open()
            yield from self._member_pieces(data, room)
            data = self._member.unused_data

    def _member_pieces(self, data: bytes, room: Room) -> Iterator[bytes]:
        member = self._member
        size = room()
        out = member.decompress(data, size)
        while True:
            if out:
                yield out
            rest = member.unconsumed_tail if self._module is None else b""
            if member.eof or (not rest and len(out) < size):
                return
            size = room()
            out = member.decompress(rest, size)


class _Brotli:
    """brotli; its decoder rejects garbage behind the stream by itself.

    It gives its output by blocks: 32,752 bytes are the least it decodes at once, whatever limit it is given. So that
    many bytes beyond a body's limit are decoded and dropped, at most, before the body is refused.
    """

    __slots__ = ("_decoder", "_empty")

    def __init__(self) -> None:
        self._decoder: Any = library("brotli", "brotlicffi").Decompressor()
        self._empty = True

    @property
    def complete(self) -> bool:
        if self._empty or self._decoder.is_finished():
            return True
        # The end of the stream may show only when asked once more.
        return not self._decoder.process(b"", output_buffer_limit=1) and bool(self._decoder.is_finished())

    def pieces(self, data: bytes, room: Room) -> Iterator[bytes]:
        decoder = self._decoder
        self._empty = False
        if decoder.is_finished():
            raise RefusedBodyError(_BAD_REQUEST)
        size = min(room(), _BROTLI_BLOCK)
        out = decoder.process(data, output_buffer_limit=size)
        yield out
        # Input may be used up while output still waits: a full piece says that there may be more.
        while not decoder.is_finished() and (len(out) >= size or not decoder.can_accept_more_data()):
            size = min(room(), _BROTLI_BLOCK)
            out = decoder.process(b"", output_buffer_limit=size)
            yield out


def decodable(encodings: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``encodings`` that can be decoded in bounded memory with what is installed."""
    brotli = library("brotli", "brotlicffi")
    bounded = hasattr(getattr(brotli, "Decompressor", None), "can_accept_more_data")
    missing = {"br"} if not bounded else set[str]()
    if library("compression.zstd", "backports.zstd") is None:
        missing.add("zstd")
    return tuple(coding for coding in encodings if coding not in missing)


@lru_cache(maxsize=1)
def _codec_errors() -> tuple[type[Exception], ...]:
    """Return what the codecs raise for bytes that are no such body."""
    brotli, zstd = library("brotli", "brotlicffi"), library("compression.zstd", "backports.zstd")
    own = [module.error for module in (brotli,) if module is not None]
    own += [module.ZstdError for module in (zstd,) if module is not None]
    return (zlib.error, EOFError, ValueError, *own)


class Chain:
    """The codings of one body, undone one after the other, under limits that hold for every one of them.

    Args:
        codings: as listed by Content-Encoding; the last one is undone first.
        max_size: bytes that the body, and each intermediate stage, may have.
        max_ratio: decoded bytes per received byte, once a stage has produced 1 MiB.
    """

    __slots__ = ("_max_ratio", "_max_size", "_produced", "_received", "_stages")

    def __init__(self, codings: list[str], *, max_size: int, max_ratio: float) -> None:
        self._stages: list[_Decoder] = [
            _Brotli() if coding == "br" else _Framed(coding) for coding in reversed(codings)
        ]
        self._produced = [0] * len(codings)
        self._received = 0
        self._max_size = max_size
        self._max_ratio = max_ratio

    def decode(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """Decode one received chunk in small pieces; raise ``RefusedBodyError`` once a limit or rule is broken."""
        try:
            for offset in range(0, len(data), _SLICE):
                piece = data[offset : offset + _SLICE]
                self._received += len(piece)
                yield from self._through(0, piece)
        except _codec_errors() as error:
            raise RefusedBodyError(_TOO_LARGE if _TOO_MUCH_MEMORY in str(error) else _BAD_REQUEST) from None
        if last and not all(stage.complete for stage in self._stages):
            raise RefusedBodyError(_BAD_REQUEST)

    def _through(self, index: int, data: bytes) -> Iterator[bytes]:
        if index == len(self._stages):
            yield data
            return
        if not data:
            return

        def room() -> int:
            """One byte more than is allowed shows that the body is too large."""
            return min(_PIECE, self._max_size - self._produced[index] + 1)

        for piece in self._stages[index].pieces(data, room):
            self._produced[index] += len(piece)
            self._check(self._produced[index])
            yield from self._through(index + 1, piece)

    def _check(self, produced: int) -> None:
        if produced > self._max_size or produced > max(_RATIO_FLOOR, self._max_ratio * self._received):
            raise RefusedBodyError(_TOO_LARGE)
