"""Tags in the remote level: one small key per tag holds its version.

A value carries the versions its tags had before it was loaded, and counts only while they are the same. Invalidating a
tag deletes its version, in one command for any number of values; whoever uses the tag next makes a new random one. A
version that was lost (evicted, flushed) reads the same way: as another version, never as the old one.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from secrets import token_bytes
from typing import Final

from isp_perf._core.frames import tags_in
from isp_perf.cache._remote import Ops, SecondLevel, Steps

__all__ = ["Versions", "made_versions", "read_tagged", "tags_of", "version_key"]

Versions = Mapping[str, bytes]
_always: Final = partial(bool, 1)
_KEY: Final = "%tag:"
_LIFE: Final = 30 * 86_400.0


def version_key(tag: str) -> str:
    """Return the logical key of a tag's version; no template can produce it."""
    return _KEY + tag


def tags_of(data: bytes) -> frozenset[str]:
    """Return the tags that a framed value carries."""
    return frozenset(tags_in(data))


def read_tagged(second: SecondLevel, ops: Ops, keys: Sequence[str], *, tags: Iterable[str] = ()) -> Steps:
    """Return the framed values of ``keys``, and the versions of ``tags`` and of those that the values carry.

    One round trip if the values carry no other tags than ``tags``.
    """
    wanted = {version_key(tag): tag for tag in tags}
    found = yield from second.read_many(ops, [*keys, *wanted])
    versions = {tag: found.pop(key) for key, tag in wanted.items() if key in found}
    carried = frozenset[str]().union(*map(tags_in, found.values())).difference(wanted.values())
    more: Mapping[str, bytes] = yield from second.read_many(ops, map(version_key, carried))
    versions |= {key.removeprefix(_KEY): version for key, version in more.items()}
    return found, versions


def made_versions(second: SecondLevel, ops: Ops, tags: Iterable[str], *, versions: Versions, ttl: float) -> Steps:
    """Return the versions of all ``tags``, having written new ones for those without, before anything is loaded."""
    known = dict(versions)
    for tag in tags:
        if tag not in known:
            known[tag] = token_bytes(8)
            life = max(_LIFE, 2 * ttl)
            yield from second.write(ops, version_key(tag), known[tag], ttl=life, valid=_always)
    return known
