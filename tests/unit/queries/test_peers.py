"""Peer batching: how many statements each kind of access takes, who is served, and who is left alone."""

import asyncio
import gc
import pickle
import warnings
import weakref

import pytest
from sqlalchemy import ForeignKey, create_engine, event, insert, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, defer, mapped_column, raiseload, sessionmaker
from sqlalchemy.orm.exc import ObjectDeletedError
from sqlalchemy.pool import StaticPool

from isp_perf.queries import BatchingWarning, count_queries, install


@pytest.fixture
def peers(engine):
    """A factory of sessions that batch."""
    factory = sessionmaker(engine)
    handle = install(factory)
    yield factory
    handle.remove()


@pytest.fixture
def found(peers, models, statements):
    """Six conversations of one query; statements are counted from here."""
    with peers() as session:
        loaded = session.scalars(select(models.Conversa).order_by(models.Conversa.id)).all()
        statements.take()
        yield loaded


@pytest.mark.parametrize(
    ("read", "count"),
    [
        (lambda c: c.mensagens, 1),
        (lambda c: c.etiquetas, 1),
        (lambda c: c.cliente, 1),
        (lambda c: c.seguintes, 1),
        (lambda c: c.resumo, 1),
        (lambda c: c.notas, 1),
        (lambda c: [m.texto for m in c.mensagens], 1),
        (lambda c: (c.cliente.plano, c.cliente.ficha), 3),
        (lambda c: [m.trechos for m in c.mensagens if m.tipo == "audio"], 2),
    ],
    ids=[
        "list",
        "many-to-many",
        "to-one",
        "self-reference",
        "deferred",
        "empty lists",
        "columns",
        "nested",
        "subclass",
    ],
)
def test_one_touch_loads_for_all(found, statements, read, count):
    """Each kind of attribute costs one statement for all objects, however deep it lies."""
    for conversa in found:
        read(conversa)
    assert statements.take() == count


def test_rows_expired_by_commit_come_back_together(found, statements):
    """The first touch after a commit refreshes every object of the query."""
    found[0]._sa_instance_state.session.commit()
    assert [c.status for c in found] == ["aberta"] * 6
    assert statements.take() == 1


def test_targets_that_are_there_already_are_not_asked_for(found, statements):
    """A to-one whose target the session holds, and a NULL key, send nothing; a key that points nowhere asks once."""
    assert [c.anterior and c.anterior.id for c in found] == [None, 1, None, 3, 4, None]
    assert statements.take() == 1


def test_what_was_set_or_appended_is_kept(found, models, statements):
    """An attribute that has a value, and a list with pending appends, are not overwritten by a batch."""
    session = Session.object_session(found[0])
    with session.no_autoflush:
        found[0].mensagens = []
        new = models.Mensagem(texto="nova", tipo="texto", conversa=found[1])
        assert [len(c.mensagens) for c in found[2:]] == [0, 2, 0, 0]
        assert statements.take() == 1
        assert found[0].mensagens == []
        assert found[1].mensagens[-1] is new
        assert len(found[1].mensagens) == 8


def test_objects_of_two_queries_are_two_groups(peers, models, statements):
    """Only objects of the same execution are peers."""
    with peers() as session:
        first = session.scalars(select(models.Conversa).where(models.Conversa.id < 4)).all()
        second = session.scalars(select(models.Conversa).where(models.Conversa.id > 3)).all()
        statements.take()
        assert len(first[0].mensagens) == 7
        assert "mensagens" not in vars(second[0])
        [c.mensagens for c in (*first, *second)]
        assert statements.take() == 2


def test_no_object_is_kept_alive(peers, models):
    """Batching holds objects weakly: what the program drops is gone."""
    with peers() as session:
        loaded = session.scalars(select(models.Conversa).order_by(models.Conversa.id)).all()
        assert loaded[0].mensagens
        reference = weakref.ref(loaded[5])
        del loaded
        gc.collect()
        assert reference() is None


def test_batching_can_be_switched_off_for_a_statement(peers, models, statements):
    """`isp_batching="off"` among the execution options leaves a statement's objects alone."""
    with peers() as session:
        statement = select(models.Conversa).execution_options(isp_batching="off")
        loaded = session.scalars(statement).all()
        statements.take()
        [c.mensagens for c in loaded]
        assert statements.take() == 6


def test_other_sessions_are_left_alone(found, models, session, statements):
    """A session of another factory loads lazily, one by one."""
    loaded = session.scalars(select(models.Conversa)).all()
    statements.take()
    [c.mensagens for c in loaded]
    assert statements.take() == 6


