"""The bulk operations, written once for both colours.

Each is a generator that yields batches of commands and is sent their replies, exceptions among them; the asyncio and
the blocking pool drive it.
"""

from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any

from isp_perf._core.backoff import spread_down
from isp_perf._core.ranges import seconds
from isp_perf.errors import ConfigurationError
from isp_perf.redis._stats import BulkResult

__all__ = [
    "Flow",
    "Key",
    "Life",
    "check_glob",
    "delete_many",
    "delete_pattern",
    "get_many",
    "milliseconds",
    "raise_first",
    "set_arguments",
    "set_many",
]

Key = str | bytes
Item = tuple[Key, Any]
Commands = Iterable[tuple[Any, ...]]
Flow = Generator[Commands, list[Any], Any]

_CHUNK = 500  # keys per command
_CHUNK_BYTES = 256 << 10
_JITTER_STEPS = 64
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


@dataclass(frozen=True, slots=True)
class Life:
    """How long keys live: a ttl, and the share of it that is taken off at random per key.

    Args:
        seconds: the ttl, above 0; ``None``: for ever.
        jitter: 0-1.

    Raises:
        ConfigurationError: a number outside its range.
    """

    seconds: float | None
    jitter: float

    def __post_init__(self) -> None:
        if not 0 <= self.jitter <= 1:
            fix = "write 0.1 for up to 10 % shorter"
            raise ConfigurationError("jitter", self.jitter, "must be a share from 0 to 1", fix)

    @classmethod
    def of(cls, ttl: float | timedelta | None, jitter: float) -> "Life":
        """Return the life for a public method's arguments."""
        return cls(None if ttl is None else seconds("ttl", ttl), jitter if ttl is not None else 0.0)

    def milliseconds(self, share: float) -> int:
        """Return a ttl in milliseconds, shorter by the share ``share`` (from 0 to 1) of the jitter."""
        return max(1, round(spread_down(self.seconds or 0.0, self.jitter, share) * 1000))


def raise_first(replies: list[Any]) -> None:
    """Raise the first exception among replies, if there is one."""
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
    replies = yield [("MGET", *chunk) for chunk in chunks]
    raise_first(replies)
    found: dict[Key, Any] = {}
    for chunk, values in zip(chunks, replies, strict=True):
        found.update((key, value) for key, value in zip(chunk, values, strict=True) if value is not None)
    return found


def set_many(mapping: Mapping[Key, Any], life: Life, *, draw: Callable[[int], bytes], together: bool) -> Flow:
    """Store every item and report per key.

    Args:
        mapping: values by key.
        life: the ttl and its jitter.
        draw: that many random bytes.
        together: whether keys with one ttl may share a command (MSET, or MSETEX where the server has it).
    """
    items = list(mapping.items())
    groups, lives = _groups_with_lives(items, life, draw=draw, together=together)
    commands = (_store(group, at) for group, at in zip(groups, lives, strict=True))
    # What can surely be packed is sent while it is made; anything else is packed, and may fail, before it is sent.
    plain = {*map(type, mapping), *map(type, mapping.values())} <= {bytes, str, int, float}
    replies = (yield commands if plain else list(commands)) if items else []
    errors = _errors_by_key(groups, replies)
    return BulkResult(len(items) - len(errors), errors)


def _groups_with_lives(
    items: list[Item], life: Life, *, draw: Callable[[int], bytes], together: bool
) -> tuple[list[list[Item]], list[int | None]]:
    """Return the items of each command and their ttl in milliseconds.

    With jitter, keys that share a command share a ttl: each is assigned at random to one of 64 steps of the jitter.
    """
    if not together:
        lives = _lives(life, len(items), draw)
        return [[item] for item in items], lives
    steps = [items] if not life.jitter else _scattered(items, draw)
    groups: list[list[Item]] = []
    group_lives: list[int | None] = []
    short = _longest(items) * _CHUNK <= _CHUNK_BYTES
    for step, ttl in zip(steps, _lives(life, len(steps), draw), strict=True):
        cut = _groups(step, short=short)
        groups += cut
        group_lives += [ttl] * len(cut)
    return groups, group_lives


def _lives(life: Life, count: int, draw: Callable[[int], bytes]) -> list[int | None]:
    """Return so many ttls in milliseconds, each with a draw of the jitter."""
    if life.seconds is None or not life.jitter:
        return [None if life.seconds is None else life.milliseconds(0.0)] * count
    return [life.milliseconds(number / (1 << 32)) for number in array("I", draw(4 * count))]


def _scattered(items: list[Item], draw: Callable[[int], bytes]) -> list[list[Item]]:
    steps: list[list[Item]] = [[] for _ in range(_JITTER_STEPS)]
    for item, byte in zip(items, draw(len(items)), strict=True):
        steps[byte % _JITTER_STEPS].append(item)
    return [step for step in steps if step]


def _store(group: list[Item], ttl: int | None) -> tuple[Any, ...]:
    """Return the command that stores a group of items with one ttl."""
    if len(group) == 1:
        return ("SET", *group[0]) if ttl is None else ("SET", *group[0], "PX", ttl)
    flat = chain.from_iterable(group)
    return ("MSET", *flat) if ttl is None else ("MSETEX", len(group), *flat, "PX", ttl)


def _errors_by_key(groups: list[list[Item]], replies: list[Any]) -> dict[Key, Exception]:
    errors: dict[Key, Exception] = {}
    for group, reply in zip(groups, replies, strict=True):
        if isinstance(reply, Exception):
            errors.update((key, reply) for key, _ in group)
    return errors


def _longest(items: list[Item]) -> int:
    """Return the length of the longest value, 0 if there is none of any length to speak of."""
    values = [value for _, value in items]
    if not set(map(type, values)) <= {bytes, str}:
        values = [value for value in values if isinstance(value, bytes | str)]
    return max(map(len, values), default=0)


def _groups(items: list[Item], *, short: bool) -> list[list[Item]]:
    """Cut items into groups that are small enough for one command; ``short``: whatever number of keys it may have."""
    groups: list[list[Item]] = []
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        groups += [chunk] if short else _small_groups(chunk)
    return groups


def _small_groups(items: list[Item]) -> Iterator[list[Item]]:
    """Yield groups whose values are not too long together; a longer value is a group of its own."""
    group: list[Item] = []
    size = 0
    for item in items:
        length = len(item[1]) if isinstance(item[1], bytes | str) else 0
        if group and size + length > _CHUNK_BYTES:
            yield group
            group, size = [], 0
        group.append(item)
        size += length
    yield group


def delete_many(keys: Iterable[Key]) -> Flow:
    """Remove keys (UNLINK: memory is given back in the background) and return how many existed."""
    chunks = _chunks(list(dict.fromkeys(keys)))
    if not chunks:
        return 0
    replies = yield [("UNLINK", *chunk) for chunk in chunks]
    raise_first(replies)
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
    more = True
    while more or keys:
        scan = [("SCAN", cursor, "MATCH", glob, "COUNT", _SCAN_COUNT)] if more else []
        replies = yield [*scan, *(("UNLINK", *chunk) for chunk in _chunks(keys))]
        raise_first(replies)
        removed += sum(replies[len(scan) :])
        keys = []
        if more:
            cursor, keys = int(replies[0][0]), replies[0][1]
            more = cursor != 0
        if dry_run:
            seen.update(keys)  # SCAN may return a key twice
            keys = []
    return len(seen) if dry_run else removed
