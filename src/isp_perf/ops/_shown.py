"""Figures as people read them, in text that is safe to put into HTML."""

from html import escape
from typing import Any, Final

__all__ = ["NOTHING", "count", "duration", "number", "percent", "plain", "rate", "safe", "size"]

NOTHING: Final = "\N{EN DASH}"  # where there is no figure
_LONGEST: Final = 60
_MOST_BYTES: Final = 96  # of HTML
_STEPS: Final = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "\N{MICRO SIGN}s"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"))
_LONG: Final = ((7200.0, 60.0, "min"), (172_800.0, 3600.0, "h"), (float("inf"), 86_400.0, "d"))
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")
_KILO: Final = 1000
_TEN: Final = 10
_HUNDRED: Final = 100
_FIRST_PRINTABLE: Final = 32
_DELETE: Final = 127


def _digits(value: float) -> str:
    """Return about three digits."""
    if abs(value) >= _HUNDRED:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= _TEN else f"{value:.2f}"


def number(value: float | None) -> str:
    """Return a number with about three digits."""
    return NOTHING if value is None else _digits(value)


def rate(per_second: float | None) -> str:
    """Return a rate, such as ``12.3/s``."""
    if per_second is None:
        return NOTHING
    return "0/s" if not per_second else f"{_digits(per_second)}/s"


def percent(share: float | None) -> str:
    """Return a share (0 to 1) in percent with one decimal; only what is all or nothing is shown as 100 % or 0 %."""
    if share is None:
        return NOTHING
    if share in {0, 1}:
        return f"{_HUNDRED * share:.0f} %"
    return f"{min(max(_HUNDRED * share, 0.1), 99.9):.1f} %"


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that suits it, from nanoseconds to days."""
    if seconds is None:
        return NOTHING
    if seconds <= 0:
        return "0 s"
    for below, factor, unit in _STEPS:
        if seconds < below:
            return f"{_digits(seconds * factor)} {unit}"
    below, divisor, unit = next(step for step in _LONG if seconds < step[0])
    return f"{_digits(seconds / divisor)} {unit}"


def size(number: float | None) -> str:
    """Return bytes in powers of 1000."""
    if number is None:
        return NOTHING
    place = 0
    while abs(number) >= _KILO and place < len(_SIZES) - 1:
        number, place = number / _KILO, place + 1
    return f"{number:.0f} B" if not place else f"{_digits(number)} {_SIZES[place]}"


def count(number: float | None) -> str:
    """Return a whole number with separators, in millions from ten of them on."""
    if number is None:
        return NOTHING
    million = 1_000_000
    return f"{number:,.0f}" if abs(number) < _TEN * million else f"{_digits(number / million)} M"


def plain(value: Any) -> str:
    """Return text of others fit for one line: no control characters, no lone surrogates, 60 characters at most.

    Text that is longer as HTML than as text (markup, other alphabets) is cut earlier, so that pages stay small.
    """
    text = str(value)[: _LONGEST + 1].encode("utf-8", "replace").decode()
    text = "".join(letter if _FIRST_PRINTABLE <= ord(letter) != _DELETE else "\N{MIDDLE DOT}" for letter in text)
    room, shown = _MOST_BYTES, 0
    for letter in text[:_LONGEST]:
        room -= len(escape(letter).encode())
        if room < 0:
            break
        shown += 1
    return text if shown == len(text) else f"{text[: shown - 1]}\N{HORIZONTAL ELLIPSIS}"


def safe(value: Any) -> str:
    """Return text of others for HTML: as ``plain``, escaped, and unable to turn the direction of what stands beside."""
    return f"<bdi>{escape(plain(value))}</bdi>"