def test_an_engine_serves_its_own_sessions(engine, models, statements):
    """Installed on an engine, sessions bound to it batch, and sessions of other engines do not; twice is once."""
    handle = install(engine)
    assert install(engine) is handle
    other = create_engine("sqlite://", poolclass=StaticPool)
    models.Base.metadata.create_all(other)
    with Session(engine) as session, count_queries() as queries:
        [c.mensagens for c in session.scalars(select(models.Conversa)).all()]
    assert (queries.count, handle.stats().batches, handle.stats().peers) == (2, 1, 6)
    handle.remove()
    with Session(engine) as session:
        statements.take()
        [c.mensagens for c in session.scalars(select(models.Conversa)).all()]
    assert statements.take() == 7
    other.dispose()


def test_settings_can_be_changed_by_installing_again(engine, models, statements):
    """`batching="off"` on the second call stops batching."""
    handle = install(engine)
    install(engine, batching="off")
    with Session(engine) as session:
        [c.mensagens for c in session.scalars(select(models.Conversa)).all()]
    assert statements.take() == 7
    handle.remove()


def test_a_batch_is_no_finding(peers, models):
    """What batching answers is not reported as N+1."""
    with peers() as session, count_queries() as queries:
        [c.mensagens for c in session.scalars(select(models.Conversa)).all()]
    assert queries.findings == []


def test_a_failing_batch_leaves_every_attribute_unloaded(found, engine):
    """An error in the batch reaches the caller who touched, and no object got a half-loaded attribute."""

    def fail(cursor, statement, parameters, context):
        if "mensagens" in statement:
            raise OperationalError(statement, None, Exception("lost"))

    event.listen(engine, "do_execute", fail)
    with pytest.raises(OperationalError):
        len(found[0].mensagens)
    assert all("mensagens" not in vars(c) for c in found)
    event.remove(engine, "do_execute", fail)
    assert [len(c.mensagens) for c in found] == [7, 7, 0, 2, 0, 0]


def test_a_row_that_is_gone_is_gone_for_its_object_alone(found, engine):
    """After a commit a deleted row raises for its own object; the others are refreshed."""
    session = Session.object_session(found[0])
    session.commit()
    session.execute(text("DELETE FROM conversas WHERE id = 6"))
    assert [c.status for c in found[:5]] == ["aberta"] * 5
    with pytest.raises(ObjectDeletedError):
        str(found[5].status)


def test_raiseload_keeps_its_meaning(peers, models):
    """An attribute that must not be loaded is not loaded for anybody."""
    from sqlalchemy.exc import InvalidRequestError

    with peers() as session:
        loaded = session.scalars(select(models.Conversa).options(raiseload(models.Conversa.mensagens))).all()
        with pytest.raises(InvalidRequestError, match="raise"):
            len(loaded[0].mensagens)


def test_columns_left_out_by_the_query(peers, models, statements):
    """A column deferred by an option is loaded for all in one statement as well."""
    with peers() as session:
        loaded = session.scalars(select(models.Conversa).options(defer(models.Conversa.status))).all()
        statements.take()
        assert [c.status for c in loaded] == ["aberta"] * 6
        assert statements.take() == 1


def test_refreshing_one_object_refreshes_one(found, statements):
    """`session.refresh` and a changed key are the object's own business."""
    session = Session.object_session(found[0])
    session.refresh(found[0])
    assert statements.take() == 1
    with session.no_autoflush:
        found[0].cliente_id = 4
        assert found[0].cliente.id == 4
        assert "cliente" not in vars(found[1])


def test_objects_can_be_pickled(found):
    """A pickled object carries no more than before, and the mark stays the one mark."""
    from isp_perf.queries._compat import PEER_MARK

    copy = pickle.loads(pickle.dumps(PEER_MARK))
    assert copy is PEER_MARK


def test_an_unknown_sqlalchemy_falls_back_with_a_warning(engine, models, monkeypatch, statements):
    """Where the loader is not the known one, lazy loads stay plain and one warning says so."""
    monkeypatch.setattr("isp_perf.queries._install.can_batch", lambda: False)
    with pytest.warns(BatchingWarning, match=r"SQLAlchemy 2\.0 or 2\.1"):
        handle = install(engine)
    with Session(engine) as session:
        [c.mensagens for c in session.scalars(select(models.Conversa)).all()]
    assert statements.take() == 7
    handle.remove()


