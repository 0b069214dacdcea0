"""The frame around remote values."""

from isp_perf._core.frames import frame, unframe


def test_round_trip():
    """What was framed comes back with its end."""
    framed = unframe(frame(b"data", shape=b"12345678", expires=5.5, tags={"a": b"87654321"}), shape=b"12345678")
    assert framed is not None
    assert (framed.payload, framed.expires) == (b"data", 5.5)


def test_anything_else_is_a_miss():
    """Short, foreign and differently shaped bytes are answered with None."""
    data = frame(b"data", shape=b"12345678", expires=5.5, tags={"a": b"87654321"})
    assert unframe(data, shape=b"12345679") is None
    assert unframe(data[:10], shape=b"12345678") is None
    assert unframe(b"x" + data[1:], shape=b"12345678") is None
    assert unframe(b"", shape=b"12345678") is None
