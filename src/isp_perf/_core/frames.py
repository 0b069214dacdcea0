"""The frame around a value in the remote level: format, shape of the type, moment of expiry, payload.

Bytes that this version, shape and time cannot vouch for are a miss: ``unframe`` answers ``None`` and never raises.
"""

from struct import Struct
from typing import Final, NamedTuple

__all__ = ["Framed", "frame", "unframe"]

_MAGIC: Final = b"ip1"
_HEADER: Final = Struct(">3s8sd")


class Framed(NamedTuple):
    """What a frame holds.

    Attributes:
        expires: wall clock seconds at which the value ends.
        payload: the encoded value.
    """

    expires: float
    payload: bytes


def frame(payload: bytes, *, shape: bytes, expires: float) -> bytes:
    """Return ``payload`` with its header.

    Args:
        payload: the encoded value.
        shape: 8 bytes that change when the type of the value changes.
        expires: wall clock seconds at which the value ends.
    """
    return _HEADER.pack(_MAGIC, shape, expires) + payload


def unframe(data: bytes, *, shape: bytes) -> Framed | None:
    """Return what ``data`` holds, or ``None`` if it is damaged, foreign, or of another shape."""
    if len(data) < _HEADER.size:
        return None
    magic, found, expires = _HEADER.unpack_from(data)
    if magic != _MAGIC or found != shape:
        return None
    return Framed(expires, data[_HEADER.size :])
