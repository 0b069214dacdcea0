"""`preload`: checked paths, the strategy of each, limits per parent, column subsets."""

import warnings

import pytest
from sqlalchemy import Column, ForeignKey, Integer, select
from sqlalchemy.orm import aliased, declarative_base, raiseload, relationship, with_loader_criteria

from isp_perf.errors import ConfigurationError
from isp_perf.queries import PreloadWarning, preload


def loaded(session, statements, statement):
    """Run a statement with everything that was not preloaded forbidden, and return objects and statement count."""
    statements.take()
    found = session.scalars(statement.options(raiseload("*"))).all()
    return found, statements.take()


@pytest.mark.parametrize(
    ("paths", "count"),
    [
        ((), 1),
        (("cliente",), 1),
        (("cliente.plano", "cliente.ficha"), 1),
        (("cliente.rascunho",), 2),
        (("mensagens",), 2),
        (("anterior",), 2),
        (("cliente", "mensagens", "etiquetas"), 3),
        (("anterior.anterior", "seguintes.cliente"), 4),
    ],
    ids=str,
)
def test_as_few_statements_as_written_by_hand(models, session, statements, paths, count):
    """To-one paths cost nothing, every other path one statement for all objects."""
    found, sent = loaded(session, statements, select(models.Conversa).options(*preload(models.Conversa, *paths)))
    assert (len(found), sent) == (6, count)


def shape(c):
    """Everything there is about a conversation, as plain data."""
    return (
        c.id,
        c.cliente.nome,
        c.cliente.plano and c.cliente.plano.nome,
        c.cliente.ficha and c.cliente.ficha.id,
        c.anterior and c.anterior.id,
        [(m.texto, type(m).__name__, m.conversa.id) for m in c.mensagens],
        [e.nome for e in c.etiquetas],
        [s.id for s in c.seguintes],
    )


def test_results_are_those_of_lazy_loading(models, engine, session, statements):
    """A preloaded graph equals the lazily loaded one, and reading it sends nothing."""
    paths = ("cliente.plano", "cliente.ficha", "anterior", "mensagens.conversa", "etiquetas", "seguintes")
    lazy = [shape(c) for c in session.scalars(select(models.Conversa).order_by(models.Conversa.id))]
    session.expunge_all()
    statement = select(models.Conversa).order_by(models.Conversa.id).options(*preload(models.Conversa, *paths))
    found = session.scalars(statement).all()
    statements.take()
    assert [shape(c) for c in found] == lazy
    assert statements.take() == 0


