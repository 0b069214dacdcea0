"""The default codec: msgspec MessagePack, typed by the return annotation. The only module that imports msgspec."""

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, cast, get_type_hints

from isp_perf.errors import CodecError

__all__ = ["UNTYPED_SHAPE", "MsgpackCodec", "codec_for"]

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
UNTYPED_SHAPE: Final = b"untyped."


def codec_for(function: Callable[..., Any]) -> "MsgpackCodec":
    """Return the codec for what ``function`` returns; without a usable annotation only plain types pass."""
    try:
        annotation = get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        annotation = Any
    return MsgpackCodec(annotation)


class MsgpackCodec:
    """Values of one declared type as MessagePack.

    Args:
        annotation: the type that ``decode`` builds: dataclass, ``msgspec.Struct``, TypedDict, NamedTuple, datetime,
            UUID, Decimal, Enum, set and what msgspec supports besides. ``Any``: plain types only (None, bool, int,
            float, str, bytes, lists, dicts with text or whole-number keys, aware datetimes).

    Attributes:
        shape: 8 bytes that change with the declared type, fields included.
    """

    __slots__ = ("_decoder", "_encoder", "_typed", "shape")

    shape: bytes

    def __init__(self, annotation: Any = Any) -> None:
        import msgspec

        self._encoder = msgspec.msgpack.Encoder()
        self._typed = annotation is not Any
        self._decoder: Any
        try:
            self._decoder = msgspec.msgpack.Decoder(annotation)
            self.shape = _shape_of(annotation) if self._typed else UNTYPED_SHAPE
        except (TypeError, ValueError):
            # A type msgspec cannot rebuild: values of it are refused, plain ones pass.
            self._decoder = msgspec.msgpack.Decoder()
            self._typed = False
            self.shape = UNTYPED_SHAPE

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as MessagePack.

        Raises:
            CodecError: the value would not come back as it is; the message names the type only.
        """
        if not self._typed:
            _require_plain(value)
        try:
            data: bytes = self._encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(f"a {type(value).__qualname__} cannot be encoded for the remote level") from error
        return data

    def decode(self, data: bytes) -> Any:
        """Return the value in ``data``; raises what msgspec raises for foreign bytes."""
        return self._decoder.decode(data)


def _shape_of(annotation: Any) -> bytes:
    """Return a fingerprint of the declared type: names and types of all fields, nested."""
    import msgspec

    try:
        description = msgspec.json.encode(msgspec.json.schema(annotation), order="deterministic")
    except (TypeError, ValueError):  # fine for MessagePack, without a JSON schema
        description = str(annotation).encode()
    return blake2b(description, digest_size=8).digest()


def _require_plain(value: object) -> None:
    ahead = [value]
    while ahead:
        part = ahead.pop()
        kind = type(part)
        if kind is list:
            ahead += cast("list[object]", part)
        elif kind is dict:
            items = cast("dict[object, object]", part)
            ahead += items.values()
            ahead += [_plain_key(key) for key in items]
        elif kind not in _PLAIN and not (isinstance(part, datetime) and part.tzinfo is not None):
            raise CodecError(
                f"a {kind.__qualname__} would come back as something else; annotate what the function returns"
            )


def _plain_key(key: object) -> object:
    if type(key) not in {str, int}:
        raise CodecError(f"a dict key of type {type(key).__qualname__} would not come back; use text or whole numbers")
    return key
