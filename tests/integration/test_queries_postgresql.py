"""Preloading, batching and watching on PostgreSQL, with asyncpg and, where it is installed, psycopg."""

import asyncio
import importlib.util
from typing import NamedTuple

import pytest
from sqlalchemy import ForeignKey, Index, create_engine, event, insert, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from isp_perf.queries import count_queries, install, preload, preload_into, read_records


class Base(DeclarativeBase):
    pass


class Cliente(Base):
    __tablename__ = "clientes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id"))
    resumo: Mapped[str] = mapped_column(deferred=True)
    cliente: Mapped[Cliente] = relationship()
    mensagens: Mapped[list["Mensagem"]] = relationship(order_by="Mensagem.id")
    notadas: Mapped[list["Mensagem"]] = relationship(
        viewonly=True, order_by="[Mensagem.nota.desc().nulls_last(), Mensagem.id]"
    )
    partes: Mapped[list["Parte"]] = relationship(viewonly=True, order_by="Parte.numero")


class Mensagem(Base):
    __tablename__ = "mensagens"
    __table_args__ = (Index("ix_c", "conversa_id", "id"), Index("ix_n", "conversa_id", "nota", "id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    nota: Mapped[int | None]
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"))


class Parte(Base):
    __tablename__ = "partes"
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"), primary_key=True)
    numero: Mapped[int] = mapped_column(primary_key=True)


async def fill(engine):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Cliente), [{"id": k, "nome": f"c{k}"} for k in range(1, 31)])
        await connection.execute(insert(Conversa), [{"id": k, "cliente_id": k, "resumo": "r"} for k in range(1, 31)])
        notes = [3, None, 1, 3, 2, None]
        await connection.execute(
            insert(Mensagem),
            [{"conversa_id": c, "nota": note} for c in range(1, 31) if c % 3 for note in notes],
        )


@pytest.fixture
async def factory(postgres_url):
    """A factory of batching async sessions on asyncpg."""
    engine = create_async_engine(postgres_url)
    await fill(engine)
    factory = async_sessionmaker(engine)
    handle = install(factory)
    yield factory
    handle.remove()
    await engine.dispose()


def by_note(message):
    return (message.nota is None, -(message.nota or 0), message.id)


async def test_preload_and_limits(factory):
    """Plans take their statements, and a limit by LATERAL keeps the rows of load, sort and slice."""
    with count_queries() as queries:
        async with factory() as session:
            for limit in (2, -2):
                plan = preload(Conversa, "cliente", "mensagens", "notadas", limit={"notadas": limit})
                found = (await session.scalars(select(Conversa).options(*plan))).all()
                for conversa in found:
                    ordered = sorted(conversa.mensagens, key=by_note)
                    assert conversa.notadas == (ordered[:limit] if limit > 0 else ordered[limit:])
                    assert conversa.cliente.nome == f"c{conversa.id}"
                session.expunge_all()
    assert queries.count == 6


async def test_a_limit_with_a_composite_key(factory):
    """Rows that two columns identify are cut off per parent like any others."""
    async with factory() as session:
        await session.execute(insert(Parte), [{"conversa_id": c, "numero": n} for c in range(1, 11) for n in range(c)])
        found = await session.scalars(select(Conversa).options(*preload(Conversa, "partes", limit=-3)))
        kept = {conversa.id: [parte.numero for parte in conversa.partes] for conversa in found}
    assert kept == {c: list(range(c))[-3:] if c <= 10 else [] for c in range(1, 31)}


async def test_a_limit_reads_no_row_it_does_not_keep(factory):
    """The rows per parent come from the index on parent and order, backwards for the last ones."""
    sent = []
    async with factory() as session:
        engine = session.bind.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2:4]))
        (await session.scalars(select(Conversa).options(*preload(Conversa, "mensagens", limit=-2)))).all()
        statement, parameters = sent[-1]
        connection = await session.connection()
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars())
    assert "Backward using ix_c on mensagens" in plan
    assert "Seq Scan" not in plan
    assert "Index Cond: (id = ANY (" in plan


async def test_preload_into(factory):
    """Objects already loaded get their relationships in one statement each and one for their keys."""
    async with factory() as session:
        found = (await session.scalars(select(Conversa))).all()
        with count_queries() as queries:
            await preload_into(session, found, "cliente", "mensagens")
        assert {len(c.mensagens) for c in found} == {0, 6}
    assert queries.count == 2