def test_a_key_that_points_nowhere_loses_no_parent(models, engine, session):
    """A dangling or filtered target is None, as with lazy loading; the parent stays in the result."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE conversas SET cliente_id = 99 WHERE id = 1")
    statement = select(models.Conversa).options(
        *preload(models.Conversa, "cliente"), with_loader_criteria(models.Cliente, models.Cliente.id != 3)
    )
    assert {c.id: c.cliente and c.cliente.id for c in session.scalars(statement)}.items() >= {(1, None), (2, None)}


def test_paths_may_be_attributes_strings_and_tuples(models):
    """Three ways to write a path are one plan, and the plan is built once."""
    first = preload(models.Conversa, "mensagens.conversa", "cliente")
    assert preload(models.Conversa, models.Conversa.cliente, ["mensagens", "conversa"]) is first
    assert preload(models.Conversa, (models.Conversa.mensagens, models.Mensagem.conversa), "cliente") is first


def test_a_path_may_be_narrowed_to_a_subclass(models, session, statements):
    """`of_type` reaches the relationships of a subclass, and the list still holds every row."""
    plan = preload(models.Conversa, (models.Conversa.mensagens.of_type(models.Audio), "trechos"))
    found, sent = loaded(session, statements, select(models.Conversa).options(*plan))
    audios = [m for c in found for m in c.mensagens if isinstance(m, models.Audio)]
    assert sent == 3
    assert sum(len(c.mensagens) for c in found) == 16
    assert [len(a.trechos) for a in audios] == [2, 2, 2]


def test_a_plan_for_an_alias(models, session, statements):
    """The root may be an alias of the model."""
    other = aliased(models.Conversa)
    found, sent = loaded(session, statements, select(other).options(*preload(other, "cliente", "mensagens")))
    assert (len(found), sent, found[0].cliente.nome) == (6, 2, "c2")


def test_attributes_of_a_base_class_are_paths_of_its_subclasses(models, session, statements):
    """A subclass is preloaded through what it inherits."""
    plan = preload(models.Audio, models.Mensagem.conversa, "trechos")
    found, sent = loaded(session, statements, select(models.Audio).options(*plan))
    assert ({a.conversa.id for a in found}, sent) == ({1, 2, 4}, 2)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mensagem", "did you mean 'mensagens'"),
        ("xyzw", "Conversa has anterior, cliente"),
        ("status", "this is a column"),
        ("cliente.mensagens", r"Cliente\.mensagens"),
        ("mensagens.trechos", "only a subclass"),
        ("fluxo", "'write_only' relationship is a query"),
        ("", "dotted string"),
        ("cliente.", "dotted string"),
        ((), "dotted string"),
    ],
    ids=str,
)
def test_a_wrong_path_is_refused_when_it_is_written(models, path, message):
    """A wrong path fails before any statement, naming what would be right."""
    with pytest.raises(ConfigurationError, match=message):
        preload(models.Conversa, path)


def test_a_path_that_leaves_the_model_is_refused(models):
    """An attribute of another class is no step of the path, and neither is one with criteria of its own."""
    with pytest.raises(ConfigurationError, match="leaves the model"):
        preload(models.Conversa, models.Mensagem.conversa)
    with pytest.raises(ConfigurationError, match="criteria"):
        preload(models.Conversa, models.Conversa.mensagens.and_(models.Mensagem.id > 1))


def test_the_model_is_a_mapped_class():
    """Anything that is not mapped is refused by name."""
    with pytest.raises(ConfigurationError, match=r"int.*mapped class"):
        preload(int, "x")


def test_the_strategy_can_be_chosen_per_path_or_for_all(models, session, statements):
    """A wish per path changes that path only; one for all changes every path."""
    one = preload(models.Conversa, "cliente.plano", strategy={models.Conversa.cliente: "selectin"})
    every = preload(models.Conversa, "cliente.plano", strategy="selectin")
    assert loaded(session, statements, select(models.Conversa).options(*one))[1] == 2
    session.expunge_all()
    assert loaded(session, statements, select(models.Conversa).options(*every))[1] == 3


def test_a_join_that_multiplies_rows_is_refused(models):
    """A list is never joined, whoever asks."""
    for strategy in ("joined", {"mensagens": "joined"}):
        with pytest.raises(ConfigurationError, match="cartesian"):
            preload(models.Conversa, "mensagens", strategy=strategy)


def test_a_target_that_joins_lists_by_its_mapping_is_not_joined():
    """A joined target whose mapping joins a list would multiply rows; it gets a statement of its own."""
    base = declarative_base()

    class Pai(base):
        __tablename__ = "pais"
        id = Column(Integer, primary_key=True)
        filhos = relationship("Filho", lazy="joined")

    class Filho(base):
        __tablename__ = "filhos"
        id = Column(Integer, primary_key=True)
        pai_id = Column(ForeignKey("pais.id"), index=True)
        pai = relationship("Pai", viewonly=True)

    assert "JOIN" not in str(select(Filho).options(*preload(Filho, "pai")))


def by_hand(conversa, key, limit):
    """Load all, sort, slice."""
    ordered = sorted(conversa.mensagens, key=key)
    return [m.id for m in (ordered[:limit] if limit > 0 else ordered[limit:])]


def by_note(message):
    return (message.nota is None, -(message.nota or 0), message.id)


@pytest.mark.parametrize("limit", [1, 3, 50, -1, -3, -50])
def test_a_limit_keeps_the_first_or_last_rows_of_each_parent(models, session, limit):
    """The rows are those of loading all, sorting and slicing: with ties, NULLs, short lists and empty ones."""
    plan = preload(models.Conversa, "recentes", limit={"recentes": limit})
    found = session.scalars(select(models.Conversa).options(*plan)).all()
    kept = {c.id: [m.id for m in c.recentes] for c in found}
    assert kept == {c.id: by_hand(c, by_note, limit) for c in found}


def test_a_limit_survives_refresh_and_is_one_statement(models, session, statements):
    """A limited list costs one statement for all parents, and refreshing one parent keeps the limit."""
    plan = preload(models.Conversa, "recentes.conversa", limit=2)
    statement = select(models.Conversa).options(*plan)
    found, sent = loaded(session, statements, statement)
    before = [m.id for m in found[0].recentes]
    session.scalars(statement.execution_options(populate_existing=True)).all()
    session.refresh(found[0], ["recentes"])
    assert (sent, [m.id for m in found[0].recentes]) == (2, before)


def test_a_limit_on_a_self_reference(models, session):
    """Children of the same class are limited per parent as well."""
    plan = preload(models.Conversa, "seguintes", limit=1)
    found = session.scalars(select(models.Conversa).options(*plan)).all()
    assert {c.id: [s.id for s in c.seguintes] for c in found} == {1: [2], 2: [], 3: [4], 4: [5], 5: [], 6: []}


@pytest.mark.parametrize(
    ("path", "limit", "message"),
    [
        ("cliente", {"cliente": 2}, "one-to-many"),
        ("etiquetas", {"etiquetas": 2}, "one parent each"),
        ("soltas", 2, "without an order"),
        ("notas", 2, r"viewonly=True"),
        ("cliente", 2, "no list in the plan"),
        ("mensagens", 0, "other than 0"),
        ("mensagens", True, "other than 0"),
        ("mensagens", {"mensagens": 1.5}, "other than 0"),
        ("mensagens", {"mensagem": 2}, "did you mean 'mensagens'"),
    ],
    ids=str,
)
def test_a_limit_that_means_nothing_or_does_harm_is_refused(models, path, limit, message):
    """No order, no list, or a cascade that could delete by the list: refused with the fix."""
    with pytest.raises(ConfigurationError, match=message):
        preload(models.Conversa, path, limit=limit)


def test_only_some_columns_are_loaded(models, session, statements):
    """`only` defers the rest, keeps the keys, and a deferred column still answers."""
    plan = preload(
        models.Conversa,
        "mensagens",
        "cliente",
        only={"": [], "mensagens": ["texto"], "cliente": [models.Cliente.nome]},
    )
    found = session.scalars(select(models.Conversa).options(*plan)).all()
    assert set(vars(found[0])) >= {"id", "cliente_id"}
    assert "status" not in vars(found[0])
    assert "nota" not in vars(found[0].mensagens[0])
    assert "conversa_id" in vars(found[0].mensagens[0])
    assert "plano_id" not in vars(found[0].cliente)
    statements.take()
    assert ([m.texto for m in found[0].mensagens][:2], found[0].cliente.nome, statements.take()) == (
        ["m0", "m1"],
        "c2",
        0,
    )
    assert (found[0].status, statements.take()) == ("aberta", 1)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"cliente": ["name"]}, "did you mean 'nome'"),
        ({"cliente": "nome"}, r"write \['nome'\]"),
        ({"mensagens": ["texto"]}, "the plan has|did you mean"),
        ({"cliente": ["zzzz"]}, "it has id, nome, plano_id"),
    ],
    ids=str,
)
def test_a_wrong_column_is_refused(models, only, message):
    """A column or path that is not there is named with the nearest one."""
    with pytest.raises(ConfigurationError, match=message):
        preload(models.Conversa, "cliente", only=only)


def test_missing_indexes_are_said_once(models):
    """A list whose key has no index gives one warning, with the index to add, when the plan is first built."""
    with pytest.warns(PreloadWarning, match=r"Index\('ix_notas_conversa_id', 'conversa_id'\)"):
        preload(models.Conversa, "notas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preload(models.Conversa, "notas")


def test_a_limit_without_its_index_and_a_deferred_order_are_said(models):
    """A limit wants an index on key and order, and `only` should not defer what the list is ordered by."""
    with pytest.warns(PreloadWarning, match="nota' ?, which the list is ordered by|'nota', which"):
        preload(models.Conversa, "recentes", only={"recentes": ["texto"]})

    base = declarative_base()

    class Pai(base):
        __tablename__ = "pais"
        id = Column(Integer, primary_key=True)
        filhos = relationship("Filho", order_by="Filho.idade")

    class Filho(base):
        __tablename__ = "filhos"
        id = Column(Integer, primary_key=True)
        idade = Column(Integer)
        pai_id = Column(ForeignKey("pais.id"), index=True)

    with pytest.warns(PreloadWarning, match=r"Index\('ix_filhos_pai_id_idade', 'pai_id', 'idade'\)"):
        preload(Pai, "filhos", limit=3)
