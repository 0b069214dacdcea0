"""Which index serves which need."""

import pytest

from isp_perf._core.index_rules import Candidate, Existing, Need, candidates, commonness, redundant, serves, takes_in

T = (None, "t")


def plain(*names):
    return tuple((name, False) for name in names)


@pytest.mark.parametrize(
    ("need", "columns"),
    [
        (Need(T, equal=("b", "a"), ranges=("c", "d")), [plain("a", "b", "c")]),
        (Need(T, equal=("a",), order=(("b", True),), limited=True, ranges=("c",)), [plain("a", "b"), plain("a", "c")]),
        (Need(T, equal=("a",), order=(("b", True), ("c", False))), [(("a", False), ("b", True), ("c", False))]),
        (Need(T, equal=("a",), joined=("k",)), [plain("a"), plain("a", "k")]),
        (Need(T, order=(("b", False),)), []),
        (Need(T, order=(("b", True),), limited=True), [plain("b")]),
        (Need(T, ranges=("b",)), [plain("b")]),
        (Need(T), []),
    ],
)
def test_columns_of_candidates(need, columns):
    """Equalities come first, then the order of a limited list or one range; a whole sorted table asks for nothing."""
    assert [each.columns for each in candidates(need, commonness([need]))] == columns


def test_partial_and_covering_variants():
    """Conditions on NULL make partial indexes, and few other columns are carried."""
    need = Need(T, equal=("a",), nulls=(("n", False),), used=("a", "n", "x"))
    found = candidates(need, commonness([need]))
    assert found == [
        Candidate(T, plain("a"), 1, (("n", False),)),
        Candidate(T, plain("a"), 1),
        Candidate(T, plain("a"), 1, (), ("n", "x")),
    ]
    alone = Need(T, nulls=(("n", True),))
    assert candidates(alone, commonness([alone])) == [Candidate(T, plain("n"), 1)]


@pytest.mark.parametrize(
    ("index", "served"),
    [
        (Existing("i", plain("b", "a", "c")), True),
        (Existing("i", (("a", False), ("b", False), ("c", True))), True),
        (Existing("i", plain("a", "c", "b")), False),
        (Existing("i", plain("a", "b")), False),
        (Existing("i", plain("a"), unique=True), True),
        (Existing("i", plain("a", "b", "c"), where="(n IS NULL)"), False),
        (Existing("i", plain("a", "b", "c"), kind="gin"), False),
        (Existing("i", ()), False),
    ],
)
def test_what_an_index_serves(index, served):
    """Equalities may stand in any order, the tail in either direction, and part of the rows is not all of them."""
    assert serves(index, Candidate(T, plain("a", "b", "c"), 2)) is served


def test_a_partial_index_serves_its_own_condition():
    """The condition is compared whatever its brackets and case."""
    wanted = Candidate(T, plain("a"), 1, (("n", True), ("m", False)))
    assert serves(Existing("i", plain("a"), where='(("m" is null) AND (n IS NOT NULL))'), wanted)
    assert not serves(Existing("i", plain("a"), where="(n IS NULL)"), wanted)


def test_longer_indexes_take_in_shorter_ones():
    """One that begins with all columns, carries what the other carries and holds the same rows is enough."""
    short = Candidate(T, plain("a"), 1)
    assert takes_in(Candidate(T, plain("a", "b"), 1), short)
    assert not takes_in(short, short)
    assert not takes_in(Candidate(T, plain("b", "a"), 1), short)
    assert not takes_in(Candidate(T, plain("a", "b"), 1, (("n", False),)), short)


def test_redundant_indexes():
    """The shorter, or of two alike the later name, is redundant; unique ones and keys never are."""
    one, two, three = Existing("one", plain("a")), Existing("two", plain("a")), Existing("x", plain("a", "b"))
    key, unique = Existing("", plain("a"), unique=True), Existing("u", plain("a"), unique=True)
    assert redundant([one, two]) == [(two, one)]
    assert [each.name for each, _ in redundant([one, three, unique])] == ["one"]
    assert redundant([key, unique]) == []
    assert redundant([one, Existing("part", plain("a"), where="n")]) == []
