"""Bulk statements on PostgreSQL, with each driver: arrays, COPY, temporary tables."""

import asyncio
import datetime as dt
import enum
import uuid
from decimal import Decimal

import pytest
from sqlalchemy import ARRAY, JSON, BigInteger, Identity, Integer, Numeric, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf.errors import ConfigurationError
from isp_perf.queries import (
    _bulk_postgresql,
    bulk_delete,
    bulk_insert,
    bulk_update,
    bulk_upsert,
    count_queries,
    install,
)


class Cor(enum.Enum):
    AZUL = "azul"
    VERDE = "verde"


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    codigo: Mapped[str] = mapped_column(unique=True)
    numero: Mapped[int | None] = mapped_column(default=7)
    estado: Mapped[str] = mapped_column(server_default="novo")
    mudado: Mapped[str | None] = mapped_column(onupdate=lambda: "sim")
    quando: Mapped[dt.datetime | None] = mapped_column(onupdate=func.now())


class Tudo(Base):
    __tablename__ = "tudo"
    __table_args__ = {"schema": "outro"}
    id: Mapped[int] = mapped_column(primary_key=True)
    texto: Mapped[str | None] = mapped_column("Um Texto")
    valor: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    real: Mapped[float | None]
    sim: Mapped[bool | None]
    dia: Mapped[dt.date | None]
    hora: Mapped[dt.datetime | None]
    intervalo: Mapped[dt.timedelta | None]
    dado: Mapped[bytes | None]
    cor: Mapped[Cor | None]
    chave: Mapped[uuid.UUID | None]
    json: Mapped[object | None] = mapped_column(JSON)
    jsonb: Mapped[object | None] = mapped_column(JSONB)
    lista: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))


def prepare(connection):
    connection.execute(text("CREATE SCHEMA outro"))
    Base.metadata.create_all(connection)


def row(k):
    """Every type, with quotes, tabs, line ends, backslashes and letters beyond the first plane; every third is NULL."""
    values = {
        "texto": f"\\N \t\n\r\\ 'ção' \U0001f600 {k}" if k % 2 else "",
        "valor": Decimal(k) / 4,
        "real": k / 3,
        "sim": k % 2 == 0,
        "dia": dt.date(2000, 1, 1) + dt.timedelta(days=k),
        "hora": dt.datetime.fromisoformat("2000-01-01T12:30:01.000005") + dt.timedelta(hours=k),
        "intervalo": dt.timedelta(seconds=k),
        "dado": bytes([k % 256, 0, 255]),
        "cor": Cor.AZUL if k % 2 else Cor.VERDE,
        "chave": uuid.UUID(int=k),
        "json": {"a": [k, None, "\u00e9"]},
        "jsonb": [k, {"b": "\\"}],
        "lista": [k, k + 1] if k % 2 else [],
    }
    return {"id": k, **(dict.fromkeys(values) if k % 3 == 0 else values)}


