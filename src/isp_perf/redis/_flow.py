"""The bulk operations, written once for both colours.

Each is a generator that yields batches of commands and is sent their replies, exceptions among them; the asyncio and
the blocking pool drive it.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import timedelta
from typing import Any

from isp_perf._core.backoff import spread_down
from isp_perf.errors import ConfigurationError
from isp_perf.redis._config import seconds
from isp_perf.redis._stats import BulkResult

__all__ = ["Flow", "delete_many", "delete_pattern", "get_many", "milliseconds", "set_arguments", "set_many"]

Key = str | bytes
Commands = list[tuple[tuple[Any, ...], dict[str, Any]]]
Flow = Generator[Commands, list[Any], Any]

_CHUNK = 500  # keys per command
_SCAN_COUNT = 1000


def milliseconds(ttl: float | timedelta) -> int:
    """Return a ttl in whole milliseconds, at least 1.

    Raises:
        ConfigurationError: not a number of seconds above 0.
    """
    return max(1, round(seconds("ttl", ttl) * 1000))


def set_arguments(key: Key, value: Any, ttl: float | timedelta | None, *, nx: bool = False) -> tuple[Any, ...]:
    """Return the SET command of one key."""
    life = () if ttl is None else ("PX", milliseconds(ttl))
    return ("SET", key, value, *life, *(("NX",) if nx else ()))


def _raise_first(replies: list[Any]) -> None:
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if error is not None:
        raise error


def _chunks(keys: list[Key]) -> list[list[Key]]:
    return [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]


def get_many(keys: Iterable[Key]) -> Flow:
    """Return the values of those keys that are stored, by key; chunks are in flight together."""
    chunks = _chunks(list(dict.fromkeys(keys)))
    if not chunks:
        return {}
    replies = yield [(("MGET", *chunk), {}) for chunk in chunks]
    _raise_first(replies)
    found: dict[Key, Any] = {}
    for chunk, values in zip(chunks, replies, strict=True):
        found.update((key, value) for key, value in zip(chunk, values, strict=True) if value is not None)
    return found


def set_many(
    mapping: Mapping[Key, Any], ttl: float | timedelta | None, jitter: float, *, draw: Callable[[], float]
) -> Flow:
    """Store every item and report per key. ``jitter`` (0-1) is the share of the ttl that may be taken off at random."""
    if not 0 <= jitter <= 1:
        raise ConfigurationError("jitter", jitter, "must be a share from 0 to 1", "write 0.1 for up to 10 % shorter")
    items = list(mapping.items())
    life = None if ttl is None else seconds("ttl", ttl)
    commands: Commands = []
    for key, value in items:
        own = spread_down(life, jitter, draw()) or life if life is not None and jitter else life
        commands.append((set_arguments(key, value, own), {}))
    replies = (yield commands) if commands else []
    errors = {key: reply for (key, _), reply in zip(items, replies, strict=True) if isinstance(reply, Exception)}
    return BulkResult(len(items) - len(errors), errors)


def delete_many(keys: Iterable[Key]) -> Flow:
    """Remove keys (UNLINK: memory is given back in the background) and return how many existed."""
    chunks = _chunks(list(dict.fromkeys(keys)))
    if not chunks:
        return 0
    replies = yield [(("UNLINK", *chunk), {}) for chunk in chunks]
    _raise_first(replies)
    return sum(replies)


def check_glob(glob: str | bytes, *, force: bool) -> None:
    """Refuse a pattern that matches every key, unless forced.

    Raises:
        ConfigurationError: the glob is empty, or nothing but ``*``, and ``force`` is not set.
    """
    text = glob.decode("utf-8", "replace") if isinstance(glob, bytes) else glob
    if not text.strip("*") and not force:
        rule = "matches every key of the database"
        raise ConfigurationError("glob", text, rule, "name a prefix, or pass force=True")


def delete_pattern(glob: str | bytes, *, dry_run: bool, force: bool) -> Flow:
    """Remove the keys that match by SCAN and UNLINK and return their number; ``dry_run`` only counts them."""
    check_glob(glob, force=force)
    cursor, removed, seen = 0, 0, set[Any]()
    keys: list[Any] = []
    while True:
        commands: Commands = [(("SCAN", cursor, "MATCH", glob, "COUNT", _SCAN_COUNT), {})]
        commands += [(("UNLINK", *chunk), {}) for chunk in _chunks(keys)]
        replies = yield commands
        _raise_first(replies)
        removed += sum(replies[1:])
        (cursor, found) = replies[0]
        if dry_run:
            seen.update(found)  # SCAN may return a key twice
        keys = [] if dry_run else found
        if not int(cursor):
            break
    if keys:
        replies = yield [(("UNLINK", *chunk), {}) for chunk in _chunks(keys)]
        _raise_first(replies)
        removed += sum(replies)
    return len(seen) if dry_run else removed
