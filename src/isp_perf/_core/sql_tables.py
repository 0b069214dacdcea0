"""Reads off a statement's text which tables it writes, and whether its answer depends on more than tables.

Not a parser of SQL: comments and literals are left out, and what is left is searched for the few words that name a
written table. Text that begins with a word that is not known is not guessed at; it is reported as not understood.
"""

import re
from dataclasses import dataclass
from functools import partial

__all__ = ["Written", "table_name", "volatile_name", "writes_in"]

_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|'(?:[^']|'')*'"
    r'|(?P<name>"(?:[^"]|"")+"|`[^`]+`|[^\W\d][\w$]*)|(?P<other>[.,;()])',
    re.DOTALL,
)
_HARMLESS = frozenset(
    (
        "SELECT",
        "WITH",
        "VALUES",
        "TABLE",
        "SHOW",
        "EXPLAIN",
        "PRAGMA",
        "SET",
        "RESET",
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "PREPARE",
        "LISTEN",
        "UNLISTEN",
        "NOTIFY",
        "ANALYZE",
        "VACUUM",
        "REINDEX",
        "CLUSTER",
        "LOCK",
        "DECLARE",
        "FETCH",
        "MOVE",
        "CLOSE",
        "DISCARD",
        "DEALLOCATE",
        "GRANT",
        "REVOKE",
        "COMMENT",
        "CREATE",
        "DESCRIBE",
        "USE",
        "CHECKPOINT",
        "ATTACH",
        "DETACH",
    )
)
_WRITING = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "COPY", "DROP", "ALTER"))
_NO_UPDATE = frozenset(("FOR", "DO", "ON", "KEY", "BEFORE", "AFTER", "OR", "OF"))
_FILLING = frozenset(("ONLY", "IF", "EXISTS", "TABLE", "OR", "IGNORE", "ABORT", "FAIL", "ROLLBACK", "REPLACE", "LOW"))
_VOLATILE = frozenset(
    (
        "NOW",
        "RANDOM",
        "RAND",
        "RANDOMBLOB",
        "UUID",
        "GEN_RANDOM_UUID",
        "UUIDV4",
        "UUIDV7",
        "UUID_GENERATE_V4",
        "CLOCK_TIMESTAMP",
        "STATEMENT_TIMESTAMP",
        "TRANSACTION_TIMESTAMP",
        "TIMEOFDAY",
        "NEXTVAL",
        "CURRVAL",
        "LASTVAL",
        "SETVAL",
        "SETSEED",
        "PG_SLEEP",
        "TXID_CURRENT",
        "PG_CURRENT_XACT_ID",
        "CURRENT_SETTING",
        "SYSDATE",
        "GETDATE",
        "NEWID",
        "LAST_INSERT_ROWID",
        "LAST_INSERT_ID",
        "CHANGES",
        "TOTAL_CHANGES",
        "PG_BACKEND_PID",
    )
)
_BARE = frozenset(
    (
        "CURRENT_TIMESTAMP",
        "CURRENT_DATE",
        "CURRENT_TIME",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "CURRENT_USER",
        "SESSION_USER",
        "CURRENT_ROLE",
    )
)
_OF_TODAY = frozenset(("DATE", "TIME", "DATETIME", "JULIANDAY", "STRFTIME", "UNIXEPOCH", "TIMEDIFF"))


@dataclass(frozen=True, slots=True)
class Written:
    """What a text writes.

    Args:
        tables: bare names in lower case, without schema.
        understood: whether that is all; not so for procedures and words that are not known.
    """

    tables: frozenset[str]
    understood: bool


def table_name(written: str) -> str:
    """Return a table's name as it is compared: without quotes, in lower case."""
    if written[:1] in {'"', "`"}:
        written = written[1:-1].replace('""', '"')
    return written.lower()


def writes_in(text: str) -> Written:
    """Return what ``text``, of one or several statements, writes."""
    tables: set[str] = set()
    understood = True
    for tokens in _statements(text):
        words = [token.upper() for token in tokens]
        understood = understood and _is_known(words)
        for index in filter(partial(_is_verb, words), range(len(words))):
            tables.update(_targets(tokens, words, index))
    return Written(frozenset(tables), understood)


def _is_known(words: list[str]) -> bool:
    """Whether a statement begins with a word of which it is known what it may write."""
    first = next((word for word in words if word != "("), "")
    return not first or first in _HARMLESS or first in _WRITING


def volatile_name(text: str, values: tuple[object, ...] = ()) -> str | None:
    """Return what in ``text`` does not depend on tables only; ``None`` if nothing is known to.

    Args:
        text: the SQL.
        values: its bound values; the word ``now`` among them makes SQLite's date functions volatile.
    """
    today = "'now'" in text.lower() or any(isinstance(value, str) and value.lower() == "now" for value in values)
    for tokens in _statements(text):
        for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
            if _is_volatile(token, following, today=today):
                return token.lower()
    return None


def _is_volatile(token: str, following: str, *, today: bool) -> bool:
    word = token.upper()
    if following == "(":
        return word in _VOLATILE or (today and word in _OF_TODAY)
    return word in _BARE


def _statements(text: str) -> list[list[str]]:
    """Return the names and punctuation of each statement in ``text``."""
    statements: list[list[str]] = [[]]
    for match in _TOKEN.finditer(text):
        found = match["name"] or match["other"]
        if found == ";":
            statements.append([])
        elif found:
            statements[-1].append(found)
    return statements


def _is_verb(words: list[str], index: int) -> bool:
    """Whether the word at ``index`` begins a write, and is no part of a clause such as FOR UPDATE."""
    word, before = words[index], words[index - 1] if index else ""
    if word not in _WRITING or before == ".":
        return False
    if word in {"UPDATE", "DELETE"}:
        return before not in _NO_UPDATE
    if word in {"INSERT", "MERGE"}:
        return before not in _NO_UPDATE and "INTO" in words[index + 1 : index + 5]
    if word == "REPLACE":
        return "INTO" in words[index + 1 : index + 2]
    return before in {"", "("}


def _targets(tokens: list[str], words: list[str], index: int) -> list[str]:
    """Return the tables named behind the verb at ``index``."""
    verb, at = words[index], _behind(words, index)
    found: list[str] = []
    while at < len(tokens):
        name, at = _dotted(tokens, _past(words, at))
        found += [name] if name else []
        if words[at : at + 1] != [","] or verb not in {"TRUNCATE", "DROP"}:
            break
        at += 1
    return found


def _behind(words: list[str], index: int) -> int:
    """Return where the tables begin that the verb at ``index`` writes; behind all words if it writes none."""
    verb, at = words[index], index + 1
    if verb in {"INSERT", "MERGE", "REPLACE"}:
        return words.index("INTO", at) + 1
    if verb == "DELETE":
        return at + (words[at : at + 1] == ["FROM"])
    if verb == "COPY":
        return at if "FROM" in words else len(words)
    if verb in {"DROP", "ALTER"}:
        return at if words[at : at + 1] == ["TABLE"] else len(words)
    return at


def _past(words: list[str], at: int) -> int:
    """Return the place of the first word from ``at`` on that may be a name."""
    while at < len(words) and words[at] in _FILLING:
        at += 1
    return at


def _dotted(tokens: list[str], at: int) -> tuple[str, int]:
    """Return the last part of the dotted name at ``at``, and what comes behind it."""
    if at >= len(tokens) or tokens[at] in ".,()":
        return "", at
    while tokens[at + 1 : at + 2] == ["."] and at + 2 < len(tokens):
        at += 2
    return table_name(tokens[at]), at + 1
