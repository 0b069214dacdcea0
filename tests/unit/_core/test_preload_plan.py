"""The pure part of preload plans: trees of paths, and the strategy rule."""

import pytest

from isp_perf._core.preload_plan import Node, Relation, Step, choose, merge, nearest, refuse_unknown
from isp_perf.errors import ConfigurationError


def path(text: str) -> tuple[Step, ...]:
    return tuple(Step(name) for name in text.split("."))


def relation(*, to_many=False, single=True, self_referencing=False) -> Relation:
    return Relation("a.b", to_many, single, self_referencing)


def test_common_prefixes_are_one_node():
    """Paths with a common beginning share its nodes."""
    tree = merge([path("mensagens.autor"), path("mensagens.anexos"), path("mensagens")])
    assert tree == (Node(Step("mensagens"), (Node(Step("anexos")), Node(Step("autor")))),)


def test_the_order_and_repetition_of_paths_do_not_matter():
    """The same paths in another order, some of them twice, give the same plan."""
    assert merge([path("b"), path("a.c"), path("b")]) == merge([path("a.c"), path("a"), path("b")])


def test_no_paths_make_an_empty_plan():
    """A plan may be empty."""
    assert merge([]) == ()


def test_one_relationship_is_not_narrowed_in_two_ways():
    """The same relationship narrowed to two classes is refused, whatever the order."""
    for paths in ([(Step("a", int),), (Step("a", str),)], [(Step("a"),), (Step("a", str),)]):
        with pytest.raises(ConfigurationError, match="loaded in one way"):
            merge(paths)


def test_a_sure_to_one_is_joined():
    """A to-one that finds at most one row joins the statement of its parent."""
    assert choose(relation(), asked=None, joins=0) == "joined"


@pytest.mark.parametrize(
    "facts", [relation(to_many=True), relation(single=False), relation(self_referencing=True)], ids=str
)
def test_everything_else_gets_a_statement_of_its_own(facts):
    """Lists, unsure to-ones and self-references are loaded by the keys of their parents."""
    assert choose(facts, asked=None, joins=0) == "selectin"


def test_joins_stop_after_four():
    """The fifth join in a row becomes a statement."""
    assert [choose(relation(), asked=None, joins=joins) for joins in (3, 4)] == ["joined", "selectin"]


def test_the_caller_may_choose():
    """A wish that multiplies no rows is granted, beyond the depth limit too."""
    assert choose(relation(), asked="selectin", joins=0) == "selectin"
    assert choose(relation(self_referencing=True), asked="joined", joins=9) == "joined"


@pytest.mark.parametrize("facts", [relation(to_many=True), relation(single=False)], ids=["list", "unsure to-one"])
def test_a_cartesian_join_is_refused(facts):
    """A join that could multiply rows is refused, naming the path."""
    with pytest.raises(ConfigurationError, match=r"a\.b: joined.*cartesian join"):
        choose(facts, asked="joined", joins=0)


def test_an_unknown_strategy_is_refused():
    """A word that is no strategy is named together with those that are."""
    with pytest.raises(ConfigurationError, match=r"'subquery'.*'joined' or 'selectin'"):
        choose(relation(), asked="subquery", joins=0)


def test_the_nearest_name_is_found():
    """A misspelt name is recognised, a strange one is not."""
    assert nearest("mensagem", ["cliente", "mensagens"]) == "mensagens"
    assert nearest("xyz", ["cliente", "mensagens"]) is None


def test_a_setting_for_a_path_outside_the_plan_is_refused():
    """A per-path setting names a path of the plan or is refused with the nearest one, or all."""
    refuse_unknown("limit", {"a": 1}, {"a"})
    with pytest.raises(ConfigurationError, match="did you mean 'mensagens'"):
        refuse_unknown("limit", {"mensagem": 1}, {"mensagens", "cliente"})
    with pytest.raises(ConfigurationError, match="the plan has 'cliente'"):
        refuse_unknown("limit", {"zzz": 1}, {"cliente"})
