"""What a preload plan is and how a loading strategy is chosen, without a word of SQLAlchemy.

A plan is a tree: each node is one relationship, its children are loaded from the objects it leads to. Paths with a
common beginning share nodes, and children are kept in one order, so the plan does not depend on how the paths were
listed. The strategy follows from a few facts about the relationship:

* to-one, sure to find at most one row: joined to the statement that loads its parent, at most four joins deep;
* everything else: one more statement with the parents' keys (select-in). Two joined lists multiply rows, so a list is
  never joined.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

from isp_perf.errors import ConfigurationError

__all__ = ["DEEPEST_JOIN", "Node", "Relation", "Step", "Strategy", "choose", "merge", "nearest", "refuse_unknown"]

Strategy: TypeAlias = Literal["joined", "selectin"]

DEEPEST_JOIN = 4
"""Joins in a row below one statement; deeper to-one paths get a statement of their own."""


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a path.

    Args:
        name: the relationship's attribute name.
        narrowed: the subclass or alias of ``relationship.of_type(...)``, if the path was narrowed; only its identity
            matters here.
    """

    name: str
    narrowed: object | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A relationship of the plan and what is loaded behind it.

    Args:
        step: the relationship.
        children: what is loaded from its targets, sorted by name.
    """

    step: Step
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """What the strategy rule needs to know about a relationship.

    Args:
        path: dotted path from the root, for messages.
        to_many: it fills a collection.
        single: the database guarantees at most one target row per parent.
        self_referencing: parent and target are mapped to the same hierarchy.
    """

    path: str
    to_many: bool
    single: bool
    self_referencing: bool


def merge(paths: Iterable[tuple[Step, ...]]) -> tuple[Node, ...]:
    """Return the smallest forest that holds every path, in an order that does not depend on theirs.

    Raises:
        ConfigurationError: two paths narrow the same relationship to different classes.
    """
    tails: dict[str, tuple[Step, list[tuple[Step, ...]]]] = {}
    for path in paths:
        head, *rest = path
        step, known = tails.setdefault(head.name, (head, []))
        if step.narrowed is not head.narrowed:
            raise ConfigurationError(
                "paths",
                head.name,
                "one relationship is loaded in one way",
                "narrow it with of_type() to the same class in every path, or in none",
            )
        if rest:
            known.append(tuple(rest))
    return tuple(Node(step, merge(known)) for _, (step, known) in sorted(tails.items()))


def choose(relation: Relation, *, asked: str | None, joins: int) -> Strategy:
    """Return how ``relation`` is loaded.

    Args:
        relation: the facts.
        asked: the strategy the caller wrote for it, or ``None``.
        joins: how many joins stand between it and the statement that loads its root.

    Raises:
        ConfigurationError: the strategy asked for is unknown, or would multiply rows.
    """
    if asked not in {None, "joined", "selectin"}:
        raise ConfigurationError("strategy", asked, "a strategy is 'joined' or 'selectin'", "leave it out or take one")
    joinable = relation.single and not relation.to_many
    if asked == "joined" and not joinable:
        raise ConfigurationError(
            "strategy",
            f"{relation.path}: joined",
            "joining a path that can find several rows per object multiplies the result (a cartesian join)",
            f"load {relation.path!r} with 'selectin'",
        )
    wanted = _advisable(relation, joins) if asked is None else asked == "joined"
    return "joined" if wanted else "selectin"


def _advisable(relation: Relation, joins: int) -> bool:
    """Whether a join is right and not too deep."""
    joinable = relation.single and not relation.to_many and not relation.self_referencing
    return joinable and joins < DEEPEST_JOIN


def nearest(name: str, names: Collection[str]) -> str | None:
    """Return the one of ``names`` that ``name`` is most likely a misspelling of, or ``None`` if none is close."""
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return close[0] if close else None


def refuse_unknown(setting: str, given: Mapping[str, object], known: Collection[str]) -> None:
    """Check that a per-path setting speaks of paths that the plan has.

    Raises:
        ConfigurationError: a path of ``given`` is not in ``known``.
    """
    for path in given:
        if path not in known:
            close = nearest(path, known)
            fix = f"did you mean {close!r}?" if close else f"the plan has {', '.join(map(repr, sorted(known)))}"
            raise ConfigurationError(setting, path, "each path must be one of the paths that are preloaded", fix)
