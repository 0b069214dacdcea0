"""The default codec: msgspec MessagePack, typed by the return annotation. The only module that imports msgspec."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from inspect import signature
from typing import Any, Final, cast, get_type_hints

from isp_perf._core.canonical import plain_scalar
from isp_perf.cache._packing import expand, squeeze
from isp_perf.cache._roundtrip import came_back
from isp_perf.errors import CodecError
from isp_perf.typing import Codec

__all__ = ["UNTYPED_SHAPE", "MsgpackCodec", "Packed", "codec_for", "packed", "plain_codec"]

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
UNTYPED_SHAPE: Final = b"untyped."
_SCALARS: Final = (str, int, float, bytes)
_UNFIT: Final = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)


def codec_for(function: Callable[..., Any], codec: Codec | None = None) -> Codec:
    """Return the codec for what ``function`` returns, ``codec`` if it is given; large payloads are compressed.

    Without a usable annotation only plain types pass.
    """
    if codec is None:
        try:
            annotation = get_type_hints(function).get("return", Any)
        except (NameError, TypeError, AttributeError):
            annotation = Any
        codec = MsgpackCodec(annotation)
    return packed(codec)


@lru_cache(maxsize=1)
def plain_codec() -> Codec:
    """Return the codec for plain types."""
    return Packed(MsgpackCodec())


def packed(codec: Codec) -> Codec:
    """Return ``codec`` with large payloads compressed, unless it seals what it writes."""
    return codec if getattr(codec, "sealed", False) else Packed(codec)


class Packed:
    """A codec whose large payloads are compressed.

    Args:
        codec: what turns values into bytes.

    Attributes:
        shape: that of ``codec``.
    """

    __slots__ = ("_codec", "shape")

    shape: bytes

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.shape = getattr(codec, "shape", UNTYPED_SHAPE)

    def encode(self, value: Any, /) -> bytes:
        """Return ``value`` as bytes."""
        return squeeze(self._codec.encode(value))

    def decode(self, data: bytes, /) -> Any:
        """Return the value in ``data``."""
        return self._codec.decode(expand(data))


class MsgpackCodec:
    """Values of one declared type as MessagePack.

    What would come back as something else is refused: always, where the type leaves it open (``Any``, ``object``, a
    bare ``dict``); by the first value otherwise.

    Args:
        annotation: the type that ``decode`` builds: dataclass, ``msgspec.Struct``, TypedDict, NamedTuple, pydantic
            model, datetime, UUID, Decimal, Enum, set and what msgspec supports besides. ``Any``: plain types only
            (None, bool, int, float, str, bytes, lists, dicts with text or whole-number keys, aware datetimes).

    Attributes:
        shape: 8 bytes that change with the declared type, fields included.
    """

    __slots__ = ("_decoder", "_encoder", "_loose", "_typed", "_unproven", "shape")

    shape: bytes

    def __init__(self, annotation: Any = Any) -> None:
        import msgspec

        self._encoder = msgspec.msgpack.Encoder(enc_hook=_outgoing)
        self._typed = annotation is not Any
        self._unproven = True
        self._loose = False
        self._decoder: Any
        try:
            self._decoder = msgspec.msgpack.Decoder(annotation, dec_hook=_incoming)
            self.shape = _shape_of(annotation) if self._typed else UNTYPED_SHAPE
            self._loose = self._typed and _is_loose(msgspec.inspect.type_info(annotation))
        except (TypeError, ValueError):
            # A type msgspec cannot rebuild: values of it are refused, plain ones pass.
            self._decoder = msgspec.msgpack.Decoder()
            self._typed = False
            self.shape = UNTYPED_SHAPE

    def encode(self, value: Any, /) -> bytes:
        """Return ``value`` as MessagePack.

        Raises:
            CodecError: the value would not come back as it is; the message names the type only.
        """
        if not self._typed:
            _require_plain(value)
        try:
            data: bytes = self._encoder.encode(value)
        except _UNFIT as error:
            raise CodecError(f"a {type(value).__qualname__} cannot be encoded for the remote level") from error
        if self._typed and (self._loose or self._unproven):
            self._prove(value, data)
        return data

    def decode(self, data: bytes, /) -> Any:
        """Return the value in ``data``; raises what msgspec raises for foreign bytes."""
        return self._decoder.decode(data)

    def _prove(self, value: Any, data: bytes) -> None:
        try:
            same = came_back(value, self._decoder.decode(data))
        except _UNFIT:
            same = False
        if not same:
            raise CodecError(
                f"a {type(value).__qualname__} would come back as something else than was returned; "
                "let the annotation say what the function returns"
            )
        self._unproven = False


def _outgoing(value: Any) -> Any:
    """Return the fields of a pydantic model, or the scalar that one of a subclass equals; refuse all else."""
    if isinstance(value, _SCALARS):
        return plain_scalar(value)
    dump: Any = getattr(value, "model_dump", None)
    if dump is None:
        raise NotImplementedError
    return dump(round_trip=True)


def _incoming(kind: type, data: Any) -> Any:
    """Rebuild a pydantic model from its fields."""
    validate: Any = getattr(kind, "model_validate", None)
    if validate is None:
        raise NotImplementedError
    by_name = {"by_name": True, "by_alias": False} if "by_name" in signature(validate).parameters else {}
    return validate(data, strict=False, **by_name)


def _shape_of(annotation: Any) -> bytes:
    """Return a fingerprint of the declared type: names and types of all fields, nested."""
    import msgspec

    try:
        schema = msgspec.json.schema(annotation, schema_hook=_model_schema)
        description = msgspec.json.encode(schema, order="deterministic")
    except (TypeError, ValueError):  # fine for MessagePack, without a JSON schema
        description = str(annotation).encode()
    return blake2b(description, digest_size=8).digest()


def _model_schema(kind: type) -> dict[str, Any]:
    describe: Any = getattr(kind, "model_json_schema", None)
    if describe is None:
        raise NotImplementedError
    return cast("dict[str, Any]", describe())


def _is_loose(info: Any) -> bool:
    """Return whether a declared type leaves open what stands somewhere in it."""
    import msgspec

    ahead, seen = [info], set[int]()
    kept: list[Any] = []  # so that no number is used twice
    while ahead:
        part = ahead.pop()
        if isinstance(part, msgspec.inspect.AnyType):
            return True
        if part.__class__ in {tuple, list}:
            ahead += part
        elif isinstance(part, msgspec.Struct) and id(part) not in seen:
            seen.add(id(part))
            kept.append(part)
            ahead += [getattr(part, name) for name in part.__struct_fields__]
    return False


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
