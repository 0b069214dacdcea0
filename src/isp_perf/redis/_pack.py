"""Commands as bytes, by hiredis; nothing is queued anywhere before this has worked."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import DataError

__all__ = ["pack", "pack_all", "pack_get"]

_pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command's bytes.

    Raises:
        redis.exceptions.DataError: an argument is no str, bytes, int or float.
    """
    try:
        return _pack(args)
    except TypeError:
        return _pack(tuple(_plain(arg) for arg in args))


def pack_all(commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Return the bytes of many commands; errors as with ``pack``."""
    try:
        return list(map(_pack, commands))
    except TypeError:
        return list(map(pack, commands))


def _plain(arg: Any) -> Any:
    if isinstance(arg, bytearray):
        return bytes(arg)
    if isinstance(arg, bool) or not isinstance(arg, str | bytes | int | float | memoryview):
        kind = type(arg).__name__
        raise DataError(f"Invalid input of type: '{kind}'. Convert to a bytes, string, int or float first.")
    return arg.tobytes() if isinstance(arg, memoryview) else arg


def pack_get(key: Any) -> bytes:
    """Return the bytes of GET, the command worth a way of its own: half the price of the general one."""
    raw = key.encode() if type(key) is str else key
    if type(raw) is not bytes:
        return pack(("GET", key))
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(raw), raw)
