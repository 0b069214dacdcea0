"""Keyset pages, streams and replicas on PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import create_engine, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf.queries import DataLoader, ReplicaRouter, keyset_page, stream


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(primary_key=True)
    nota: Mapped[int | None]
    nome: Mapped[str | None]


ORDERS = (
    (Linha.nota,),
    (Linha.nota.desc(), Linha.nome),
    (Linha.nota.asc().nulls_first(), Linha.nome.desc().nulls_last()),
    (func.lower(Linha.nome).desc(),),
    (Linha.id.desc(),),
)


def fill(session):
    Base.metadata.create_all(session.connection())
    rows = [{"id": k, "nota": (None, 1, 2, 2)[k % 4], "nome": ("A", "b", None)[k % 3]} for k in range(23)]
    session.execute(insert(Linha), rows)


def walked(session):
    """Every order forwards and back, in pages of four, is the sorted list."""
    fill(session)
    for order in ORDERS:
        statement = select(Linha).order_by(*order)
        expected = list(session.scalars(statement.order_by(Linha.id)))
        found, cursor = [], None
        while not found or cursor is not None:
            page = keyset_page(session, statement, after=cursor, size=4)
            found += page.items
            cursor = page.next
        assert found == expected
        found, cursor = list(page.items), page.previous
        while cursor is not None:
            page = keyset_page(session, statement, after=cursor, size=4)
            found[:0] = page.items
            cursor = page.previous
        assert found == expected


async def test_pages_are_the_sorted_list(postgres_url):
    """Pages walk PostgreSQL's own order of NULLs and texts, with both drivers."""
    engine = create_async_engine(postgres_url)
    async with AsyncSession(engine) as session:
        await session.run_sync(walked)
        assert (await keyset_page(session, select(Linha).order_by(Linha.nota.desc()), size=2)).items[0].nota is None
        await session.rollback()
    await engine.dispose()

    def work():
        blocking = create_engine(postgres_url.replace("asyncpg", "psycopg"))
        with Session(blocking) as session:
            walked(session)
        blocking.dispose()

    await asyncio.to_thread(work)


async def test_streams_and_loaders(postgres_url):
    """A stream reads windows through a server-side cursor; a loader asks once for what many ask for."""
    engine = create_async_engine(postgres_url)
    async with AsyncSession(engine) as session:
        await session.run_sync(fill)
        await session.commit()
        sizes = [len(window) async for window in stream(session, select(Linha), window=10)]
        assert sizes == [10, 10, 3]
    calls = []

    async def load(session, keys):
        calls.append(keys)
        found = await session.execute(select(Linha.id, Linha.nome).where(Linha.id.in_(keys)))
        return {row.id: row.nome for row in found}

    loads = DataLoader(lambda: AsyncSession(engine), load)
    assert await asyncio.gather(*(loads.load(k) for k in (0, 1, 2, 99))) == ["A", "b", None, None]
    assert calls == [[0, 1, 2, 99]]
    await engine.dispose()


FAKE = """
CREATE SCHEMA fake;
CREATE TABLE fake.replayed (lsn pg_lsn);
INSERT INTO fake.replayed VALUES ('0/0');
CREATE FUNCTION fake.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT lsn FROM fake.replayed'
"""


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_replica_serves_readers_once_it_has_caught_up(postgres_url, driver):
    """Until a replica has replayed a reader's commit the primary answers; after that, or within the wait, it does."""
    primary = create_async_engine(postgres_url.replace("asyncpg", driver))
    async with primary.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for statement in FAKE.split(";\n"):
            await connection.execute(text(statement))
    path = "fake,pg_catalog,public"  # a function of our own answers in the place of the server's
    settings = (
        {"server_settings": {"search_path": path}} if driver == "asyncpg" else {"options": f"-c search_path={path}"}
    )
    replica = create_async_engine(postgres_url.replace("asyncpg", driver), connect_args=settings)
    where = select(func.current_setting("search_path"))

    async def replay():
        async with primary.begin() as connection:
            await connection.execute(text("UPDATE fake.replayed SET lsn = pg_current_wal_insert_lsn()"))

    make = ReplicaRouter(primary, [replica]).sessions()
    async with make(info={"reader": 7}) as session:
        assert await session.scalar(where) == path
        session.add(Linha(nota=1))
        await session.commit()
        assert await session.scalar(where) != path
        await session.rollback()
        async with make(info={"reader": 8}) as other:
            assert await other.scalar(where) == path
        await replay()
        assert await session.scalar(where) == path

    make = ReplicaRouter(primary, [replica], wait=30).sessions()
    async with make(info={"reader": 7}) as session:
        session.add(Linha(nota=2))
        await session.commit()
        waiting = asyncio.create_task(session.scalar(where))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await replay()
        assert await waiting == path
    await primary.dispose()
    await replica.dispose()
