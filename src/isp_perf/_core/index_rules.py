"""Which index would serve a SELECT, and which indexes of a table serve nothing that another does not serve too."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Candidate", "Existing", "Need", "candidates", "commonness", "redundant", "serves", "takes_in"]

_MOST_INCLUDED = 3  # columns that an index carries only to be read from it
_MOST_COLUMNS = 4

Ordered = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Need:
    """What one SELECT asks of one table.

    Args:
        table: schema (or ``None``) and name.
        equal: columns compared for equality with values.
        joined: columns compared for equality with columns of other tables.
        ranges: columns compared otherwise (IN, less, between), the first of which an index can serve.
        order: the columns of ORDER BY, each with whether it is descending, if they are all of this table.
        limited: whether only the first rows are asked for.
        nulls: columns that must be NULL (``False``) or must not (``True``).
        used: every column of the table that the statement reads.
    """

    table: tuple[str | None, str]
    equal: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    order: tuple[Ordered, ...] = ()
    limited: bool = False
    nulls: tuple[Ordered, ...] = ()
    used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that could be made.

    Args:
        table: schema (or ``None``) and name.
        columns: in order, each with whether it is descending.
        first: how many of them, from the left, may stand in any order.
        nulls: columns that are NULL (``False``) or are not (``True``) in every indexed row: a partial index.
        include: columns that are carried, and not searched by.
    """

    table: tuple[str | None, str]
    columns: tuple[Ordered, ...]
    first: int = 0
    nulls: tuple[Ordered, ...] = ()
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Existing:
    """An index, key or unique constraint that a table has.

    Args:
        name: of the index; empty for what cannot be dropped as an index.
        columns: in order, each with whether it is descending; empty if it is over an expression.
        unique: whether it holds any combination at most once.
        where: the condition of a partial index, else empty.
        include: columns that are carried, and not searched by.
        kind: how it is built, where there are several ways (``"gin"``); else empty.
    """

    name: str
    columns: tuple[Ordered, ...]
    unique: bool = False
    where: str = ""
    include: tuple[str, ...] = ()
    kind: str = ""


def commonness(needs: Iterable[Need]) -> Counter[tuple[tuple[str | None, str], str]]:
    """Count how many SELECTs compare each column for equality."""
    return Counter((need.table, name) for need in needs for name in {*need.equal, *need.joined})


def candidates(need: Need, common: Counter[tuple[tuple[str | None, str], str]]) -> list[Candidate]:
    """Return the indexes worth trying, the best guess first.

    Equalities come first (those that most SELECTs share on the left, so that one index can serve several), then the
    order of the rows or one range, which an index cannot serve both.
    """
    heads = [need.equal]
    if need.joined:
        heads.append((*need.joined, *need.equal))
    found: list[Candidate] = []
    for head in heads:
        names = sorted(set(head), key=lambda name: (-common[need.table, name], name))[:_MOST_COLUMNS]
        for tail in _tails(need, names):
            if names or _worth_it(need, tail):
                columns = (*_rising(names), *tail)
                _add_variants(found, Candidate(need.table, columns, len(names)), need)
    if not found and need.nulls:
        found.append(Candidate(need.table, _rising([need.nulls[0][0]]), 1))
    return found


def _rising(names: Iterable[str]) -> tuple[Ordered, ...]:
    return tuple((name, False) for name in names)


def _worth_it(need: Need, tail: tuple[Ordered, ...]) -> bool:
    """Whether an index without an equality helps: it stops at the first rows, or reads a range."""
    return bool(tail) and (need.limited or tail == _rising(need.ranges[:1]))


def _tails(need: Need, names: list[str]) -> list[tuple[Ordered, ...]]:
    ordered = _forwards(tuple(each for each in need.order if each[0] not in names)[:_MOST_COLUMNS])
    ranged = _rising(name for name in need.ranges if name not in names)[:1]
    tails = [ordered, ranged] if need.limited else [ranged, ordered]
    return list(dict.fromkeys(filter(None, tails))) or [()]


def _forwards(order: tuple[Ordered, ...]) -> tuple[Ordered, ...]:
    """Return an order, or its reverse if that needs nothing descending: an index is read backwards as well."""
    return _rising(name for name, _ in order) if all(down for _, down in order) else order


def _add_variants(found: list[Candidate], plain: Candidate, need: Need) -> None:
    """Add an index as it is, as a partial one and as one that carries what is read."""
    held = {name for name, _ in plain.columns}
    nulls = tuple(each for each in need.nulls if each[0] not in held)
    if nulls:
        found.append(Candidate(plain.table, plain.columns, plain.first, nulls))
    found.append(plain)
    rest = tuple(name for name in need.used if name not in held)
    if 0 < len(rest) <= _MOST_INCLUDED:
        found.append(Candidate(plain.table, plain.columns, plain.first, (), rest))


def serves(index: Existing, wanted: Candidate) -> bool:
    """Whether an index that exists does what ``wanted`` would do."""
    if not _same_rows(index.where, wanted.nulls) or index.kind or not index.columns:
        return False
    head = set(dict(wanted.columns[: wanted.first]))
    names = set(dict(index.columns))
    if index.unique and names <= head:
        return True  # at most one row is left
    return _begins(index, wanted, head) and set(wanted.include) <= names | set(index.include)


def _begins(index: Existing, wanted: Candidate, head: set[str]) -> bool:
    """Whether an index begins with the columns ``head``, in any order, and goes on as ``wanted`` does."""
    beside = index.columns[len(head) : len(wanted.columns)]
    return set(dict(index.columns[: len(head)])) == head and _same_order(beside, wanted.columns[len(head) :])


def _same_rows(where: str, nulls: tuple[Ordered, ...]) -> bool:
    """Whether an index holds all rows, or a partial one just those of the candidate."""
    parts = {f"{name} IS {'NOT ' if there else ''}NULL".upper() for name, there in nulls}
    plain = where.upper().replace("(", "").replace(")", "").replace('"', "")
    return not where or set(plain.split(" AND ")) == parts


def _same_order(left: tuple[Ordered, ...], right: tuple[Ordered, ...]) -> bool:
    """Whether one is the other, read forwards or backwards."""
    return left == right or left == tuple((name, not down) for name, down in right)


def takes_in(longer: Candidate, shorter: Candidate) -> bool:
    """Whether one new index makes another one needless."""
    return (
        longer != shorter
        and (longer.table, longer.nulls) == (shorter.table, shorter.nulls)
        and longer.columns[: len(shorter.columns)] == shorter.columns
        and set(shorter.include) <= {*longer.include, *(name for name, _ in longer.columns)}
    )


def redundant(indexes: Iterable[Existing]) -> list[tuple[Existing, Existing]]:
    """Return each index that begins as another one goes, with that other one; of two alike, the later name."""
    known = list(indexes)
    found: list[tuple[Existing, Existing]] = []
    for index in sorted(known, key=lambda each: each.name, reverse=True):
        better = [each for each in known if each is not index and _replaces(each, index)]
        if index.name and not index.unique and better:
            found.append((index, better[0]))
            known.remove(index)
    return found


def _replaces(other: Existing, index: Existing) -> bool:
    held = {*other.include, *(name for name, _ in other.columns)}
    return (
        bool(index.columns)
        and (other.where, other.kind) == (index.where, index.kind)
        and other.columns[: len(index.columns)] == index.columns
        and set(index.include) <= held
    )
