"""Scopes: what was asked of the database within a block, a request or a test."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from inspect import currentframe
from typing import Any, Protocol, cast

from isp_perf._core.query_findings import Entry, Finding, Repeats, Statement, verb_of
from isp_perf.queries._compat import handshake, is_part, lazy_loader, origin_of, owner_of
from isp_perf.queries._fixes import fix_for
from isp_perf.queries._sites import caller

__all__ = ["CURRENT", "Mark", "Preloads", "Scope", "fingerprint_of"]

_KEY = hash(object())  # makes hashes of parameters meaningless outside this process


def fingerprint_of(parameters: Any) -> int:
    """Return a keyed hash of a statement's parameters; the parameters themselves are never kept."""
    values: Any = tuple(cast("dict[str, Any]", parameters).values()) if isinstance(parameters, dict) else parameters
    try:
        return hash((_KEY, values))
    except TypeError:
        return hash((_KEY, repr(values)))


class Mark:
    """One running statement in one scope."""

    __slots__ = ("entry", "fingerprint", "news", "repeats", "scope")

    entry: Entry
    fingerprint: int
    scope: "Scope"

    def __init__(self, scope: "Scope", entry: Entry) -> None:
        self.scope = scope
        self.entry = entry
        self.repeats: Repeats | None = None
        self.fingerprint = 0
        self.news: Finding | None = None

    def repeat_settled(self) -> None:
        """Count the statement at its settled place, if it has one."""
        self.repeats = self.entry.settled
        if self.repeats is not None:
            self.repeats.total += 1

    def done(self, nanoseconds: int, *, failed: bool) -> None:
        """Count the statement, which took ``nanoseconds``; a failed one is no repetition."""
        scope, entry, repeats = self.scope, self.entry, self.repeats
        scope.count += 1
        scope.nanoseconds += nanoseconds
        entry.count += 1
        entry.nanoseconds += nanoseconds
        if repeats is not None:
            repeats.nanoseconds += nanoseconds
            if failed:
                repeats.take_back(self.fingerprint)
            elif repeats.kind is not None:
                entry.settle()


class Preloads(Protocol):
    """What the statements of a scope preloaded, and what of it was read."""

    loaded: set[type]
    read: set[tuple[type, str]]

    def add(self, preloaded: Any, /) -> None:
        """Take note of one more."""
        ...

    def findings(self, entries: Mapping[str, Entry], /) -> Iterator[Finding]:
        """Yield what nobody read so far."""
        ...

    def close(self, entries: Mapping[str, Entry], /) -> None:
        """Tell what was read and what was not."""
        ...


class Scope:
    """The statements of one scope, and of the scopes inside it.

    Attributes:
        count: statements sent so far.
        nanoseconds: how long the driver worked on them.
        limit: the statement after which ``before`` calls ``beyond``; ``None`` for none.
        unread: what was preloaded and may not be read; ``None`` as long as nothing was.
    """

    __slots__ = ("beyond", "count", "entries", "limit", "nanoseconds", "outer", "unread")

    count: int
    nanoseconds: int
    outer: "Scope | None"
    unread: Preloads | None

    def __init__(self, outer: "Scope | None" = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.count = 0
        self.nanoseconds = 0
        self.outer = outer
        self.unread = None
        self.limit: int | None = None
        self.beyond: Callable[[], None] | None = None

    def findings(self) -> list[Finding]:
        """Return what was found so far, the most statements first."""
        found = [finding for entry in list(self.entries.values()) for finding in entry.findings()]
        if self.unread is not None:
            found += self.unread.findings(self.entries)
        return sorted(found, key=lambda finding: -finding.count)

    def close(self) -> None:
        """Tell whether what was preloaded was read; of nested scopes only the outermost knows."""
        if self.unread is not None and self.outer is None:
            self.unread.close(self.entries)

    def statements(self) -> list[Statement]:
        """Return the texts that were sent, in the order of their first use."""
        return [entry.statement() for entry in list(self.entries.values())]

    def begin(self, text: str, parameters: Any, context: Any) -> Mark | None:
        """Note that a statement is about to run.

        Returns:
            A mark to be told how it went; ``None`` if this is no statement of the user's.
        """
        entry = self.entries.get(text) or self._enter(text, context)
        if entry is None:
            return None
        self._hold()
        mark = Mark(self, entry)
        if entry.quiet and not (entry.watchful and entry.is_news(fingerprint_of(parameters))):
            mark.repeat_settled()
        elif not context.executemany:
            self._gather(mark, context, parameters)
        return mark

    def note(self, text: str, nanoseconds: int) -> None:
        """Count a statement that is done already and is no question that could be repeated."""
        entry = self.entries.get(text)
        if entry is None:
            entry = self.entries[text] = Entry(text, "write", single=False)
            entry.site = caller(currentframe())
        self.count += 1
        self.nanoseconds += nanoseconds
        entry.count += 1
        entry.nanoseconds += nanoseconds

    def _hold(self) -> None:
        """Refuse the statement too many, where a limit asks for it."""
        if self.beyond is not None and self.limit is not None and self.count >= self.limit:
            self.beyond()

    def _enter(self, text: str, context: Any) -> Entry | None:
        verb = verb_of(text)
        if verb == "control" or handshake(context):
            return None
        entry = self.entries[text] = Entry(text, verb, single=verb != "other" and not is_part(context))
        entry.site = caller(currentframe())
        return entry

    def _gather(self, mark: Mark, context: Any, parameters: Any) -> None:
        entry = mark.entry
        state = lazy_loader(context)
        site = caller(currentframe()) if state is None else None
        place: Hashable = (owner_of(context), site) if state is None else state.session_id
        repeats = mark.repeats = entry.at(place)
        mark.fingerprint = fingerprint_of(parameters)
        kind = repeats.add(entry.verb, mark.fingerprint)
        if kind is not None and kind != repeats.kind:
            origin = None if state is None else origin_of(context, state)
            repeats.path, repeats.fix = fix_for(kind, origin, context)
            repeats.site = site or caller(currentframe())
            repeats.kind = kind
            mark.news = repeats.finding(entry.text)


CURRENT: ContextVar[Scope | None] = ContextVar("isp_perf.queries.scope", default=None)
"""The innermost scope; tasks, and threads started with the context of their starter, inherit it."""
