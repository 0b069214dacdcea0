"""The sealed envelope around a value in the remote level: who wrote it, for which key, and what it depends on.

Layout, big-endian; the MAC is keyed BLAKE2b (RFC 7693) of 16 bytes over namespace, wire key, header, versions and
payload, each with its length in front, so that no byte can move from one part to another:

    magic 2 | format 1 | flags 1 | key id 2 | shape 8 | epoch 8 | created ms 8 | fresh ms 4 | load ms 4 | tags 2
    per tag: version 8 | length 2 | name
    MAC 16 | payload

Everything is checked before anything is parsed. No byte of an envelope chooses an algorithm: it follows from the format
number, and the key is one of those that the reader was given. Opening never raises.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["Contents", "Rejection", "Sealer", "outdated", "tags_in"]

_MAGIC: Final = b"\xe5i"
_FORMAT: Final = 2
_HEADER: Final = Struct(">2sBB2s8s8sQIIH")
_TAG: Final = Struct(">8sH")
_LENGTH: Final = Struct(">Q")
_NO_TAGS: Final = bytes(2)
_MAC_BYTES: Final = 16
_KEY_BYTES: Final = 32
_LONGEST_MS: Final = 0xFFFFFFFF


class Rejection(Enum):
    """Why bytes are not believed; the value is a metric label."""

    FOREIGN = "foreign"
    """No envelope at all, or one that is cut short."""
    FORGED = "forged"
    """Damaged, moved from another key or namespace, or written without the secret."""
    SHAPE = "shape"
    """A value of another type."""
    OUTDATED = "outdated"
    """The namespace was cleared, or one of its tags invalidated, since it was loaded."""
    UNKNOWN_KEY = "unknown_key"
    """Sealed with a secret that is not known here: a deployment in progress, so it is left alone."""
    NEWER_FORMAT = "newer_format"
    """Written by a later version of this package, and left alone as well."""

    @property
    def skew(self) -> bool:
        """Whether another deployment that may be alive wrote it, so that it must not be replaced."""
        return self in {Rejection.UNKNOWN_KEY, Rejection.NEWER_FORMAT}


class Contents(NamedTuple):
    """What an envelope holds.

    Attributes:
        payload: the encoded value.
        epoch: version of the namespace before the value was loaded.
        tags: tag -> its version before the value was loaded.
        created: wall clock seconds of the writer; for people only, no decision depends on it.
        fresh: seconds of freshness that the writer gave it.
        load: seconds that its load took.
    """

    payload: bytes
    epoch: bytes
    tags: dict[str, bytes]
    created: float
    fresh: float
    load: float


class Sealer:
    """Seals and opens envelopes of one namespace.

    Args:
        namespace: what the envelopes belong to.
        secrets: the first seals, each of them opens. None: keyed by the namespace, which finds damage, misplacement
            and foreign bytes, but no forgery.
    """

    __slots__ = ("_macs", "_namespace", "_seal_id", "authenticated")

    authenticated: bool

    def __init__(self, namespace: str, secrets: Sequence[bytes] = ()) -> None:
        self._namespace = namespace.encode("utf-8", "surrogatepass")
        self.authenticated = bool(secrets)
        keys = [blake2b(secret, digest_size=_KEY_BYTES, person=b"isp_perf seal").digest() for secret in secrets]
        if not keys:
            keys = [blake2b(self._namespace, digest_size=_KEY_BYTES, person=b"isp_perf open").digest()]
        self._macs = {_id_of(key): self._begun(key) for key in reversed(keys)}
        self._seal_id = _id_of(keys[0])

    def seal(self, wire: str, contents: Contents, *, shape: bytes) -> bytes:
        """Return the envelope of ``contents`` for the key ``wire``; ``shape`` is the 8 byte fingerprint of the type."""
        names = [(name.encode("utf-8", "surrogatepass"), version) for name, version in contents.tags.items()]
        header = _HEADER.pack(
            _MAGIC,
            _FORMAT,
            0,
            self._seal_id,
            shape,
            contents.epoch,
            max(0, round(contents.created * 1000)),
            _milliseconds(contents.fresh),
            _milliseconds(contents.load),
            len(names),
        )
        head = header + b"".join(_TAG.pack(version, len(name)) + name for name, version in names)
        return head + _mac(self._macs[self._seal_id], wire, head=head, payload=contents.payload) + contents.payload

    def open(self, wire: str, data: bytes, *, shape: bytes) -> Contents | Rejection:
        """Return what ``data`` under the key ``wire`` holds, or why it is not believed."""
        head = _head_of(data)
        if head is None:
            newer = data[:2] == _MAGIC and len(data) > _HEADER.size and data[2] > _FORMAT
            return Rejection.NEWER_FORMAT if newer else Rejection.FOREIGN
        begun = self._macs.get(data[4:6])
        if begun is None:
            return Rejection.UNKNOWN_KEY
        start = len(head) + _MAC_BYTES
        payload = data[start:]
        if not compare_digest(data[len(head) : start], _mac(begun, wire, head=head, payload=payload)):
            return Rejection.FORGED
        *_, found, epoch, created, fresh, load, _count = _HEADER.unpack_from(data)
        if found != shape:
            return Rejection.SHAPE
        return Contents(payload, epoch, _tags(head), created / 1000, fresh / 1000, load / 1000)

    def _begun(self, key: bytes) -> blake2b:
        """Return the MAC of ``key`` up to the namespace, which is the same for every value: half of its price."""
        mac = blake2b(digest_size=_MAC_BYTES, key=key)
        mac.update(_LENGTH.pack(len(self._namespace)))
        mac.update(self._namespace)
        return mac


def _mac(begun: blake2b, wire: str, *, head: bytes, payload: bytes) -> bytes:
    mac, name, length = begun.copy(), wire.encode("utf-8", "surrogatepass"), _LENGTH.pack
    mac.update(b"".join((length(len(name)), name, length(len(head)), head, length(len(payload)))))
    mac.update(payload)
    return mac.digest()


def tags_in(data: bytes) -> tuple[str, ...]:
    """Return the tags that an envelope names, before it is believed; none for bytes that are no envelope."""
    head = _head_of(data)
    return () if head is None else tuple(_tags(head))


def _id_of(key: bytes) -> bytes:
    return blake2b(key, digest_size=2, person=b"isp_perf id").digest()


def _milliseconds(seconds: float) -> int:
    return min(_LONGEST_MS, max(0, round(seconds * 1000)))


def _head_of(data: bytes) -> bytes | None:
    """Return header and versions as they stand; ``None`` if the bytes are not of this format, or are cut short."""
    if len(data) < _HEADER.size + _MAC_BYTES or data[:2] != _MAGIC or data[2] != _FORMAT:
        return None
    end = _HEADER.size
    if data[end - 2 : end] == _NO_TAGS:
        return data[:end]
    for _ in range(int.from_bytes(data[end - 2 : end], "big")):
        if len(data) < end + _TAG.size:
            return None
        end += _TAG.size + _TAG.unpack_from(data, end)[1]
    return data[:end] if len(data) >= end + _MAC_BYTES else None


def _tags(head: bytes) -> dict[str, bytes]:
    tags: dict[str, bytes] = {}
    position = _HEADER.size
    while position < len(head):
        version, length = _TAG.unpack_from(head, position)
        position += _TAG.size
        tags[_text(head[position : position + length])] = version
        position += length
    return tags


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # read before the MAC was checked: any text will do
        return name.decode("utf-8", "replace")


def outdated(contents: Contents, epoch: bytes, versions: Mapping[str, bytes]) -> bool:
    """Return whether the namespace or a tag has another version now than before the value was loaded."""
    return contents.epoch != epoch or any(versions.get(tag) != version for tag, version in contents.tags.items())
