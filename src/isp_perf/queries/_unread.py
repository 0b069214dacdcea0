"""Finds preloaded relationships that nobody reads.

What a statement preloads is read off its loader options, once for each text in a scope. Whether it is read shows at the
class: the attribute of a relationship that was preloaded somewhere notes each access from then on. That says nothing
about which statement an object came from, so one read counts for every statement of the scope that preloads the
relationship. It is found unread only if objects that have it were loaded in the scope, and none of them was asked.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import InstrumentedAttribute, RelationshipProperty

from isp_perf._core.query_findings import Entry, Finding
from isp_perf.queries._compat import eager_paths
from isp_perf.queries._scopes import CURRENT, Mark

__all__ = ["Unread", "forget_reads", "learn"]

_LOADS = ("load", "refresh")  # the second for what is put onto objects that are there

Tell = Callable[..., None]  # is handed a finding, and ``used``: whether it is none after all


@dataclass(frozen=True, slots=True)
class _Preloaded:
    """A relationship that a statement brings along.

    Args:
        root: name of the class that the path begins at.
        names: the path, name by name.
        relation: the relationship it ends with.
        strategy: how it is loaded.
        entry: the statement.
        tell: hears, when the scope ends, whether it was read.
    """

    root: str
    names: tuple[str, ...]
    relation: RelationshipProperty[Any]
    strategy: str
    entry: Entry
    tell: Tell

    @property
    def place(self) -> tuple[Any, ...]:
        """What tells it apart: the line that sent the statement, and the path."""
        return (self.entry.site[:2], self.root, self.names)

    def finding(self) -> Finding:
        """Return what to say if nobody reads it."""
        file, line, function = self.entry.site
        path = f"{self.relation.parent.class_.__name__}.{self.relation.key}"
        above = ".".join(self.names[:-1])
        plan = f'"{".".join(self.names)}" out of preload({self.root}, ...)' + (f' and leave "{above}"' if above else "")
        fix = f"take {plan}, or {self.strategy}load({path}) out of options()"
        count, seconds = self.entry.count, self.entry.nanoseconds / 1e9
        return Finding("unused_preload", path, file, line, count, seconds, fix, function, self.entry.text)


class Unread:
    """What the statements of one scope preloaded, and what of it was read.

    Attributes:
        loaded: classes of the objects that were loaded.
        read: classes and names of the relationships that were read.
    """

    __slots__ = ("_preloaded", "loaded", "read")

    loaded: set[type]
    read: set[tuple[type, str]]

    def __init__(self) -> None:
        self.loaded = set()
        self.read = set()
        self._preloaded: dict[tuple[Any, ...], _Preloaded] = {}

    def add(self, preloaded: _Preloaded) -> None:
        """Take note of one more."""
        self._preloaded.setdefault(preloaded.place, preloaded)

    def findings(self, entries: Mapping[str, Entry]) -> Iterator[Finding]:
        """Yield what nobody read so far; nothing if rows were deleted, since that reads relationships unseen."""
        if not _deletes(entries):
            yield from (each.finding() for each in self._answerable() if not self._is_read(each))

    def close(self, entries: Mapping[str, Entry]) -> None:
        """Tell what was read and what was not, at the end of the scope."""
        if not _deletes(entries):
            for each in self._answerable():
                each.tell(each.finding(), used=self._is_read(each))

    def _answerable(self) -> Iterator[_Preloaded]:
        """Yield what somebody could have read: objects that have it were loaded, and what leads to it was read."""
        for each in list(self._preloaded.values()):
            site, root, names = each.place
            above = self._preloaded.get((site, root, names[:-1]))
            owner = each.relation.parent.class_
            if (above is None or self._is_read(above)) and any(issubclass(kind, owner) for kind in self.loaded):
                yield each

    def _is_read(self, preloaded: _Preloaded) -> bool:
        relation = preloaded.relation
        return any((mapper.class_, relation.key) in self.read for mapper in relation.parent.self_and_descendants)


def _deletes(entries: Mapping[str, Entry]) -> bool:
    return any(entry.verb == "write" and entry.text.startswith("DELETE") for entry in list(entries.values()))


def learn(marks: list[Mark], context: Any, tell: Tell) -> None:
    """Take note of what a statement preloads, in each scope that meets its text for the first time.

    Args:
        marks: the running statement in each scope.
        context: its execution context.
        tell: hears, when a scope ends, of each preload and whether it was read.
    """
    for root, names, relation, strategy in eager_paths(context):
        _note_reads(relation)
        for mark in marks:
            if not mark.entry.count:
                unread = mark.scope.unread = mark.scope.unread or Unread()
                unread.add(_Preloaded(root, names, relation, strategy, mark.entry, tell))


# ---- reads, seen at the class ----------------------------------------------------------------------------------------


_Plain: Any = InstrumentedAttribute


def _get(self: Any, instance: Any, owner: Any) -> Any:
    if instance is not None:
        _read(self)
    return _Plain.__get__(self, instance, owner)


def _set(self: Any, instance: Any, value: Any) -> None:
    _read(self)  # what is replaced is looked at
    _Plain.__set__(self, instance, value)


def _read(attribute: Any) -> None:
    scope = CURRENT.get()
    while scope is not None:
        if scope.unread is not None:
            scope.unread.read.add((attribute.class_, attribute.key))
        scope = scope.outer


_BODY = {"__slots__": (), "inherit_cache": True, "__get__": _get, "__set__": _set}
_Noting: Any = type("InstrumentedAttribute", (_Plain,), _BODY)
"""What the class of a relationship's attribute is exchanged for, so that the attribute says when it is read."""


def _loaded(target: object, *_: Any) -> None:
    scope = CURRENT.get()
    while scope is not None:
        if scope.unread is not None:
            scope.unread.loaded.add(type(target))
        scope = scope.outer


_noted: "WeakKeyDictionary[type, set[str]]" = WeakKeyDictionary()
"""Classes whose loads are noted, with the relationships whose reads are."""


def _note_reads(relation: RelationshipProperty[Any]) -> None:
    key = relation.key
    for mapper in relation.parent.self_and_descendants:
        kind = mapper.class_
        if kind not in _noted:
            _noted[kind] = set()
            for name in _LOADS:
                event.listen(kind, name, _loaded)
        if key not in _noted[kind]:
            _noted[kind].add(key)
            _turn(vars(kind).get(key), _Noting)


def _turn(attribute: Any, kind: type) -> None:
    """Change the class of an attribute, if it is none that somebody else made."""
    if type(attribute) in {_Plain, _Noting}:
        attribute.__class__ = kind


def forget_reads() -> None:
    """Give every class its own attributes back."""
    for kind, keys in list(_noted.items()):
        for name in _LOADS:
            event.remove(kind, name, _loaded)
        for key in keys:
            _turn(vars(kind).get(key), _Plain)
    _noted.clear()
