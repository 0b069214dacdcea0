"""The text that stands for an argument in a cache key; see ``keys`` for its grammar."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from isp_perf._core.canonical import canonical, digest, moment_text, number_text
from isp_perf._core.keys import RESERVED

__all__ = ["field_text"]

_NUMBERS: Final = (int, float, Decimal)
_READS_LIKE_ANOTHER: Final = re.compile(r"-?\d+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_READABLE: Final = frozenset({UUID, date, datetime})
_SURROGATES: Final = range(0xD800, 0xE000)


def field_text(value: object, *, bare: type | None, typed: bool, secret: bytes, escaped: str = "") -> str:
    """Return the text that stands for ``value`` in a key.

    Args:
        value: the argument.
        bare: the annotated type, whose values are written without a tag; ``None``: not annotated.
        typed: keep types apart that Python calls equal.
        secret: key of the digests (from the namespace).
        escaped: further characters to escape.

    Raises:
        TypeError: a value of a type that cannot be part of a key.
    """
    if not typed or type(value) is (bare or (str if isinstance(value, str) else int)):
        if isinstance(value, str):
            return ("" if _bare_text(value, bare) else "%s") + _escape(str.__str__(value), escaped)
        if isinstance(value, _NUMBERS):
            return _number(value, bare, escaped)
    return _tagged(value, bare=bare, typed=typed, secret=secret, escaped=escaped)


def _bare_text(value: str, bare: type | None) -> bool:
    return bare is str or (bare is None and _READS_LIKE_ANOTHER.fullmatch(value) is None)


def _number(value: Any, bare: type | None, escaped: str) -> str:
    text = number_text(value)
    plain = (bare is None and _READS_LIKE_ANOTHER.fullmatch(text)) or bare in {bool, int, float, Decimal}
    return ("" if plain else "%n") + _escape(text, escaped)


def _tagged(value: object, *, bare: type | None, typed: bool, secret: bytes, escaped: str) -> str:
    if value is None:
        return "%z"
    if isinstance(value, UUID | date) and not (typed and type(value) not in _READABLE):
        text = _readable(value)
        tag = "%t" if isinstance(value, date) else "%u"
        return ("" if tag == "%u" and bare in {None, UUID} else tag) + _escape(text, escaped)
    return "%k" + digest(canonical(value, typed=typed), key=secret)


def _readable(value: UUID | date) -> str:
    if isinstance(value, datetime):
        return moment_text(value)
    return UUID.__str__(value) if isinstance(value, UUID) else date.isoformat(value)


def _escape(text: str, also: str) -> str:
    if text.isalnum() and text.isascii():
        return text
    return "".join(_escape_character(character, also) for character in text)


def _escape_character(character: str, also: str) -> str:
    if character in RESERVED or character in also or ord(character) in _SURROGATES:
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character
