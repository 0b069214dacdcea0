"""One byte string per argument value: the ground under every cache key.

Two values get the same bytes exactly if they count as equal. ``typed=True`` (used by ``{hash}``) also keeps types
apart, so that 1, ``True`` and 1.0 differ; with ``typed=False`` numbers and strings follow Python's ``==``. Nothing here
calls ``hash`` (salted per process), ``repr`` or ``str`` of foreign objects (addresses are reused, texts are ambiguous).
Each value is written as tag, length and bytes, so no two sequences of values share an encoding.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from math import isnan
from typing import Any, Final, cast
from uuid import UUID

from isp_perf._core.kinds import record_fields

__all__ = ["canonical", "digest", "moment_text", "number_text", "plain_scalar"]

# int() and str() of larger numbers cost quadratic time; 10**4000 is beyond any identifier.
_LARGEST_EXPONENT: Final = 4000
_PLAIN_INT_BITS: Final = 1024


def number_text(value: float | Decimal) -> str:
    """Return one text per number: equal numbers of any type give equal texts, unequal ones different texts.

    Raises:
        TypeError: a ``Decimal`` beyond 10**4000 in magnitude.
    """
    if isinstance(value, int):
        whole = int(value)
        return str(whole) if whole.bit_length() <= _PLAIN_INT_BITS else f"x{whole:x}"
    if value.is_nan() if isinstance(value, Decimal) else isnan(value):
        return "nan"
    if isinstance(value, float):
        return _float_text(value)
    return _decimal_text(value)


def plain_scalar(value: object) -> object:
    """Return the str, int, float, bytes or UUID that ``value`` equals, if there is one; otherwise ``value`` itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float | Decimal):
        return _plain_number(value)
    if isinstance(value, bytes):
        return bytes(value)
    return UUID(int=value.int) if isinstance(value, UUID) else value


def _plain_number(value: float | Decimal) -> object:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if value.is_infinite():
        return float(value)
    text = number_text(value)
    if text.removeprefix("-").isdigit() or text.startswith("x"):
        return int(value)
    return value if not value.is_finite() or Decimal(float(value)) != value else float(value)


def _float_text(value: float) -> str:
    if value in {float("inf"), float("-inf")}:
        return "inf" if value > 0 else "-inf"
    if value.is_integer():
        return number_text(int(value))
    text = float.__repr__(value)
    # "f": the decimal text is only the nearest one; Decimal("0.1") and 0.1 are not equal and must not meet.
    return text if Decimal(text) == Decimal(value) else text + "f"


def _decimal_text(value: Decimal) -> str:
    if value.is_infinite():
        return "inf" if value > 0 else "-inf"
    if abs(value.adjusted()) > _LARGEST_EXPONENT and value:
        raise TypeError("a Decimal beyond 10**4000 cannot be part of a cache key")
    if value == value.to_integral_value():
        return number_text(int(value))
    if Decimal(float(value)) == value:
        return _float_text(float(value))
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits))
    stripped = text.rstrip("0")
    return f"{'-' if sign else ''}{stripped}e{int(exponent) + len(text) - len(stripped)}"


def canonical(value: object, *, typed: bool) -> bytes:
    """Return the canonical bytes of ``value``.

    Args:
        value: None, bool, int, float, str, bytes, Decimal, UUID, date, datetime, timedelta, Enum, tuple, list, set,
            frozenset, dict, dataclass, ``msgspec.Struct`` or pydantic model, nested at will.
        typed: keep values of different types apart even where Python calls them equal.

    Raises:
        TypeError: a value of another type; the message names the type, never the value.
    """
    pieces: list[bytes] = []
    _Encoder(pieces, typed=typed).write(value)
    return b"".join(pieces)


def digest(data: bytes, *, key: bytes) -> str:
    """Return the 128-bit keyed BLAKE2b digest of ``data`` as 32 hexadecimal digits."""
    return blake2b(data, digest_size=16, key=key[:64]).hexdigest()


