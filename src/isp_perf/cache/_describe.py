"""What is known of one entry."""

from typing import NamedTuple

from isp_perf._core.eviction import Entry
from isp_perf.cache._index import key_of
from isp_perf.cache._store import StagedEntry

__all__ = ["Description", "describe"]


class Description(NamedTuple):
    """What is known of one entry; never its value.

    Attributes:
        key: the logical key.
        age: seconds since it was loaded, up to ttl/256 too many; ``None`` if nobody knows (a ttl that is drawn).
        left: seconds until it is no longer fresh, <= 0 for a stale value.
        stale_left: seconds until it is not returned in any case.
        tags: its tags.
        hits: how often it was returned.
        load_seconds: how long its load took; ``None`` if nobody wrote that down.
        served: whether a call would get it now without a load.
    """

    key: str
    age: float | None
    left: float
    stale_left: float
    tags: tuple[str, ...]
    hits: int
    load_seconds: float | None
    served: bool


def describe(entry: Entry, now: float, *, distrusted: bool) -> Description:
    """Return what is known of a living entry."""
    left = stale_left = entry.due - now
    if isinstance(entry, StagedEntry):
        left, stale_left = entry.life.fresh_until - now, entry.life.until - now
        age: float | None = now - entry.born
        tags, load_seconds = tuple(sorted(entry.tags)), entry.load_seconds or None
    else:
        ttl = entry.home.owner.policy.steady
        age = None if ttl is None else max(0.0, ttl - left)
        tags, load_seconds = (), None
    served = stale_left > 0 and not distrusted
    return Description(
        key_of(entry), age, left, stale_left, tags=tags, hits=entry.hits, load_seconds=load_seconds, served=served
    )