def everything(session, size):
    """All four statements, checked against what was given; works for each driver, each way and each size."""
    names = [name for name in row(1) if name != "id"]
    columns = [getattr(Tudo, name) for name in names]
    keep = {"json", "jsonb"}  # a None in JSON is a JSON null, which reads as None again

    def stored():
        found = session.execute(select(Tudo.id, *columns).order_by(Tudo.id)).all()
        return {each[0]: dict(zip(names, each[1:], strict=True)) for each in found}

    def given(numbers, **more):
        return {k: {name: value for name, value in {**row(k), **more}.items() if name != "id"} for k in numbers}

    result = bulk_insert(session, Tudo, (row(k) for k in range(size)))
    assert (result.inserted, keep <= set(names)) == (size, True)
    assert stored() == given(range(size))
    changes = [{**row(k), "texto": "novo", "real": 1.5} for k in range(size // 2, size + 5)]
    result = bulk_upsert(session, Tudo, [*changes, changes[-1]])
    assert (result.inserted, result.updated) == (5, size - size // 2)
    expected = given(range(size // 2)) | given(range(size // 2, size + 5), texto="novo", real=1.5)
    assert stored() == expected
    result = bulk_update(session, Tudo, [{"id": k, "cor": Cor.AZUL, "sim": None} for k in range(size + 9)])
    assert result.rowcount == size + 5
    assert stored() == {k: {**values, "cor": Cor.AZUL, "sim": None} for k, values in expected.items()}
    result = bulk_delete(session, Tudo, [{"id": k} for k in range(1, size + 9)], returning="real")
    assert result.rowcount == size + 4
    assert (result.rows[-1], len(result.rows)) == (None, size + 8)
    assert list(stored()) == [0]
    bulk_delete(session, Tudo, [{"id": 0}])


def defaults(session, size):
    """Defaults, generated keys and changes by another key, with rows that name different attributes."""
    rows = [{"codigo": f"c{k}"} | ({"estado": "dado"} if k % 2 else {}) for k in range(size)]
    assert bulk_insert(session, Linha, rows).inserted == size
    found = session.execute(select(Linha.codigo, Linha.numero, Linha.estado, Linha.mudado)).all()
    assert sorted(found) == sorted((f"c{k}", 7, "dado" if k % 2 else "novo", None) for k in range(size))
    rows = [{"codigo": f"c{k}", "numero": k} for k in range(size + 3)]
    result = bulk_upsert(session, Linha, rows, key=Linha.codigo, returning=("codigo", "numero", "mudado"))
    assert (result.inserted, result.updated) == (3, size)
    assert result.rows == [(f"c{k}", k, "sim" if k < size else None) for k in range(size + 3)]
    result = bulk_insert(session, Linha, [{"codigo": f"r{k}"} for k in range(size)], returning=("id", "codigo"))
    assert [each.codigo for each in result.rows] == [f"r{k}" for k in range(size)]
    assert [each.id for each in result.rows] == sorted(each.id for each in result.rows)
    assert session.scalar(select(func.count()).where(Linha.quando.is_not(None))) == size


def trouble(session, size):
    """Errors are SQLAlchemy's, tell the rows, and leave a transaction that can be rolled back."""
    session.commit()
    with pytest.raises(IntegrityError) as caught:
        bulk_insert(session, Tudo, [{"id": k // 2} for k in range(size)])
    assert caught.value.__notes__ == [f"bulk_insert: while writing rows 0 to {size - 1}"]
    session.rollback()
    for way in (bulk_insert, bulk_upsert):
        with pytest.raises(ConfigurationError, match=f"Tudo.texto.*row {size - 1} has a character U"):
            way(session, Tudo, [{"id": k, "texto": "\0" if k == size - 1 else "x"} for k in range(size)])
        session.rollback()

    def broken():
        yield from ({"id": k} for k in range(size))
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        bulk_insert(session, Tudo, broken(), chunk=size // 2 or 1)
    session.rollback()
    assert session.scalar(select(func.count()).select_from(Tudo)) == 0
    bulk_insert(session, Tudo, [{"id": k} for k in range(size)])
    session.rollback()
    assert session.scalar(select(func.count()).select_from(Tudo)) == 0


CHECKS = (everything, defaults, trouble)
WAYS = {"as chosen": (3, None), "arrays": (40, 10**9), "COPY": (40, 0)}


@pytest.fixture(params=WAYS)
def size(request, monkeypatch):
    """How many rows a check works with, so that it goes one way from its first statement to its last."""
    size, threshold = WAYS[request.param]
    for table in (_bulk_postgresql._COPY_FROM, _bulk_postgresql._STAGE_FROM):
        for driver in table if threshold is not None else ():
            monkeypatch.setitem(table, driver, threshold)
    return size


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async"])
async def test_async_drivers(postgres_url, driver, size):
    """Both async drivers write the same rows, by arrays, COPY and temporary tables."""
    name = "psycopg" if driver == "psycopg_async" else driver
    engine = create_async_engine(postgres_url.replace("asyncpg", name))
    async with engine.begin() as connection:
        await connection.run_sync(prepare)
    for check in CHECKS:
        async with AsyncSession(engine) as session:
            await session.run_sync(check, size)
    await engine.dispose()


async def test_the_blocking_driver(postgres_url, size):
    """So does psycopg without a loop."""

    def work():
        engine = create_engine(postgres_url.replace("asyncpg", "psycopg"))
        with engine.begin() as connection:
            prepare(connection)
        for check in CHECKS:
            with Session(engine) as session:
                check(session, size)
        engine.dispose()

    await asyncio.to_thread(work)


@pytest.mark.parametrize("rows", [20, 5000])
async def test_the_way_is_chosen_by_the_number_of_rows(postgres_url, rows):
    """A few rows are sent with the statement, many are copied."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(prepare)
    handle = install(engine, batching="off")
    async with AsyncSession(engine) as session:
        with count_queries() as inserted:
            await bulk_insert(session, Linha, [{"codigo": str(k), "numero": k} for k in range(rows)])
        with count_queries() as changed:
            await bulk_update(session, Linha, [{"codigo": str(k), "numero": 1} for k in range(rows)], key="codigo")
        copies = [sum(each.text.startswith("COPY") for each in found.statements) for found in (inserted, changed)]
        assert copies == ([1, 1] if rows > 1000 else [0, 0])
    handle.remove()
    await engine.dispose()


async def test_async_sources_counting_and_cancellation(postgres_url):
    """Async rows are read chunk by chunk, COPY is counted, and a cancelled insert leaves nothing and nobody behind."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(prepare)
    handle = install(engine, batching="off")
    reached = asyncio.Event()

    async def rows(stop):
        for k in range(1800):
            if k == stop:
                reached.set()
                await asyncio.sleep(60)
            yield {"id": k}

    async with AsyncSession(engine) as session:
        with count_queries() as queries:
            assert (await bulk_insert(session, Tudo, rows(None), chunk=600)).inserted == 1800
        assert sum(entry.count for entry in queries.statements if entry.text.startswith("COPY")) == 3
        await session.rollback()
    handle.remove()

    async def insert():
        async with AsyncSession(engine) as session:
            await bulk_insert(session, Tudo, rows(900), chunk=300)

    task = asyncio.create_task(insert())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(func.count()).select_from(Tudo)) == 0
    await engine.dispose()
