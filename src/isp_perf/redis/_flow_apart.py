"""The bulk operations for a cluster: one command per key, since keys of one command must share a slot.

The same flows as in ``_flow``; the client groups the commands by node and sends all nodes their part at once.
"""

from collections.abc import Iterable
from typing import Any

from isp_perf.redis._flow import Flow, Key, check_glob, raise_first

__all__ = ["delete_many", "delete_pattern", "get_many"]

_SCAN_COUNT = 1000


def get_many(keys: Iterable[Key]) -> Flow:
    """Return the values of those keys that are stored, by key."""
    wanted = list(dict.fromkeys(keys))
    replies: list[Any] = (yield [("GET", key) for key in wanted]) if wanted else []
    raise_first(replies)
    return {key: value for key, value in zip(wanted, replies, strict=True) if value is not None}


def delete_many(keys: Iterable[Key]) -> Flow:
    """Remove keys and return how many existed."""
    gone = list(dict.fromkeys(keys))
    replies: list[Any] = (yield [("UNLINK", key) for key in gone]) if gone else []
    raise_first(replies)
    return sum(replies)


def delete_pattern(glob: str | bytes, *, dry_run: bool, force: bool) -> Flow:
    """Remove the keys of one node that match and return their number; ``dry_run`` only counts them."""
    check_glob(glob, force=force)
    cursor, removed, seen = 0, 0, set[Any]()
    while True:
        (reply,) = yield [("SCAN", cursor, "MATCH", glob, "COUNT", _SCAN_COUNT)]
        raise_first([reply])
        cursor, keys = int(reply[0]), reply[1]
        if dry_run:
            seen.update(keys)
        elif keys:
            replies = yield [("UNLINK", key) for key in keys]
            raise_first(replies)
            removed += sum(replies)
        if not cursor:
            return len(seen) if dry_run else removed
