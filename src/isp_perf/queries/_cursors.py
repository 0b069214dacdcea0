"""Cursors of keyset pages: where a page ended, as an opaque, signed text."""

import base64
import datetime as dt
import enum
import hashlib
import hmac
import json
import os
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from isp_perf.errors import ConfigurationError

__all__ = ["Cursor", "read_cursor", "secret_bytes", "written"]

_VERSION = 1
_MAC_BYTES = 16
_VARIABLE = "ISP_PERF_SECRET"
_OF_THIS_PROCESS = secrets.token_bytes(32)

_WRITE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    dt.datetime: ("t", dt.datetime.isoformat),
    dt.date: ("d", dt.date.isoformat),
    dt.time: ("h", dt.time.isoformat),
    Decimal: ("n", str),
    uuid.UUID: ("u", str),
    bytes: ("b", bytes.hex),
}
_READ: dict[str, Callable[[str], Any]] = {
    "t": dt.datetime.fromisoformat,
    "d": dt.date.fromisoformat,
    "h": dt.time.fromisoformat,
    "n": Decimal,
    "u": uuid.UUID,
    "b": bytes.fromhex,
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two rows.

    Args:
        keys: the values that the row beside it is ordered by.
        backwards: the page lies before it, not after it.
        inclusive: the row itself belongs to the page.
    """

    keys: tuple[Any, ...]
    backwards: bool = False
    inclusive: bool = False


def secret_bytes(secret: str | bytes | None) -> bytes:
    """Return the secret to sign with: the argument, else the environment's, else one of this process.

    Raises:
        ConfigurationError: it is empty, or no text.
    """
    chosen: Any = os.environ.get(_VARIABLE) or _OF_THIS_PROCESS if secret is None else secret
    found = chosen.encode() if isinstance(chosen, str) else chosen
    if isinstance(found, bytes) and found:
        return found
    raise ConfigurationError("secret", "empty", "a secret is text or bytes", f"leave it out, or set {_VARIABLE}")


def written(cursor: Cursor, secret: bytes, order: str) -> str:
    """Return a cursor as text that is valid for one order of rows only.

    Raises:
        ConfigurationError: a value has a type that cursors do not carry.
    """
    flags = cursor.backwards + 2 * cursor.inclusive
    payload = json.dumps([_VERSION, flags, list(map(_value, cursor.keys))], separators=(",", ":")).encode()
    return _text(payload + _mac(payload, secret, order))


def read_cursor(text: str, secret: bytes, order: str) -> Cursor:
    """Return what ``written`` wrote.

    Raises:
        ConfigurationError: the text was changed, or is a cursor of another query, of an older model or of another
            secret. It never says which.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, TypeError):
        data = b""
    payload, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not payload or _text(data) != text or not hmac.compare_digest(mac, _mac(payload, secret, order)):
        raise ConfigurationError(
            "after",
            "cursor",
            "a cursor is what next or previous of a page of the same query was, unchanged",
            "start from the first page",
        )
    _, flags, keys = json.loads(payload)
    return Cursor(tuple(map(_read, keys)), backwards=bool(flags & 1), inclusive=bool(flags & 2))


def _read(key: Any) -> Any:
    if not isinstance(key, list):
        return key
    kind, value = cast("list[str]", key)
    return _READ[kind](value)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _mac(payload: bytes, secret: bytes, order: str) -> bytes:
    return hmac.digest(secret, hashlib.sha256(order.encode()).digest() + payload, "sha256")[:_MAC_BYTES]


def _value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | str | float):
        return value
    found = _WRITE.get(value.__class__)
    if found is None:
        rule = "a cursor carries numbers, texts, times, UUIDs and bytes"
        raise ConfigurationError("statement", type(value).__name__, rule, "order by columns of such types")
    return [found[0], found[1](value)]