class _Encoder:
    """Writes tagged, length-prefixed pieces; one per canonical() call."""

    __slots__ = ("pieces", "typed")

    def __init__(self, pieces: list[bytes], *, typed: bool) -> None:
        self.pieces = pieces
        self.typed = typed

    def write(self, value: object) -> None:
        if value is None:
            self.put(b"z", b"")
            return
        if isinstance(value, Enum) and (self.typed or not isinstance(value, int | float | str | bytes | Decimal)):
            self.put(b"e", f"{_class_name(type(value))}.{value.name}".encode())
            return
        for types, method in _WRITERS:
            if isinstance(value, types):
                method(self, value)
                return
        self.write_record(value)

    def put(self, tag: bytes, data: bytes, subclass: type | None = None) -> None:
        """Append one piece; a subclass of an accepted type is told apart by its name when types count."""
        name = _class_name(subclass).encode() if subclass is not None else b""
        self.pieces.append(b"%s%d:%d:%s%s" % (tag, len(name), len(data), name, data))

    def subclass(self, value: object, exact: type) -> type | None:
        """Return the type of ``value`` if it is to be told apart from ``exact``."""
        return type(value) if self.typed and type(value) is not exact else None

    def write_number(self, value: Any) -> None:
        data = number_text(value).encode()
        if not self.typed:
            self.put(b"n", data)
        else:
            exact = next(kind for kind in (bool, int, float, Decimal) if isinstance(value, kind))
            self.put(_NUMBER_TAGS[exact], data, self.subclass(value, exact))

    def write_text(self, value: Any) -> None:
        self.put(b"s", str.encode(value, "utf-8", "surrogatepass"), self.subclass(value, str))

    def write_bytes(self, value: Any) -> None:
        self.put(b"y", bytes(value), self.subclass(value, bytes))

    def write_uuid(self, value: Any) -> None:
        self.put(b"u", value.bytes, self.subclass(value, UUID))

    def write_moment(self, value: Any) -> None:
        self.put(b"t", moment_text(value).encode(), self.subclass(value, datetime))

    def write_day(self, value: Any) -> None:
        self.put(b"c", date.isoformat(value).encode(), self.subclass(value, date))

    def write_span(self, value: Any) -> None:
        self.put(b"p", b"%d,%d,%d" % (value.days, value.seconds, value.microseconds), self.subclass(value, timedelta))

    def write_tuple(self, value: Any) -> None:
        self.write_parts(b"(", value, tuple)

    def write_list(self, value: Any) -> None:
        self.write_parts(b"[", value, list)

    def write_parts(self, tag: bytes, value: Any, exact: type) -> None:
        self.put(tag, b"%d" % len(value), self.subclass(value, exact))
        for part in value:
            self.write(part)

    def write_set(self, value: Any) -> None:
        parts = cast("Iterable[object]", value)
        exact: type = frozenset if isinstance(parts, frozenset) else set
        tag = b"S" if self.typed and exact is frozenset else b"{"
        members = sorted(canonical(part, typed=self.typed) for part in parts)
        self.put(tag, b"".join(members), self.subclass(parts, exact))

    def write_dict(self, value: Any) -> None:
        self.put(b"d", self.pairs(value.items()), self.subclass(value, dict))

    def pairs(self, items: Iterable[tuple[object, object]]) -> bytes:
        both = ((canonical(key, typed=self.typed), canonical(item, typed=self.typed)) for key, item in items)
        return b"".join(key + item for key, item in sorted(both))

    def write_record(self, value: object) -> None:
        fields = record_fields(value)
        if fields is None:
            raise TypeError(f"{type(value).__qualname__} objects cannot be part of a cache key")
        self.put(b"r", _class_name(type(value)).encode())
        self.put(b"f", self.pairs((name, getattr(value, name)) for name in fields))


def moment_text(value: datetime) -> str:
    """Return the ISO text of a datetime; aware ones in UTC, so that equal instants have equal texts."""
    if value.utcoffset() is not None:
        value = value.astimezone(UTC)
    return datetime.isoformat(value.replace(fold=0))


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_NUMBER_TAGS: Final[dict[type, bytes]] = {bool: b"b", int: b"i", float: b"f", Decimal: b"m"}
_WRITERS: Final[tuple[tuple[Any, Callable[[_Encoder, Any], None]], ...]] = (
    (str, _Encoder.write_text),
    ((int, float, Decimal), _Encoder.write_number),
    (bytes, _Encoder.write_bytes),
    (UUID, _Encoder.write_uuid),
    (datetime, _Encoder.write_moment),
    (date, _Encoder.write_day),
    (timedelta, _Encoder.write_span),
    (tuple, _Encoder.write_tuple),
    (list, _Encoder.write_list),
    ((set, frozenset), _Encoder.write_set),
    (dict, _Encoder.write_dict),
)
