"""Cached queries on PostgreSQL: asyncpg and, where it is installed, psycopg."""

import asyncio
import importlib.util
import time

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf import CacheManager
from isp_perf.queries import bulk_insert, bulk_upsert, cached_query, invalidation_ddl, listen


class Base(DeclarativeBase):
    pass


class Cliente(Base):
    __tablename__ = "clientes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id", ondelete="CASCADE"))


@pytest.fixture
def manager():
    return CacheManager()


@pytest.fixture
def names(manager):
    @cached_query(manager, ttl=60)
    def names():
        return select(Cliente.nome).order_by(Cliente.id)

    return names


@pytest.fixture
async def engine(postgres_url):
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Cliente), [{"id": 1, "nome": "ana"}])
        await connection.execute(insert(Conversa), [{"id": 1, "cliente_id": 1}])
    yield engine
    await engine.dispose()


@pytest.fixture
def plain(engine, postgres_url):
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    plain = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
    yield plain
    plain.dispose()


ROWS = [{"id": number, "nome": f"c{number}"} for number in range(2, 400)]
WRITES = {
    "flush": lambda s: s.add(Cliente(id=2, nome="bia")),
    "copy": lambda s: bulk_insert(s, Cliente, ROWS),
    "upsert": lambda s: bulk_upsert(s, Cliente, ROWS),
    "update": lambda s: s.execute(update(Cliente).values(nome="z")),
    "delete": lambda s: s.execute(delete(Cliente)),
    "truncate": lambda s: s.execute(text("TRUNCATE TABLE ONLY public.clientes, conversas")),
    "hidden write": lambda s: s.execute(text("WITH x AS (DELETE FROM clientes RETURNING id) SELECT * FROM x")),
    "block": lambda s: s.execute(text("DO $$ BEGIN DELETE FROM clientes; END $$")),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_commit_drops_the_rows(engine, names, write):
    """However the rows are changed, COPY and blocks of code included, who asks after the commit gets the new ones."""
    async with AsyncSession(engine) as writer, AsyncSession(engine) as reader:
        assert await names(reader) == (("ana",),)
        await reader.rollback()
        await writer.run_sync(write)
        await writer.flush()
        assert await names(reader) == (("ana",),)
        await reader.rollback()
        mine = await names(writer)
        assert mine != (("ana",),)
        await writer.commit()
        assert await names(reader) == mine == tuple(map(tuple, await reader.execute(select(Cliente.nome))))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_commit_drops_the_rows_in_threads(plain, names, write):
    """The same with psycopg and plain sessions; a rollback drops nothing."""
    with Session(plain) as writer, Session(plain) as reader:
        assert names(reader) == (("ana",),)
        reader.rollback()
        write(writer)
        writer.rollback()
        assert names(writer) == (("ana",),)
        writer.rollback()
        write(writer)
        mine = names(writer)
        writer.commit()
        assert names(reader) == mine != (("ana",),)


def test_a_snapshot_goes_past_the_cache(plain, names, manager):
    """REPEATABLE READ keeps its own view, and what it reads is nobody else's."""
    with Session(plain.execution_options(isolation_level="REPEATABLE READ")) as old, Session(plain) as new:
        old.execute(select(Conversa.id)).all()
        new.add(Cliente(id=2, nome="bia"))
        new.commit()
        assert names(old) == (("ana",),)
        assert names(new) == (("ana",), ("bia",))
        assert names(old) == (("ana",),)
        old.rollback()
        assert names(old) == (("ana",), ("bia",))


def test_a_lost_connection_counts_as_a_commit(plain, names):
    """When nobody knows whether COMMIT was done, the rows are dropped."""
    with Session(plain) as writer, Session(plain) as reader:
        assert names(reader) == (("ana",),)
        reader.rollback()
        pid = writer.scalar(text("SELECT pg_backend_pid()"))
        writer.add(Cliente(id=2, nome="bia"))
        writer.flush()
        with plain.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(Exception, match=r"terminat|closed"):
            writer.commit()
        reader.connection().exec_driver_sql("SELECT 1")
        assert names(reader) == (("ana",),)


async def foreign(url, statement):
    """Execute a statement as another program would, and return when the commit is done."""
    import asyncpg

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def until(question, expected):
    for limit in [time.monotonic() + 20] * 4000:
        if (met := await question() == expected) or time.monotonic() > limit:
            return met
        await asyncio.sleep(0.005)
    return False


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "psycopg_async"])
async def test_other_programs_are_heard(engine, postgres_url, names, manager, driver):
    """With the printed triggers, what another program commits drops the rows; so does the end of a lost connection."""
    if driver != "asyncpg" and importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    await foreign(postgres_url, invalidation_ddl(Base.metadata))
    make = create_engine if driver == "psycopg" else create_async_engine
    heard = make(postgres_url.replace("+asyncpg", f"+{driver}"))

    async def count():
        async with AsyncSession(engine) as session:
            return len(await names(session))

    with listen(manager, heard) as listening:
        assert await asyncio.to_thread(listening.wait, 20)
        assert await count() == 1
        await foreign(postgres_url, "INSERT INTO clientes VALUES (2, 'bia'), (3, 'caio')")
        assert await until(count, 3)
        await foreign(postgres_url, "DELETE FROM clientes WHERE id = 3")
        assert await until(count, 2)
        assert listening.heard >= 2
        gaps = listening.gaps
        await foreign(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query IN ('SELECT 1', 'LISTEN isp_perf') "
            "OR query LIKE 'LISTEN%'",
        )
        await foreign(postgres_url, "TRUNCATE clientes CASCADE")
        assert await until(count, 0)
        assert await until(lambda: asyncio.to_thread(lambda: listening.gaps >= gaps + 2), expected=True)
        assert await asyncio.to_thread(listening.wait, 20)
        await foreign(postgres_url, "INSERT INTO clientes VALUES (2, 'bia')")
        assert await until(count, 1)
    result = heard.dispose()
    if result is not None:
        await result