# ---- asyncio ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def asynchronous(models, tmp_path):
    """A factory of batching async sessions on a file, and their engine."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/peers.db")
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
        await connection.execute(insert(models.Cliente), [{"id": k, "nome": f"c{k}"} for k in range(1, 21)])
        await connection.execute(
            insert(models.Conversa),
            [{"id": k, "status": "aberta", "cliente_id": k, "resumo": "r"} for k in range(1, 21)],
        )
    factory = async_sessionmaker(engine)
    handle = install(factory)
    yield factory
    handle.remove()
    await engine.dispose()


async def touch(session, item, name):
    """Await an attribute, as `awaitable_attrs` does."""
    return await session.run_sync(lambda _: getattr(item, name))


async def test_awaiting_one_makes_plain_access_legal(asynchronous, models):
    """After one awaited touch the attribute of every other object is read without a greenlet."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        await touch(session, loaded[0], "cliente")
        assert {c.cliente.nome for c in loaded} == {f"c{k}" for k in range(1, 21)}


@pytest.mark.parametrize("name", ["cliente", "mensagens", "resumo", "etiquetas"])
async def test_gather_is_one_statement(asynchronous, models, name):
    """Touching one attribute of all objects at the same time is one statement."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        with count_queries() as queries:
            await asyncio.gather(*(touch(session, item, name) for item in loaded))
    assert queries.count == 1


async def test_gather_over_expired_rows_is_one_statement(asynchronous, models):
    """After a commit all objects are refreshed by one statement, whoever asks first."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        await session.commit()
        with count_queries() as queries:
            assert set(await asyncio.gather(*(touch(session, item, "status") for item in loaded))) == {"aberta"}
    assert queries.count == 1


async def test_different_attributes_wait_for_one_another(asynchronous, models):
    """Several attributes at the same time queue up on the session instead of failing."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        with count_queries() as queries:
            names = ("cliente", "mensagens", "resumo", "etiquetas")
            await asyncio.gather(*(touch(session, item, name) for item in loaded for name in names))
    assert queries.count == 4


@pytest.mark.parametrize("cancelled", [[0], [1, 5, 9], list(range(19))])
async def test_a_cancelled_caller_harms_nobody(asynchronous, models, cancelled):
    """Whoever is cancelled, the others get their values, and the session stays usable."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        tasks = [asyncio.ensure_future(touch(session, item, "mensagens")) for item in loaded]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) if number in cancelled else result == []
        assert (await session.scalars(select(models.Cliente))).first() is not None


async def test_everybody_gets_the_error_of_a_failing_batch(asynchronous, models):
    """All that wait for a batch get its error, and nothing is loaded."""
    async with asynchronous() as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        await session.execute(text("DROP TABLE etiquetas_da_conversa"))
        tasks = [touch(session, item, "etiquetas") for item in loaded]
        with warnings.catch_warnings():
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {OperationalError}
        assert all("etiquetas" not in vars(item) for item in loaded)


async def test_plain_async_sessions_are_left_alone(asynchronous, models):
    """Installing on one factory does not change the session class that others share."""
    engine = asynchronous.kw["bind"]
    async with AsyncSession(engine) as session:
        loaded = (await session.scalars(select(models.Conversa))).all()
        with count_queries() as queries:
            for item in loaded:
                await touch(session, item, "mensagens")
    assert queries.count == 20


def test_columns_of_a_grandchild_come_for_all_rows_of_its_kind(tmp_path):
    """Objects read through their base class load the columns of two further tables in one statement for all."""

    class Own(DeclarativeBase):
        pass

    class Coisa(Own):
        __tablename__ = "coisas"
        id: Mapped[int] = mapped_column(primary_key=True)
        tipo: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "tipo", "polymorphic_identity": "coisa"}

    class Carta(Coisa):
        __tablename__ = "cartas"
        id: Mapped[int] = mapped_column(ForeignKey("coisas.id"), primary_key=True)
        texto: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "carta"}

    class Recibo(Carta):
        __tablename__ = "recibos"
        id: Mapped[int] = mapped_column(ForeignKey("cartas.id"), primary_key=True)
        valor: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "recibo"}

    engine = create_engine(f"sqlite:///{tmp_path}/coisas.db")
    Own.metadata.create_all(engine)
    factory = sessionmaker(engine)
    handle = install(factory)
    with factory.begin() as session:
        session.add_all(Recibo(texto=f"t{k}", valor=k) for k in range(4))
    with factory() as session:
        found = session.scalars(select(Coisa).order_by(Coisa.id)).all()
        with count_queries() as queries:
            assert [(recibo.texto, recibo.valor) for recibo in found] == [(f"t{k}", k) for k in range(4)]
    assert queries.count == 1
    handle.remove()
    engine.dispose()


def test_the_mark_is_no_option_of_the_users(peers, models):
    """A listener that looks through the options of a statement meets those that its user gave, and no other."""
    seen = []
    event.listen(peers, "do_orm_execute", lambda execution: seen.append(list(execution.user_defined_options)))
    with peers() as session:
        _ = session.scalars(select(models.Conversa)).all()[0].mensagens
    assert len(seen) >= 2
    assert not any(seen)
