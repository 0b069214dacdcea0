"""A labelled corpus of code that asks one question many times or preloads for nobody, and of code that does neither.

Each case is run within a scope; what is found must be what the label says. Every fix is then applied and the code run
again: nothing may be found any more.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, exc, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    Session,
    contains_eager,
    defer,
    joinedload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
)

from isp_perf.queries import count_queries, install, preload, preload_into


@dataclass
class Case:
    """One piece of code: what it is found to be, and how its fix is applied."""

    run: Any
    kind: str | None = None
    path: str = ""
    fixed: Any = None  # for findings whose fix is not an option of the statement


def show(*values):
    """Stand for whatever code reads an attribute."""
    return values


def roots(m):
    return select(m.Conversa).order_by(m.Conversa.id)


# ---- relationships: `plan` adds the fix to the statement -------------------------------------------------------------


def lazy_list(s, m, plan):
    for c in s.scalars(plan(roots(m))):
        list(c.mensagens)


def lazy_to_one(s, m, plan):
    for c in s.scalars(plan(roots(m))):
        show(c.cliente.nome)


def lazy_many_to_many(s, m, plan):
    [c.etiquetas for c in s.scalars(plan(roots(m)))]


def lazy_one_to_one(s, m, plan):
    [c.ficha for c in s.scalars(plan(select(m.Cliente)))]


def lazy_self_reference(s, m, plan):
    [c.seguintes for c in s.scalars(plan(roots(m)))]


def lazy_inside_a_function(s, m, plan):
    def length(c):
        return len(c.mensagens)

    for c in s.scalars(plan(roots(m))):
        length(c)


def lazy_in_two_lines(s, m, plan):
    found = s.scalars(plan(roots(m))).all()
    show(found[0].mensagens)
    show(found[1].mensagens)
    show(found[2].mensagens)


def lazy_behind_a_preloaded_path(s, m, plan):
    statement = plan(select(m.Cliente).options(selectinload(m.Cliente.rascunho)))
    [(c.rascunho, c.ficha) for c in s.scalars(statement)]


def lazy_two_levels_down(s, m, plan):
    statement = plan(roots(m).options(selectinload(m.Conversa.mensagens)))
    [x.trechos for c in s.scalars(statement) for x in c.mensagens if isinstance(x, m.Audio)]


def lazy_of_a_subclass(s, m, plan):
    [a.trechos for a in s.scalars(plan(select(m.Audio)))]


def lazy_by_truth(s, m, plan):
    return [c for c in s.scalars(plan(roots(m))) if c.mensagens]


def lazy_through_another_list(s, m, plan):
    for c in s.scalars(plan(roots(m))):
        for e in c.etiquetas:
            show(e.nome)


def lazy_in_a_sort_key(s, m, plan):
    sorted(s.scalars(plan(roots(m))), key=lambda c: len(c.mensagens))


def deferred_column(s, m, plan):
    [c.resumo for c in s.scalars(plan(roots(m)))]


OPTIONS = {
    "a lazy list": Case(lazy_list, "n_plus_one", "Conversa.mensagens"),
    "a lazy to-one": Case(lazy_to_one, "n_plus_one", "Conversa.cliente"),
    "a lazy many-to-many": Case(lazy_many_to_many, "n_plus_one", "Conversa.etiquetas"),
    "a lazy one-to-one": Case(lazy_one_to_one, "n_plus_one", "Cliente.ficha"),
    "a lazy self-reference": Case(lazy_self_reference, "n_plus_one", "Conversa.seguintes"),
    "a lazy list inside a function": Case(lazy_inside_a_function, "n_plus_one", "Conversa.mensagens"),
    "one relationship from three lines": Case(lazy_in_two_lines, "n_plus_one", "Conversa.mensagens"),
    "a path beside a preloaded one": Case(lazy_behind_a_preloaded_path, "n_plus_one", "Cliente.ficha"),
    "a relationship of a subclass": Case(lazy_of_a_subclass, "n_plus_one", "Audio.trechos"),
    "a list asked for its truth": Case(lazy_by_truth, "n_plus_one", "Conversa.mensagens"),
    "a list walked within a list": Case(lazy_through_another_list, "n_plus_one", "Conversa.etiquetas"),
    "a list in a sort key": Case(lazy_in_a_sort_key, "n_plus_one", "Conversa.mensagens"),
    "a deferred column": Case(deferred_column, "n_plus_one", "Conversa.resumo"),
}

# ---- everything else: the fix is another way to write it -------------------------------------------------------------


def expired_rows(s, m):
    found = s.scalars(roots(m)).all()
    s.commit()
    [c.status for c in found]


def expired_rows_fixed(s, m):
    found = s.scalars(roots(m)).all()
    s.commit()
    s.scalars(select(m.Conversa).where(m.Conversa.id.in_([1, 2, 3, 4, 5, 6]))).all()
    [c.status for c in found]


def column_left_out(s, m):
    [c.status for c in s.scalars(roots(m).options(defer(m.Conversa.status)))]


def column_left_in(s, m):
    [c.status for c in s.scalars(roots(m))]


def get_in_a_loop(s, m):
    for number in range(1, 5):
        s.get(m.Conversa, number)


def get_fixed(s, m):
    s.scalars(select(m.Conversa).where(m.Conversa.id.in_(range(1, 5)))).all()


def select_in_a_loop(s, m):
    for number in range(1, 5):
        s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id == number)).all()


def select_fixed(s, m):
    s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id.in_(range(1, 5)))).all()


def count_in_a_loop(s, m):
    for number in range(1, 5):
        s.scalar(select(func.count()).select_from(m.Mensagem).where(m.Mensagem.conversa_id == number))


def count_fixed(s, m):
    s.execute(select(m.Mensagem.conversa_id, func.count()).group_by(m.Mensagem.conversa_id)).all()


def first_row_in_a_loop(s, m):
    for number in (1, 2, 4):
        s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id == number).order_by(m.Mensagem.id).limit(1)).first()


def first_row_fixed(s, m):
    [c.recentes for c in s.scalars(roots(m).options(*preload(m.Conversa, "recentes", limit=1)))]


def text_in_a_loop(s, m):
    for number in range(1, 5):
        s.execute(text("SELECT nome FROM clientes WHERE id = :id"), {"id": number}).all()


def text_fixed(s, m):
    s.execute(text("SELECT nome FROM clientes WHERE id IN :ids").bindparams(bindparam("ids", [1, 2], expanding=True)))


def driver_sql_in_a_loop(s, m):
    for number in range(1, 5):
        s.connection().exec_driver_sql("SELECT nome FROM clientes WHERE id = ?", (number,)).all()


def driver_sql_fixed(s, m):
    s.connection().exec_driver_sql("SELECT nome FROM clientes WHERE id BETWEEN ? AND ?", (1, 4)).all()


def refresh_in_a_loop(s, m):
    for c in s.scalars(roots(m)).all():
        s.refresh(c)


def refresh_fixed(s, m):
    s.scalars(roots(m).execution_options(populate_existing=True)).all()


def same_question(s, m):
    for _ in range(4):
        s.scalars(select(m.Plano).where(m.Plano.id == 1)).all()


def same_question_fixed(s, m):
    plan = s.scalars(select(m.Plano).where(m.Plano.id == 1)).all()
    [plan for _ in range(4)]


def same_question_without_parameters(s, m):
    for _ in range(3):
        s.execute(text("SELECT count(*) FROM planos")).all()


def insert_one_by_one(s, m):
    for number in range(6):
        s.execute(insert(m.Etiqueta).values(nome=f"n{number}"))


def insert_fixed(s, m):
    s.execute(insert(m.Etiqueta), [{"nome": f"n{number}"} for number in range(6)])


def flush_one_by_one(s, m):
    for number in range(6):
        s.add(m.Etiqueta(nome=f"n{number}"))
        s.flush()


def flush_fixed(s, m):
    s.add_all([m.Etiqueta(nome=f"n{number}") for number in range(6)])
    s.flush()


def update_one_by_one(s, m):
    for number in range(1, 7):
        s.execute(update(m.Conversa).where(m.Conversa.id == number).values(status=f"s{number}"))


def update_fixed(s, m):
    s.execute(update(m.Conversa), [{"id": number, "status": f"s{number}"} for number in range(1, 7)])


def delete_one_by_one(s, m):
    for number in range(1, 7):
        s.execute(delete(m.Nota).where(m.Nota.id == number))


def delete_fixed(s, m):
    s.execute(delete(m.Nota).where(m.Nota.id.in_(range(1, 7))))


WRITTEN = {
    "rows expired by commit": Case(expired_rows, "n_plus_one", "Conversa (expired)", expired_rows_fixed),
    "a column left out by the query": Case(column_left_out, "n_plus_one", "Conversa.status", column_left_in),
    "get in a loop": Case(get_in_a_loop, "n_plus_one", "Conversa", get_fixed),
    "select in a loop": Case(select_in_a_loop, "n_plus_one", "Mensagem", select_fixed),
    "count in a loop": Case(count_in_a_loop, "n_plus_one", "", count_fixed),
    "first row in a loop": Case(first_row_in_a_loop, "n_plus_one", "Mensagem", first_row_fixed),
    "text in a loop": Case(text_in_a_loop, "n_plus_one", "SELECT nome FROM clientes WHERE id", text_fixed),
    "driver SQL in a loop": Case(driver_sql_in_a_loop, "n_plus_one", "SELECT nome FROM", driver_sql_fixed),
    "refresh in a loop": Case(refresh_in_a_loop, "n_plus_one", "Conversa", refresh_fixed),
    "the same question again": Case(same_question, "repeated_read", "Plano", same_question_fixed),
    "the same question without parameters": Case(
        same_question_without_parameters, "repeated_read", "SELECT count(*)", same_question_fixed
    ),
    "insert row by row": Case(insert_one_by_one, "write_loop", "Etiqueta", insert_fixed),
    "flush row by row": Case(flush_one_by_one, "write_loop", "etiquetas", flush_fixed),
    "update row by row": Case(update_one_by_one, "write_loop", "Conversa", update_fixed),
    "delete row by row": Case(delete_one_by_one, "write_loop", "Nota", delete_fixed),
}


# ---- preloads that nobody reads: `out` holds the paths that the fix takes out ----------------------------------------


def without(out, *paths):
    """Return the paths of a plan that a fix leaves in it."""
    return [path for path in paths if path not in out]


def unread_list(s, m, out):
    for c in s.scalars(roots(m).options(*preload(m.Conversa, *without(out, "mensagens", "cliente")))):
        show(c.cliente.nome)


def unread_to_one(s, m, out):
    for c in s.scalars(roots(m).options(*preload(m.Conversa, *without(out, "cliente", "mensagens")))):
        show(c.mensagens)


def unread_many_to_many(s, m, out):
    show(s.scalars(roots(m).options(*preload(m.Conversa, *without(out, "etiquetas")))).all())


def unread_end_of_a_path(s, m, out):
    for c in s.scalars(roots(m).options(*preload(m.Conversa, "cliente", *without(out, "cliente.plano")))):
        show(c.cliente.nome)


def unread_whole_path(s, m, out):
    plan = () if "cliente" in out else preload(m.Conversa, "cliente.ficha")
    [c.status for c in s.scalars(roots(m).options(*plan))]


def unread_of_a_subclass(s, m, out):
    [a.segundos for a in s.scalars(select(m.Audio).options(*preload(m.Audio, *without(out, "trechos"))))]


def unread_limited(s, m, out):
    [c.status for c in s.scalars(roots(m).options(*preload(m.Conversa, *without(out, "recentes"))))]


def unread_by_hand(s, m, out):
    options = [] if out else [selectinload(m.Conversa.mensagens)]
    [c.status for c in s.scalars(roots(m).options(*options))]


def unread_joined_by_hand(s, m, out):
    options = [] if out else [joinedload(m.Conversa.cliente)]
    [c.status for c in s.scalars(roots(m).options(*options))]


def unread_subquery_by_hand(s, m, out):
    options = [] if out else [subqueryload(m.Conversa.mensagens)]
    [c.status for c in s.scalars(roots(m).options(*options))]


def unread_on_loaded_objects(s, m, out):
    found = s.scalars(roots(m)).all()
    preload_into(s, found, *without(out, "mensagens"))
    [c.status for c in found]


UNREAD = {
    "a list": Case(unread_list, "unused_preload", "Conversa.mensagens"),
    "a to-one": Case(unread_to_one, "unused_preload", "Conversa.cliente"),
    "a many-to-many": Case(unread_many_to_many, "unused_preload", "Conversa.etiquetas"),
    "the end of a path": Case(unread_end_of_a_path, "unused_preload", "Cliente.plano"),
    "a path from its beginning": Case(unread_whole_path, "unused_preload", "Conversa.cliente"),
    "a list of a subclass": Case(unread_of_a_subclass, "unused_preload", "Audio.trechos"),
    "a list in another order": Case(unread_limited, "unused_preload", "Conversa.recentes"),
    "a list put onto loaded objects": Case(unread_on_loaded_objects, "unused_preload", "Conversa.mensagens"),
    "selectinload by hand": Case(unread_by_hand, "unused_preload", "Conversa.mensagens"),
    "joinedload by hand": Case(unread_joined_by_hand, "unused_preload", "Conversa.cliente"),
    "subqueryload by hand": Case(unread_subquery_by_hand, "unused_preload", "Conversa.mensagens"),
}


# ---- innocent code ---------------------------------------------------------------------------------------------------


def preloaded(s, m):
    for c in s.scalars(roots(m).options(*preload(m.Conversa, "mensagens", "cliente.plano", "etiquetas"))):
        show(c.mensagens, c.cliente.plano, c.etiquetas)


def preloaded_onto(s, m):
    found = s.scalars(roots(m)).all()
    preload_into(s, found, "mensagens")
    [c.mensagens for c in found]


def by_hand_selectin(s, m):
    [c.mensagens for c in s.scalars(roots(m).options(selectinload(m.Conversa.mensagens)))]


def by_hand_joined(s, m):
    [c.mensagens for c in s.scalars(roots(m).options(joinedload(m.Conversa.mensagens))).unique()]


def by_hand_subquery(s, m):
    [c.mensagens for c in s.scalars(roots(m).options(subqueryload(m.Conversa.mensagens)))]


def chunks_of_selectin(s, m):
    s.execute(insert(m.Conversa), [{"status": "x", "cliente_id": 1, "anterior_id": None} for _ in range(4000)])
    [c.etiquetas for c in s.scalars(roots(m).options(selectinload(m.Conversa.etiquetas)))]


def chunks_by_hand(s, m):
    for start in range(0, 40, 10):
        s.scalars(select(m.Mensagem).where(m.Mensagem.id.in_(range(start, start + 10)))).all()


def pages_by_hand(s, m):
    for page in range(5):
        s.scalars(roots(m).limit(2).offset(2 * page)).all()


def two_objects(s, m):
    for c in s.scalars(roots(m).limit(2)):
        list(c.mensagens)


def one_object_many_relations(s, m):
    c = s.get(m.Conversa, 1)
    show(c.mensagens, c.etiquetas, c.cliente, c.seguintes, c.notas)


def three_lines_three_questions(s, m):
    one = s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id == 1)).all()
    two = s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id == 2)).all()
    three = s.scalars(select(m.Mensagem).where(m.Mensagem.conversa_id == 4)).all()
    return one, two, three


def different_texts_in_a_loop(s, m):
    for model in (m.Plano, m.Cliente, m.Conversa, m.Mensagem):
        s.scalars(select(model)).all()


def identity_map(s, m):
    found = s.scalars(roots(m)).all()
    for c in found:
        s.get(m.Conversa, c.id)


def null_keys(s, m):
    s.execute(update(m.Conversa).values(anterior_id=None))
    [c.anterior for c in s.scalars(roots(m))]


def many_rows_at_once(s, m):
    for start in range(0, 60, 10):
        s.execute(insert(m.Etiqueta), [{"nome": f"{start + k}"} for k in range(10)])


def objects_in_one_flush(s, m):
    s.add_all([m.Etiqueta(nome=f"x{k}") for k in range(50)])
    s.commit()


def changes_in_one_flush(s, m):
    for c in s.scalars(roots(m)):
        c.status = "fechada"
    s.commit()


def few_writes(s, m):
    for k in range(4):
        s.execute(insert(m.Etiqueta).values(nome=f"{k}"))


def sessions_by_design(s, m):
    for tenant in range(1, 6):
        with Session(s.get_bind()) as own:
            own.scalars(select(m.Cliente).where(m.Cliente.id == tenant)).all()


def retries(s, m):
    for _ in range(4):
        try:
            s.execute(text("SELECT * FROM not_there WHERE id = :id"), {"id": 1})
        except exc.OperationalError:
            s.rollback()


def savepoints(s, m):
    for number in range(6):
        with s.begin_nested():
            if number == 0:
                s.get(m.Conversa, 1)


def polymorphic_loading(s, m):
    statement = select(m.Mensagem).options(selectin_polymorphic(m.Mensagem, [m.Audio]))
    [getattr(x, "segundos", 0) for x in s.scalars(statement)]


def undeferred(s, m):
    [c.resumo for c in s.scalars(roots(m).options(undefer(m.Conversa.resumo)))]


def pragmas(s, m):
    for table in ("conversas", "clientes", "planos", "fichas"):
        s.execute(text(f"PRAGMA table_info({table})")).all()


def streamed(s, m):
    for part in s.scalars(roots(m).execution_options(yield_per=2)).partitions():
        list(part)


def streamed_with_selectin(s, m):
    statement = roots(m).options(selectinload(m.Conversa.etiquetas)).execution_options(yield_per=1)
    [c.etiquetas for c in s.scalars(statement)]


def preloaded_and_read_once(s, m):
    found = s.scalars(roots(m).options(*preload(m.Conversa, "mensagens"))).all()
    show(found[-1].mensagens)


def preloaded_for_nobody(s, m):
    s.scalars(roots(m).where(m.Conversa.id < 0).options(*preload(m.Conversa, "mensagens", "cliente"))).all()


def preloaded_behind_nothing(s, m):
    query = select(m.Cliente).where(m.Cliente.plano_id.is_(None)).options(*preload(m.Cliente, "ficha", "rascunho"))
    [(c.ficha, c.rascunho) for c in s.scalars(query)]


def preloaded_before_delete(s, m):
    for c in s.scalars(roots(m).where(m.Conversa.id == 6).options(*preload(m.Conversa, "mensagens"))).all():
        s.delete(c)
    s.flush()


def preloaded_to_be_replaced(s, m):
    for c in s.scalars(roots(m).options(*preload(m.Conversa, "etiquetas"))).all():
        c.etiquetas = []


def preloaded_twice_on_one_object(s, m):
    first = s.scalars(select(m.Cliente).options(*preload(m.Cliente, "plano"))).all()
    [c.cliente.plano for c in s.scalars(roots(m).options(*preload(m.Conversa, "cliente.plano")))]
    show(first)


def preloaded_and_read_through_the_base(s, m):
    query = select(m.Audio).options(*preload(m.Audio, "conversa"))
    [x.conversa for x in s.scalars(query)]


def joined_by_the_query_itself(s, m):
    query = roots(m).join(m.Conversa.cliente).options(contains_eager(m.Conversa.cliente))
    [c.status for c in s.scalars(query.where(m.Cliente.nome > ""))]


INNOCENT = {
    function.__name__: Case(function)
    for function in (
        preloaded,
        preloaded_onto,
        preloaded_and_read_once,
        preloaded_for_nobody,
        preloaded_behind_nothing,
        preloaded_before_delete,
        preloaded_to_be_replaced,
        preloaded_twice_on_one_object,
        preloaded_and_read_through_the_base,
        joined_by_the_query_itself,
        by_hand_selectin,
        by_hand_joined,
        by_hand_subquery,
        chunks_of_selectin,
        chunks_by_hand,
        pages_by_hand,
        two_objects,
        one_object_many_relations,
        three_lines_three_questions,
        different_texts_in_a_loop,
        identity_map,
        null_keys,
        many_rows_at_once,
        objects_in_one_flush,
        changes_in_one_flush,
        few_writes,
        sessions_by_design,
        retries,
        savepoints,
        polymorphic_loading,
        undeferred,
        pragmas,
        streamed,
        streamed_with_selectin,
    )
}


def same(statement):
    return statement


def evaluated(fix, models):
    """Apply a fix text to a statement, as its reader would."""
    names = {**vars(models), "preload": preload, "undefer": undefer}
    return lambda statement: eval(f"statement{fix}", {**names, "statement": statement})


@pytest.fixture
def watched(engine):
    """The engine, watched."""
    installed = install(engine, batching="off")
    yield engine
    installed.remove()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_missing_preload_is_found_and_its_fix_works(name, watched, models):
    """The finding names relationship and line, and adding its text to the statement makes it vanish."""
    case = OPTIONS[name]
    with Session(watched) as session:
        session.add_all([models.Audio(conversa_id=1, texto="a", segundos=1) for _ in range(3)])
        session.commit()
    with Session(watched) as session, count_queries() as queries:
        case.run(session, models, same)
    (finding,) = queries.findings
    assert (finding.kind, finding.path) == (case.kind, case.path)
    assert finding.file == __file__
    assert finding.function.split(".")[0] == case.run.__name__
    with Session(watched) as session, count_queries() as fixed:
        case.run(session, models, evaluated(finding.fix, models))
    assert fixed.findings == []
    assert fixed.count < queries.count


@pytest.mark.parametrize("name", WRITTEN)
def test_a_loop_is_found_and_vanishes_when_written_as_one(name, watched, models):
    """Loops that no loader option cures are found at their line; written as the fix says, they are not."""
    case = WRITTEN[name]
    with Session(watched) as session, count_queries() as queries:
        case.run(session, models)
    (finding,) = queries.findings
    assert finding.kind == case.kind
    assert finding.path.startswith(case.path)
    assert (finding.file, finding.function.split(".")[0]) == (__file__, case.run.__name__)
    assert finding.fix
    with Session(watched) as session, count_queries() as fixed:
        case.fixed(session, models)
    assert fixed.findings == []


@pytest.mark.parametrize("name", UNREAD)
def test_a_preload_that_nobody_reads_is_found_and_its_fix_works(name, watched, models):
    """The finding names relationship, line and the path to take out, and taking it out makes it vanish."""
    case = UNREAD[name]
    with Session(watched) as session, count_queries() as queries:
        case.run(session, models, ())
    (finding,) = queries.findings
    assert (finding.kind, finding.path) == (case.kind, case.path)
    assert (finding.file, finding.function) == (__file__, case.run.__name__)
    (out,) = re.findall(r'^take "([^"]+)" out', finding.fix)
    with Session(watched) as session, count_queries() as fixed:
        case.run(session, models, (out,))
    assert fixed.findings == []


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_code_is_left_alone(name, watched, models):
    """Batches, pages, chunks, retries, tenants and different questions are no findings."""
    with Session(watched) as session, count_queries() as queries:
        INNOCENT[name].run(session, models)
    assert queries.findings == []
    assert queries.count > 0


async def test_the_same_under_asyncio(models, tmp_path):
    """An awaited lazy load is found at the user's line, through SQLAlchemy's greenlet."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/corpus.db")
    installed = install(engine, batching="off")
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
        await connection.execute(insert(models.Cliente), [{"id": k, "nome": "c"} for k in range(1, 5)])

    async def walk(plan):
        async with AsyncSession(engine) as session:
            for cliente in (await session.scalars(plan(select(models.Cliente)))).all():
                await session.run_sync(lambda _, c=cliente: c.ficha)

    async def many():
        async with AsyncSession(engine) as session:
            for number in range(1, 5):
                await session.get(models.Cliente, number)

    with count_queries() as queries:
        await walk(same)
        await asyncio.create_task(many())
    first, second = sorted(queries.findings, key=lambda finding: finding.path, reverse=True)
    assert (first.path, first.file, first.kind) == ("Cliente.ficha", __file__, "n_plus_one")
    assert (second.path, second.function.split(".")[-1]) == ("Cliente", "many")
    with count_queries() as fixed:
        await walk(evaluated(first.fix, models))
    assert fixed.findings == []
    installed.remove()
    await engine.dispose()


def test_the_corpus_is_large_enough():
    """At least forty labelled pieces of code, guilty and innocent."""
    assert len(OPTIONS) + len(WRITTEN) + len(UNREAD) + len(INNOCENT) >= 40
