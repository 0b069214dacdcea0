"""Where an entry is found besides its slot: by logical key and by tag."""

from isp_perf._core.eviction import Entry
from isp_perf.cache._store import StagedEntry

__all__ = ["Index", "key_of", "tag", "untag"]

Index = dict[str, Entry]
Tagged = dict[str, set[Entry]]


def key_of(entry: Entry) -> str:
    """Return the logical key of a living entry."""
    key: str = entry.home.owner.key_of(entry.slot, entry.home.token)
    return key


def tag(tagged: Tagged, entry: StagedEntry) -> None:
    """Enter an entry under its tags."""
    for name in entry.tags:
        tagged.setdefault(name, set()).add(entry)


def untag(tagged: Tagged, entry: StagedEntry) -> None:
    """Take an entry from under its tags; a tag without entries goes."""
    for name in entry.tags:
        others = tagged.get(name)
        if others is not None:
            others.discard(entry)
            if not others:
                del tagged[name]
