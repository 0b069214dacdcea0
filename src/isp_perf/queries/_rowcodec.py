"""Rows of cached queries: immutable, and as bytes for the remote level."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast
from uuid import UUID

from isp_perf.errors import CodecError

__all__ = ["Row", "RowCodec", "frozen", "rows_from"]

_TYPE: Final = "$"
_VALUE: Final = "v"
_PLAIN: Final = frozenset({type(None), bool, int, float, str})
_OUT: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    Decimal: ("decimal", str),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    UUID: ("uuid", str),
    tuple: ("tuple", lambda value: [_outgoing(each) for each in value]),
    frozenset: ("set", lambda value: [_outgoing(each) for each in value]),
    MappingProxyType: ("map", lambda value: [[_outgoing(key), _outgoing(each)] for key, each in value.items()]),
}
_IN: Final[dict[str, Callable[[Any], Any]]] = {
    "bytes": base64.b64decode,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "uuid": UUID,
    "tuple": lambda parts: tuple(_incoming(each) for each in parts),
    "set": lambda parts: frozenset(_incoming(each) for each in parts),
    "map": lambda parts: MappingProxyType({_incoming(key): _incoming(each) for key, each in parts}),
}


def frozen(value: Any) -> Any:
    """Return a value that nobody can change: tuples for lists, read-only mappings for dicts."""
    if value.__class__ in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(each) for key, each in dict(cast("Any", value)).items()})
    if isinstance(value, bytearray | memoryview):
        return bytes(cast("bytes", value))
    if isinstance(value, set | frozenset):
        return frozenset(cast("set[Any]", value))
    if isinstance(value, list | tuple):
        return tuple(map(frozen, cast("list[Any]", value)))
    return value


class Row(tuple[Any, ...]):
    """One row: a tuple whose columns are attributes too, as far as their names allow.

    Attributes:
        fields: the names of the columns.
    """

    __slots__ = ()

    fields: ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the columns by name."""
        return dict(zip(self.fields, self, strict=True))

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in zip(self.fields, self, strict=True))})"


@lru_cache(maxsize=1000)
def _row_class(names: tuple[str, ...]) -> type[Row]:
    body: dict[str, Any] = {"__slots__": (), "fields": names}
    for index, name in enumerate(names):
        if not hasattr(Row, name):
            body.setdefault(name, property(itemgetter(index)))
    return type("Row", (Row,), body)


def rows_from(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> tuple[Row, ...]:
    """Return rows as immutable tuples with names."""
    make = _row_class(tuple(names))
    return tuple(make(map(frozen, row)) for row in rows)


def _outgoing(value: Any) -> Any:
    if value.__class__ in _PLAIN:
        return value
    found = _OUT.get(value.__class__)
    if found is None:
        name = type(value).__name__
        raise CodecError(f"a column of type {name} cannot be kept in a remote level; cast it to text or a number")
    return {_TYPE: found[0], _VALUE: found[1](value)}


def _incoming(value: Any) -> Any:
    return _IN[value[_TYPE]](value[_VALUE]) if value.__class__ is dict else value


class RowCodec:
    """Turns the rows of a cached query into bytes and back, types included.

    Attributes:
        shape: changes with this format.
    """

    __slots__ = ()

    shape: bytes = b"isprows1"

    def encode(self, value: Any, /) -> bytes:
        """Return rows as bytes.

        Raises:
            CodecError: a column holds a type that has no text of its own, such as an Enum.
        """
        names = list(value[0].fields) if value else []
        rows = [[_outgoing(each) for each in row] for row in value]
        return json.dumps([names, rows], separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def decode(self, data: bytes, /) -> Any:
        """Return the rows in ``data``."""
        names, rows = json.loads(data.decode("utf-8", "surrogatepass"))
        make = _row_class(tuple(names))
        return tuple(make(map(_incoming, row)) for row in rows)
