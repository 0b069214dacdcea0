"""Which commands have large replies, learnt from replies seen. Pure data: no clock, no I/O.

Values of one kind share a key prefix (``avatar:17``, ``avatar:18``), so what is learnt from one reply is believed of
the command and the whole prefix, up to the key's last colon. It is forgotten after a row of small replies; each time
it has to be learnt again the row doubles, so a family in which only some values are large stays where it belongs.
"""

from collections.abc import Collection
from typing import Any, Final, cast

__all__ = ["LearntSizes", "family_of", "size_of"]

_FIRST_ROW: Final = 64  # small replies in a row after which a family is believed to be small again
_LONGEST_ROW: Final = 4096
_MOST_FAMILIES: Final = 1024

Family = tuple[str, bytes]


def family_of(name: str, key: object) -> Family:
    """Return what a reply's size is remembered under: the command, and its key up to the last colon.

    Args:
        name: the command, upper case.
        key: its first key; anything that is neither text nor bytes counts as no key.
    """
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    if not isinstance(raw, bytes):
        return (name, b"")
    prefix, colon, _ = raw.rpartition(b":")
    return (name, prefix + colon if colon else raw)


def size_of(reply: Any) -> int:
    """Return about how many bytes a reply had on the wire."""
    if isinstance(reply, bytes | str):
        return len(reply)
    if isinstance(reply, list | set | tuple):
        parts = cast("Collection[Any]", reply)
        return sum(map(size_of, parts)) + len(parts)
    if isinstance(reply, dict):
        items: dict[Any, Any] = cast("Any", reply)
        return sum(map(size_of, items)) + sum(map(size_of, items.values())) + len(items)
    return 8


class LearntSizes:
    """Families of commands whose replies are large.

    Attributes:
        families: those believed to be large now, each with the small replies it still needs in a row to be forgotten
            and the length of its row. Empty for most programs, so ``if learnt.families`` is all a hot path needs.
    """

    families: dict[Family, list[int]]

    def __init__(self) -> None:
        self.families = {}
        self._rows: dict[Family, int] = {}  # the row a forgotten family needs next time

    def note(self, family: Family, *, large: bool) -> None:
        """Take note of one reply's size."""
        known = self.families.get(family)
        if large:
            row = known[1] if known else min(_LONGEST_ROW, self._rows.pop(family, _FIRST_ROW // 2) * 2)
            self.families[family] = [row, row]
            _forget_oldest(self.families)
        elif known:
            known[0] -= 1
            if known[0] <= 0:
                del self.families[family]
                self._rows[family] = known[1]
                _forget_oldest(self._rows)


def _forget_oldest(table: dict[Family, Any]) -> None:
    while len(table) > _MOST_FAMILIES:
        del table[next(iter(table))]
