"""Reading the records of the features: found only if the feature is in use, and kept when their owner is gone."""

import sys
import weakref
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeAlias

from isp_perf.metrics._snapshot import Readings, Snapshot, Spec, merge_snapshots

__all__ = ["Feature"]

Reader: TypeAlias = Callable[[Any, Readings], None]


class Feature:
    """One feature's live objects as a source of readings.

    A program that never imports the feature pays a dictionary look-up per scrape. Owners are held weakly: metrics
    never keep a cache alive. What an owner had counted when it was last read stays in the totals after it is gone.

    Args:
        module: the module that keeps the weak set of live owners.
        live: the name of that set in the module.
        read: adds one owner's readings.
        specs: every family ``read`` may use; they appear in each scrape, used or not.
    """

    def __init__(self, module: str, live: str, *, read: Reader, specs: Iterable[Spec]) -> None:
        self.__name__ = module.removeprefix("isp_perf.").partition(".")[0]
        self.specs = tuple(specs)
        self._module = module
        self._live = live
        self._read = read
        self._seen: dict[int, tuple[weakref.ref[Any], Snapshot]] = {}
        self._retired = Snapshot({})

    def __call__(self, readings: Readings) -> None:
        """Add the readings of all owners, living and gone."""
        readings.declare(self.specs)
        self._retire()
        for owner in self._owners(sys.modules.get(self._module)):
            mine = Readings()
            self._read(owner, mine)
            snapshot = Snapshot(mine.columns())
            self._seen[id(owner)] = (weakref.ref(owner), _counts(snapshot))
            readings.include(snapshot)
        readings.include(self._retired)

    def _owners(self, module: ModuleType | None) -> list[Any]:
        return sorted(getattr(module, self._live, ()), key=id)

    def _retire(self) -> None:
        """Move the last readings of owners that are gone into one total."""
        gone = [place for place, (owner, _) in self._seen.items() if owner() is None]
        if gone:
            self._retired = merge_snapshots([self._retired, *(self._seen.pop(place)[1] for place in gone)])


def _counts(snapshot: Snapshot) -> Snapshot:
    return Snapshot({name: column for name, column in snapshot.columns.items() if column.spec.kind != "gauge"})
