"""Which media types are compressible."""

import pytest

from isp_perf._core.media import BODY, EVENTS, LINES, OPAQUE, MediaTypes

TYPES = MediaTypes()


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON; charset=utf-8",
        b"application/problem+json",
        b"application/vnd.api+json",
        b"text/html; charset=utf-8",
        b"text/csv",
        b"text/plain ;x=y",
        b"application/xhtml+xml",
        b"image/svg+xml",
        b"application/javascript",
        b"application/wasm",
        b"application/manifest+json",
    ],
)
def test_text_and_structured_types_are_compressible(content_type):
    """Text, JSON, XML and their kin are compressible, whatever their case and parameters."""
    assert TYPES.classify(content_type) == BODY


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"image/png",
        b"image/jpeg",
        b"audio/mpeg",
        b"video/mp4",
        b"application/zip",
        b"application/pdf",
        b"application/gzip",
        b"font/woff2",
        b"application/octet-stream",
        b"application/grpc",
        b"application/grpc+json",
        b"application/grpc-web+proto",
        b"multipart/byteranges; boundary=x",
        b"multipart/x-mixed-replace",
        b"xtext/plain",
        b"json",
        b"\xff\xfe",
    ],
)
def test_packed_and_framed_types_are_left_alone(content_type):
    """What is packed already, or is framed by other means, is not compressible."""
    assert TYPES.classify(content_type) == OPAQUE


def test_streams_of_records_have_kinds_of_their_own():
    """Event streams and line-delimited JSON are told apart from ordinary bodies."""
    assert TYPES.classify(b"text/event-stream; charset=utf-8") == EVENTS
    assert TYPES.classify(b"application/x-ndjson") == LINES


def test_patterns_can_be_chosen():
    """Exact names, whole types and suffixes are accepted as patterns."""
    types = MediaTypes(("image/*", "application/Thing", "*+cbor"))
    assert [types.classify(t) for t in (b"image/png", b"application/thing", b"a/b+cbor", b"text/html")] == [
        BODY
    ] * 3 + [OPAQUE]
