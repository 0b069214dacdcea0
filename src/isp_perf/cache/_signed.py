"""Pickled values, for types that no other codec carries: only with a signature that is checked before anything else."""

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from io import BytesIO
from pickle import HIGHEST_PROTOCOL, Unpickler, dumps
from typing import Any, Final

from isp_perf.cache._options import check_secret
from isp_perf.cache._packing import expand, squeeze
from isp_perf.errors import CodecError

__all__ = ["PickleCodec"]

_MAC_BYTES: Final = 32
_LONGEST_KEY: Final = 64
_ANY_ERROR: Final = Exception  # __reduce__ and __setstate__ are user code


class _Reader(Unpickler):
    """Reads what this program signed."""


class PickleCodec:
    """Values of any picklable type, signed: ``cached(..., codec=PickleCodec(secret=...))``.

    Reading a pickle runs code that the bytes choose, so nothing is unpickled whose 256-bit keyed BLAKE2b does not
    match; bytes without a valid signature are a miss. Who has the secret and can write to Redis can run code in this
    process: prefer a return annotation and the default codec.

    Args:
        secret: a key of 16 or more bytes, or several: the first signs, all verify, so that keys can be changed without
            losing values.

    Attributes:
        shape: 8 bytes that tell its values from those of other codecs.

    Raises:
        ConfigurationError: no secret, or one below 16 bytes.
    """

    __slots__ = ("_keys", "shape")

    sealed = True
    shape: bytes

    def __init__(self, *, secret: bytes | Sequence[bytes]) -> None:
        check_secret(secret)
        secrets = [secret] if isinstance(secret, bytes) else list(secret)
        self._keys = [key if len(key) <= _LONGEST_KEY else blake2b(key).digest() for key in secrets]
        self.shape = b"pickle.1"

    def encode(self, value: Any) -> bytes:
        """Return the signed pickle of ``value``, compressed if it is large.

        Raises:
            CodecError: the value cannot be pickled; the message names the type only.
        """
        try:
            data = squeeze(dumps(value, HIGHEST_PROTOCOL))
        except _ANY_ERROR as error:
            raise CodecError(f"a {type(value).__qualname__} cannot be pickled") from error
        return _mac(self._keys[0], data) + data

    def decode(self, data: bytes) -> Any:
        """Return the value in ``data``.

        Raises:
            CodecError: the signature matches none of the secrets, or what was signed cannot be read any more.
        """
        given, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not any(compare_digest(given, _mac(key, body)) for key in self._keys):
            raise CodecError("a pickled value without a valid signature")
        try:
            return _Reader(BytesIO(expand(body))).load()
        except _ANY_ERROR as error:
            raise CodecError("a pickled value cannot be read") from error


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=_MAC_BYTES, key=key, person=b"isp_perf.pickle").digest()
