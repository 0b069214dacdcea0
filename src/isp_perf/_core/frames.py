"""The frame around a value in the remote level: format, shape of the type, moment of expiry, payload.

Bytes that this version, shape and time cannot vouch for are a miss: ``unframe`` answers ``None`` and never raises.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["Framed", "frame", "tags_in", "unframe"]

_MAGIC: Final = b"ip1"
_HEADER: Final = Struct(">3s8sdH")
_TAG: Final = Struct(">8sH")


class Framed(NamedTuple):
    """What a frame holds.

    Attributes:
        expires: wall clock seconds at which the value ends.
        payload: the encoded value.
        tags: tag -> version of the tag before the value was loaded; the value is true while they are the same.
    """

    expires: float
    payload: bytes
    tags: dict[str, bytes]


def frame(payload: bytes, *, shape: bytes, expires: float, tags: Mapping[str, bytes]) -> bytes:
    """Return ``payload`` with its header.

    Args:
        payload: the encoded value.
        shape: 8 bytes that change when the type of the value changes.
        expires: wall clock seconds at which the value ends.
        tags: tag -> version (8 bytes).
    """
    names = [(name.encode("utf-8", "surrogatepass"), version) for name, version in tags.items()]
    marks = b"".join(_TAG.pack(version, len(name)) + name for name, version in names)
    return _HEADER.pack(_MAGIC, shape, expires, len(names)) + marks + payload


def unframe(data: bytes, *, shape: bytes) -> Framed | None:
    """Return what ``data`` holds, or ``None`` if it is damaged, foreign, or of another shape."""
    if len(data) < _HEADER.size:
        return None
    magic, found, expires, _ = _HEADER.unpack_from(data)
    marks = _read_tags(data)
    if magic != _MAGIC or found != shape or marks is None:
        return None
    tags, position = marks
    return Framed(expires, data[position:], tags)


def tags_in(data: bytes) -> tuple[str, ...]:
    """Return the tags of a frame of any shape; none for bytes that are no frame."""
    marks = _read_tags(data) if data[: len(_MAGIC)] == _MAGIC else None
    return () if marks is None else tuple(marks[0])


def _read_tags(data: bytes) -> tuple[dict[str, bytes], int] | None:
    """Return the tags with their versions, and where the payload begins."""
    if len(data) < _HEADER.size:
        return None
    tags: dict[str, bytes] = {}
    position = _HEADER.size
    for _ in range(_HEADER.unpack_from(data)[3]):
        if len(data) < position + _TAG.size:
            return None
        version, length = _TAG.unpack_from(data, position)
        position += _TAG.size
        tags[data[position : position + length].decode("utf-8", "replace")] = version
        position += length
    return tags, position
