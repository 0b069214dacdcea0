"""Canonical bytes: equal values, and only those, share them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import msgspec
import pytest

from isp_perf._core.canonical import canonical, number_text

TENTH = 0.1


class Shade(StrEnum):
    RED = "red"


class Level(IntEnum):
    ONE = 1


class Kind(Enum):
    A = 1
    B = 2


@dataclass
class Point:
    x: int
    y: int


class Line(msgspec.Struct):
    number: int


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (1, Decimal(1)),
        (0.5, Decimal("0.50")),
        (0.1, Decimal(TENTH)),
        (10**500, Decimal("1e500")),
        ("red", Shade.RED),
        (1, Level.ONE),
        ((1, 2), (True, 2.0)),
        ({1, 2}, frozenset({2, 1})),
        ("n", Name("n")),
    ],
)
def test_untyped_follows_equality_and_typed_does_not(one, other):
    """Values that Python calls equal share their bytes unless types count."""
    assert one == other
    assert canonical(one, typed=False) == canonical(other, typed=False)
    assert canonical(one, typed=True) != canonical(other, typed=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.0, -0.0),
        (Decimal("1.5"), Decimal("1.50")),
        (float("nan"), -float("nan")),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))),
        (Point(1, 2), Point(1, 2)),
        (Line(1), Line(1)),
        ({(1, 2), (3, 4)}, {(3, 4), (1, 2)}),
    ],
)
def test_equal_values_of_one_type_share_their_bytes(one, other):
    """Within a type, equality decides, also when types count."""
    assert canonical(one, typed=True) == canonical(other, typed=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, Decimal("0.1")),
        ("1", 1),
        ("a", b"a"),
        (None, "None"),
        ((1, 2), [1, 2]),
        (("a", "b"), ("ab",)),
        (("a", ("b", "c")), (("a", "b"), "c")),
        ({"a": "b"}, {"b": "a"}),
        (Kind.A, Kind.B),
        (Point(1, 2), Point(2, 1)),
        (date(2026, 1, 1), datetime.fromisoformat("2026-01-01")),
        (datetime.fromisoformat("2026-01-01"), datetime(2026, 1, 1, tzinfo=UTC)),
        ("\u00e9", "e\u0301"),
        (UUID(int=1), str(UUID(int=1))),
        (2**1024, float("inf")),
        (-5, "-5"),
        (timedelta(seconds=1), 1),
    ],
)
@pytest.mark.parametrize("typed", [False, True])
def test_unequal_values_differ(one, other, typed):
    """Unequal values never share their bytes."""
    assert canonical(one, typed=typed) != canonical(other, typed=typed)


def test_other_types_are_refused_by_name():
    """A value without declared fields is a TypeError that names its type only."""
    with pytest.raises(TypeError, match="object objects cannot be part of a cache key"):
        canonical([object()], typed=True)


def test_huge_numbers_are_cheap_or_refused():
    """A Decimal beyond 10**4000 is refused; a huge int is written in hexadecimal."""
    assert number_text(10**5000).startswith("x")
    with pytest.raises(TypeError, match="beyond"):
        number_text(Decimal("1e1000000"))
    assert number_text(Decimal("0e1000000")) == "0"
