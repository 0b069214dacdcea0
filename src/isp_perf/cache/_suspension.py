"""While the local level is suspended every ``hot`` is empty, so that each call asks the slow path.

The wrappers close over their ``hot`` dict, so its contents move, in three C calls per function: O(functions) steps, and
nothing on a hit. Entries come back when the last cause is gone, unless they were removed meanwhile.
"""

from collections.abc import Hashable
from weakref import WeakSet

from isp_perf.cache._store import Store

__all__ = ["Suspension"]


class Suspension:
    """Which causes suspend one local level. Every method needs the level's lock.

    Attributes:
        stores: every store with entries.
        active: whether any cause stands.
        distrusted: whether one of them forbids to serve anything.
    """

    __slots__ = ("_asked", "_causes", "active", "distrusted", "stores")

    active: bool
    distrusted: bool

    def __init__(self) -> None:
        self._causes: dict[Hashable, bool] = {}
        self.stores: WeakSet[Store] = WeakSet()
        self.active = False
        self.distrusted = False
        self._asked = False

    def admit(self, store: Store) -> None:
        """Take note of a store that gets its first entry."""
        self.stores.add(store)
        self._direct(store)
        if self.active:
            store.shelf = store.aside

    def ask(self, *, asked: bool) -> None:
        """Let every miss go the long way, although nothing is suspended, or not."""
        self._asked = asked
        for store in self.stores:
            self._direct(store)

    def _direct(self, store: Store) -> None:
        """Tell a store which way its misses go."""
        store.detour = self.active or self._asked or store.shadowed

    def shade(self, key: str) -> None:
        """Take note of something stored by key: calls of functions whose keys begin like it have to look there."""
        for store in self.stores:
            if key.startswith(store.head):
                store.shadowed = True
                self._direct(store)

    def begin(self, cause: Hashable, *, serve: bool) -> None:
        """Empty every ``hot``; without ``serve`` the slow path returns nothing either."""
        self._causes[cause] = serve
        self.distrusted = not all(self._causes.values())
        if self.active:
            return
        self.active = True
        for store in self.stores:
            self._direct(store)
            store.aside.update(store.hot)
            store.shelf = store.aside
            store.hot.clear()

    def end(self, cause: Hashable) -> None:
        """Bring the entries back if no other cause stands; unknown causes are ignored."""
        self._causes.pop(cause, None)
        self.distrusted = not all(self._causes.values())
        if self._causes or not self.active:
            return
        self.active = False
        for store in self.stores:
            self._direct(store)
            store.hot.update(store.aside)
            store.shelf = store.hot
            store.aside.clear()