@pytest.mark.parametrize("name", ["mensagens", "cliente", "resumo"])
async def test_gather_is_one_statement(factory, name):
    """One attribute of all objects at the same time is one statement on the one connection."""
    async with factory() as session:
        found = (await session.scalars(select(Conversa))).all()
        with count_queries() as queries:
            await asyncio.gather(*(session.run_sync(lambda _, c=c: getattr(c, name)) for c in found))
    assert queries.count == 1


async def test_several_attributes_and_expired_rows(factory):
    """Different attributes queue up, and rows expired by commit come back in one statement."""
    async with factory() as session:
        found = (await session.scalars(select(Conversa))).all()
        await session.commit()
        with count_queries() as queries:
            for names in (("cliente_id",), ("mensagens", "cliente", "resumo")):
                work = [session.run_sync(lambda _, c=c, n=n: getattr(c, n)) for c in found for n in names]
                await asyncio.gather(*work)
    assert queries.count == 4


async def test_a_cancelled_caller_harms_nobody(factory):
    """The first caller leaves; the others get their lists and the transaction goes on."""
    async with factory() as session:
        found = (await session.scalars(select(Conversa))).all()
        tasks = [asyncio.ensure_future(session.run_sync(lambda _, c=c: c.mensagens)) for c in found]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert {len(result) for result in results[1:]} == {0, 6}
        assert await session.scalar(select(Cliente.nome).where(Cliente.id == 1)) == "c1"


async def test_a_failing_batch_reaches_everybody(factory):
    """A statement the server refuses raises for all callers and loads nothing."""
    async with factory() as session:
        found = (await session.scalars(select(Conversa))).all()
        await session.execute(text("ALTER TABLE mensagens RENAME TO gone"))
        work = [session.run_sync(lambda _, c=c: c.mensagens) for c in found]
        results = await asyncio.gather(*work, return_exceptions=True)
        assert {type(result).__name__ for result in results} == {"ProgrammingError"}
        assert all("mensagens" not in vars(c) for c in found)
        await session.rollback()


class ClienteLido(NamedTuple):
    id: int
    nome: str


class MensagemLida(NamedTuple):
    id: int
    nota: int | None


class ConversaLida(NamedTuple):
    id: int
    cliente: ClienteLido
    notadas: list[MensagemLida]
    resumo: str


def lida(conversa):
    cliente = ClienteLido(conversa.cliente.id, conversa.cliente.nome)
    notadas = [MensagemLida(m.id, m.nota) for m in conversa.notadas]
    return ConversaLida(conversa.id, cliente, notadas, conversa.resumo)


async def test_records(factory):
    """Records hold what the objects hold, in one statement for each list, on the first run and on later ones."""
    async with factory() as session:
        for most in (10, 30, 0):
            statement = select(Conversa).where(Conversa.id <= most).order_by(Conversa.id)
            found = (await session.scalars(statement)).all()
            await preload_into(session, found, "cliente", "notadas")
            expected = await session.run_sync(lambda _, found=found: [lida(conversa) for conversa in found])
            with count_queries() as queries:
                read = await read_records(session, statement, into=ConversaLida, preload=("cliente", "notadas"))
            assert read == expected
            assert queries.count == (2 if most else 1)


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed")
async def test_the_same_with_psycopg(factory, postgres_url):
    """The blocking driver gives the same rows in the same number of statements."""

    def work():
        engine = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
        handle = install(engine)
        with sessionmaker(engine)() as session, count_queries() as queries:
            plan = preload(Conversa, "notadas", limit=2)
            for conversa in session.scalars(select(Conversa).options(*plan)):
                assert conversa.notadas == sorted(conversa.mensagens, key=by_note)[:2]
        assert queries.count == 3
        with sessionmaker(engine)() as session:
            for most in (10, 30):
                statement = select(Conversa).where(Conversa.id <= most).order_by(Conversa.id)
                expected = [lida(conversa) for conversa in session.scalars(statement)]
                assert read_records(session, statement, into=ConversaLida, preload=("cliente", "notadas")) == expected
        with count_queries() as loop, sessionmaker(engine)() as session:
            for number in range(1, 6):
                session.get(Conversa, number)
        assert [finding.kind for finding in loop.findings] == ["n_plus_one"]
        handle.remove()
        engine.dispose()

    await asyncio.to_thread(work)


async def test_watching_may_begin_before_the_first_connection(postgres_url):
    """What the dialect itself asks of its first connection belongs to nobody, and does not stop it from connecting."""
    engine = create_async_engine(postgres_url)
    handle = install(engine, detect="warn")
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    handle.remove()
    await engine.dispose()
