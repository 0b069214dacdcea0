"""Marks: what a reader puts down before it asks the remote level, to see whether anything changed since.

Wire order is not task order: an answer only schedules its reader, while the news that the value is gone may be dealt
with at once. So a value enters the local level only if its mark still stands, in the same critical section.
"""

from collections.abc import Callable, Iterable

from isp_perf._runtime.flights import Waiter

__all__ = ["Mark", "Marks"]


class Mark:
    """One reader's mark.

    Attributes:
        names: the keys in the remote level whose change lifts it.
        standing: whether none of them changed.
        waiter: who is to be woken by a change.
    """

    __slots__ = ("names", "standing", "waiter")

    names: tuple[str, ...]
    standing: bool
    waiter: Waiter | None

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.standing = True
        self.waiter = None


class Marks:
    """The marks of one manager by name. Every method needs the lock of its local level."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[str, set[Mark]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def set_locked(self, names: Iterable[str]) -> Mark:
        """Return a new mark on ``names``."""
        mark = Mark(())
        self.extend_locked(mark, names)
        return mark

    def extend_locked(self, mark: Mark, names: Iterable[str]) -> None:
        """Let a change of ``names`` lift ``mark`` too."""
        more = tuple(names)
        if mark.standing:
            mark.names += more
            for name in more:
                self._by_name.setdefault(name, set()).add(mark)

    def lift_locked(self, mark: Mark) -> None:
        """Take ``mark`` away; it stands no longer."""
        mark.standing = False
        for name in mark.names:
            others = self._by_name.get(name)
            if others is not None:
                others.discard(mark)
                if not others:
                    del self._by_name[name]

    def changed_locked(self, name: str) -> None:
        """Lift every mark on ``name`` and wake those who wait for that."""
        for mark in tuple(self._by_name.get(name, ())):
            self._end_locked(mark)

    def changed_where_locked(self, gone: Callable[[str], bool]) -> None:
        """Lift the marks on every name that is ``gone``."""
        for name in [name for name in self._by_name if gone(name)]:
            self.changed_locked(name)

    def changed_all_locked(self) -> None:
        """Lift every mark and wake those who wait."""
        for mark in {mark for marks in self._by_name.values() for mark in marks}:
            self._end_locked(mark)

    def _end_locked(self, mark: Mark) -> None:
        self.lift_locked(mark)
        if mark.waiter is not None:
            mark.waiter.wake(None)
