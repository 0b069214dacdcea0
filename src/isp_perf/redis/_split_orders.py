"""The cache's orders in a cluster: each is taken apart by slot, and the answers of its parts become one again.

Keys of one script must share a slot, and the version keys that an order names beside its keys rarely do. They are read
in the same moment by an order of their own, which may come a little sooner or later: a version that is newer than the
value makes the value a miss, and one that is older is what a read that began a little earlier would have seen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from isp_perf._core.slots import key_slot
from isp_perf.typing import Answer, Commit, Drop, Identity, Intent, Lease, Order, Ping, Read, Renew

__all__ = ["Piece", "pieces", "whole_answer"]


class Piece(NamedTuple):
    """Part of an order.

    Attributes:
        key: a key of its slot; ``None``: it concerns every primary.
        order: what to do there.
        positions: which of the whole order's keys it has.
        beside: whether those are the keys beside.
    """

    key: str | None
    order: Order
    positions: tuple[int, ...] = ()
    beside: bool = False


def pieces(order: Order) -> list[Piece]:
    """Return the parts of an order, one for each slot."""
    if isinstance(order, Ping | Identity):
        return [Piece(None, order)]
    if isinstance(order, Read | Lease):
        return _asked(order)
    if isinstance(order, Renew):
        return [
            Piece(keys[0], order._replace(keys=keys, tokens=tuple([order.tokens[i] for i in places])), places)
            for keys, places in _by_slot(order.keys)
        ]
    if isinstance(order, Drop | Intent | Commit):
        return [Piece(keys[0], order._replace(keys=keys), places) for keys, places in _by_slot(order.keys)]
    return [Piece(order.key, order)]


def _asked(order: Read | Lease) -> list[Piece]:
    none = order._replace(keys=(), beside=())
    found = [Piece(keys[0], none._replace(keys=keys), places) for keys, places in _by_slot(order.keys)]
    return found + [
        Piece(keys[0], none._replace(beside=keys), places, beside=True) for keys, places in _by_slot(order.beside)
    ]


def _by_slot(keys: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the keys of each slot and their positions."""
    slots: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        slots.setdefault(key_slot(key.encode("utf-8", "surrogatepass")), []).append(i)
    return [(tuple([keys[i] for i in places]), tuple(places)) for places in slots.values()]


def whole_answer(order: Order, parts: Sequence[Piece], answers: Sequence[Any]) -> Any:
    """Return the answer to an order from those of its parts; for one that concerns every primary, from theirs."""
    if isinstance(order, Read | Lease):
        return _answer(order, parts, answers)
    if isinstance(order, Drop | Renew):
        return sum(answers)
    if isinstance(order, Identity):
        return "|".join(sorted(answers)) if all(answers) else ""
    return answers[0] if answers else None


def _answer(order: Read | Lease, parts: Sequence[Piece], answers: Sequence[Answer]) -> Answer:
    found: list[Any] = [(None, None)] * len(order.keys)
    beside: list[Any] = [b""] * len(order.beside)
    for piece, answer in zip(parts, answers, strict=True):
        target, given = (beside, answer.beside) if piece.beside else (found, answer.found)
        for i, value in zip(piece.positions, given, strict=True):
            target[i] = value
    return Answer(found, beside)
