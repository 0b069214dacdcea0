"""Decides from a stream of statements which of them are one question asked many times.

A ledger keeps one line per statement text. Under each line repeats are gathered by place: the relationship that asked,
else the line of the user's code. What happened is then read off three numbers:

* a read, three times from one place, with different parameters: N+1;
* a read, three times from one place, with the same parameters: a repeated read;
* a write of one row, five times from one place: a write loop.

Parameters come as hashes and are never kept. Statements that are batches by themselves (many rows, select-in loads,
pages) arrive without a place and are only counted.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from isp_perf.errors import ConfigurationError

__all__ = [
    "FEWEST_READS",
    "FEWEST_WRITES",
    "Entry",
    "Finding",
    "Kind",
    "Repeats",
    "Statement",
    "Verb",
    "require_budget",
    "verb_of",
]

Kind: TypeAlias = Literal["n_plus_one", "repeated_read", "write_loop", "unused_preload"]
Verb: TypeAlias = Literal["read", "write", "control", "other"]

FEWEST_READS = 3
FEWEST_WRITES = 5
_HASHES_KEPT = 64
_SETTLED_AFTER = 8  # executions, after which a text with one guilty place is only counted
_READS = ("SELECT", "WITH", "VALUES", "TABLE")
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE")
_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START", "END")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that many statements did and few could do.

    Args:
        kind: ``"n_plus_one"``, ``"repeated_read"``, ``"write_loop"`` or ``"unused_preload"``.
        path: ``"Conversa.mensagens"`` for a relationship or column, else the first words of the statement.
        file: path of the file the statements came from; empty if no such frame was found.
        line: line number in ``file``; 0 if unknown.
        count: how many statements it took.
        seconds: how long the driver worked on them.
        fix: the text to write.
        function: name of the function around ``line``.
        statement: the SQL, without values.
    """

    kind: Kind
    path: str
    file: str
    line: int
    count: int
    seconds: float
    fix: str
    function: str = ""
    statement: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.count} x {self.path} ({self.kind}); {self.fix}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement text within a scope.

    Args:
        text: the SQL, without values.
        count: how often it was sent.
        seconds: how long the driver worked on it, all together.
        site: ``file:line`` that sent it first; empty if no frame of the user's code was found.
    """

    text: str
    count: int
    seconds: float
    site: str


class Repeats:
    """The same text from the same place."""

    __slots__ = ("fix", "hashes", "kind", "nanoseconds", "path", "site", "total")

    fix: str
    nanoseconds: int
    path: str
    total: int

    def __init__(self) -> None:
        self.total = 0
        self.nanoseconds = 0
        self.hashes: dict[int, int] = {}
        self.kind: Kind | None = None
        self.path = self.fix = ""
        self.site: tuple[str, int, str] = ("", 0, "")

    def add(self, verb: Verb, fingerprint: int) -> Kind | None:
        """Note one more execution and return the verdict, if there is one."""
        self.total += 1
        hashes = self.hashes
        if fingerprint in hashes:
            hashes[fingerprint] += 1
        elif len(hashes) < _HASHES_KEPT:
            hashes[fingerprint] = 1
        if verb == "write":
            return "write_loop" if self.total >= FEWEST_WRITES else None
        if self.total < FEWEST_READS:
            return None
        if len(hashes) > 1:
            return "n_plus_one"
        return "repeated_read"

    def take_back(self, fingerprint: int) -> None:
        """Forget an execution that failed: it will be tried again, and that is no repetition."""
        self.total -= 1
        left = self.hashes.get(fingerprint, 0) - 1
        if left > 0:
            self.hashes[fingerprint] = left
        else:
            self.hashes.pop(fingerprint, None)

    def finding(self, text: str) -> Finding | None:
        """Return what was found here, or ``None``."""
        if self.kind is None:
            return None
        file, line, function = self.site
        seconds = self.nanoseconds / 1e9
        return Finding(self.kind, self.path, file, line, self.total, seconds, self.fix, function, text)


class Entry:
    """One line of the ledger: a statement text and its repeats by place.

    Args:
        text: the SQL.
        verb: what it does.
        single: whether one execution is one question; not so for parts of a batch, which are only counted.

    Attributes:
        quiet: whether executions need only be counted.
        settled: where they are counted, once the place is known.
        watchful: whether other parameters would still change the verdict.
    """

    __slots__ = ("count", "nanoseconds", "places", "quiet", "settled", "single", "site", "text", "verb", "watchful")

    count: int
    nanoseconds: int
    quiet: bool
    single: bool
    text: str
    watchful: bool

    def __init__(self, text: str, verb: Verb, *, single: bool = True) -> None:
        self.text = text
        self.verb: Verb = verb
        self.single = single
        self.quiet = not single
        self.settled: Repeats | None = None
        self.watchful = False
        self.count = 0
        self.nanoseconds = 0
        self.site: tuple[str, int, str] = ("", 0, "")
        self.places: dict[Hashable, Repeats] = {}

    def at(self, place: Hashable) -> Repeats:
        """Return the repeats from ``place``."""
        repeats = self.places.get(place)
        if repeats is None:
            repeats = self.places[place] = Repeats()
        return repeats

    def settle(self) -> None:
        """Stop looking closely, once the one place this text comes from has its verdict."""
        if self.count >= _SETTLED_AFTER and len(self.places) == 1:
            (repeats,) = self.places.values()
            if repeats.kind is not None:
                self.settled = repeats
                self.quiet = True
                self.watchful = repeats.kind == "repeated_read"

    def is_news(self, fingerprint: int) -> bool:
        """Whether a repeated read came with other parameters after all; it is looked at closely again then."""
        if self.settled is None or fingerprint in self.settled.hashes:
            return False
        self.quiet = self.watchful = False
        self.settled = None
        return True

    def findings(self) -> Iterator[Finding]:
        """Yield what was found about this text."""
        for repeats in list(self.places.values()):
            finding = repeats.finding(self.text)
            if finding is not None:
                yield finding

    def statement(self) -> Statement:
        """Return the line as a record."""
        file, line, _ = self.site
        return Statement(self.text, self.count, self.nanoseconds / 1e9, f"{file}:{line}" if file else "")


def require_budget(setting: str, value: object) -> None:
    """Check that ``value`` can be a number of statements.

    Raises:
        ConfigurationError: it is not a whole number >= 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        rule = "a budget is a whole number of statements, 0 or more"
        raise ConfigurationError(setting, value, rule, "pass how many statements may be sent")


def verb_of(text: str) -> Verb:
    """Return what a statement does, by its first word; a WITH that writes is a write."""
    words = text.lstrip(" \t\r\n(").split(None, 1)
    word = words[0].upper().rstrip(";(") if words else ""
    if word in _READS:
        writes = word == "WITH" and any(f"{name} " in text.upper() for name in ("INSERT INTO", "UPDATE", "DELETE FROM"))
        return "write" if writes else "read"
    if word in _WRITES:
        return "write"
    return "control" if word in _CONTROL else "other"
