"""Bars of the bulk statements: ratios within one run, interleaved rounds, medians.

Run with `python benchmarks/test_queries_bulk.py [URL ...]`; without a URL on SQLite. A database behind a URL is
emptied; `postgresql+asyncpg://` and `postgresql+psycopg://` measure these drivers. Floors: `sqlite3.executemany`; COPY
of rows that are encoded before the clock starts; for upsert and update the one statement that does the work on rows
which are in a temporary table already. Each of these ends in a rollback.
"""

import asyncio
import contextlib
import gc
import statistics
import sys
import tempfile
from time import perf_counter

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf.queries import _bulk_postgresql, bulk_insert, bulk_update, bulk_upsert

ROUNDS = 5
MANY = 100_000
SOME = 20_000
SIZES = (1, 10, 100, 1000, 5000, 20_000, 100_000)
NAMES = ("id", "nome", "numero", "valor", "estado")


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    numero: Mapped[int]
    valor: Mapped[float]
    estado: Mapped[str]


def rows(size, start=0):
    return [dict(zip(NAMES, (k, f"nome {k}", k * 7, k / 3, "aberta"), strict=True)) for k in range(start, start + size)]


def interleaved(**variants):
    """Return the median seconds of each variant, taken in turns; each variant measures itself."""
    times = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, variant in variants.items():
            gc.collect()
            spent = variant()
            if number:
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def bar(name, measured, limit):
    print(f"{name:<72} {measured:8.2f}   bar {limit}")


def timed(session, work):
    """Return the seconds of ``work``, which is then rolled back."""
    session.connection()
    started = perf_counter()
    work()
    spent = perf_counter() - started
    session.rollback()
    return spent


def inserting(session, raw, driver):
    given = rows(MANY)
    encoded = [tuple(row.values()) for row in given]
    limit = {"psycopg": "<= 1.6"}.get(driver, "<= 1.25")
    times = interleaved(
        ours=lambda: timed(session, lambda: bulk_insert(session, Linha, given)),
        floor=lambda: timed(session, lambda: raw(session, encoded)),
    )
    bar(f"{driver}: bulk_insert of {MANY:,} rows / floor", times["ours"] / times["floor"], limit)
    times = interleaved(
        ours=lambda: timed(session, lambda: bulk_insert(session, Linha, given[:SOME])),
        returning=lambda: timed(session, lambda: bulk_insert(session, Linha, given[:SOME], returning=("id", "nome"))),
    )
    bar(f"{driver}: the same with returning / without, {SOME:,} rows", times["returning"] / times["ours"], "<= 1.5")


def sqlite_floor(session, encoded):
    session.connection().connection.driver_connection.executemany("INSERT INTO linhas VALUES (?, ?, ?, ?, ?)", encoded)


def psycopg_floor(session, _encoded):
    """COPY what a COPY gave before."""
    driver = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy("COPY linhas FROM STDIN (FORMAT BINARY)") as copy:
        for block in ENCODED:
            copy.write(block)


ENCODED: list[bytes] = []


def encode(session, encoded):
    """Let the server make the bytes of a binary COPY."""
    bulk_insert(session, Linha, [dict(zip(NAMES, row, strict=True)) for row in encoded])
    driver = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy("COPY linhas TO STDOUT (FORMAT BINARY)") as copy:
        ENCODED[:] = [bytes(block) for block in copy]
    session.rollback()


def asyncpg_floor(session, encoded):
    adapted = session.connection().connection.dbapi_connection
    session.execute(text("SELECT 1"))  # begins the transaction
    adapted.run_async(lambda driver: driver.copy_records_to_table("linhas", records=encoded, columns=NAMES))


CHANGE = {
    "update": "UPDATE linhas SET nome = s.nome, numero = s.numero, valor = s.valor, estado = s.estado"
    " FROM stage s WHERE s.id = linhas.id",
    "upsert": "INSERT INTO linhas SELECT * FROM stage ON CONFLICT (id) DO UPDATE SET nome = excluded.nome,"
    " numero = excluded.numero, valor = excluded.valor, estado = excluded.estado",
}


def changing(session, driver):
    """Compare with the server's own work, the rows being there."""
    session.execute(text("CREATE TEMPORARY TABLE stage AS SELECT * FROM linhas LIMIT 0"))
    half = SOME // 2
    bulk_insert(session, Linha, rows(SOME, start=0))
    given = {"update": rows(SOME), "upsert": rows(SOME, start=half)}
    session.commit()
    for name, work in (("update", bulk_update), ("upsert", bulk_upsert)):
        session.execute(text("DELETE FROM stage"))
        names = ", ".join(NAMES)
        start = given[name][0]["id"]
        session.execute(
            text(
                f"INSERT INTO stage ({names}) SELECT k, 'nome ' || k, k * 7, k / 3.0, 'aberta'"
                f" FROM generate_series({start}, {start + SOME - 1}) k"
            )
        )
        session.commit()
        times = interleaved(
            ours=lambda work=work, name=name: timed(session, lambda: work(session, Linha, given[name])),
            floor=lambda name=name: timed(session, lambda: session.execute(text(CHANGE[name]))),
        )
        bar(f"{driver}: {name} of {SOME:,} rows / server-side work", times["ours"] / times["floor"], "<= 1.25")
    session.execute(text("DROP TABLE stage"))
    session.execute(text("TRUNCATE linhas"))
    session.commit()


@contextlib.contextmanager
def threshold(table, driver, value):
    known = table[driver]
    table[driver] = value
    try:
        yield
    finally:
        table[driver] = known


def choosing(session, driver):
    """Compare the choice by number of rows with each of the ways."""
    tables = {"insert": _bulk_postgresql._COPY_FROM, "update": _bulk_postgresql._STAGE_FROM}
    name = f"{driver}_async" if session.get_bind().dialect.is_async and driver == "psycopg" else driver
    works = {"insert": bulk_insert, "update": bulk_update}
    for kind, table in tables.items():
        worst = 0.0
        for size in SIZES:
            given = rows(size)

            def run(value, *, kind=kind, table=table, given=given):
                if kind == "update":
                    bulk_insert(session, Linha, given)
                with contextlib.ExitStack() as stack:
                    if value is not None:
                        stack.enter_context(threshold(table, name, value))
                    return timed(session, lambda: works[kind](session, Linha, given))

            times = interleaved(auto=lambda: run(None), arrays=lambda: run(10**9), copy=lambda: run(0))
            worst = max(worst, times["auto"] / min(times["arrays"], times["copy"]))
            ratio = times["copy"] / times["arrays"]
            print(f"    {driver}, {kind} of {size:>7,} rows: COPY / arrays {ratio:6.2f}")
        bar(f"{driver}: automatic choice / best way, {kind}, worst of {SIZES[0]}-{SIZES[-1]:,} rows", worst, "<= 1.15")


def on_postgresql(session, driver):
    Base.metadata.drop_all(session.connection())
    Base.metadata.create_all(session.connection())
    session.commit()
    if driver == "psycopg":
        encode(session, [tuple(row.values()) for row in rows(MANY)])
    inserting(session, psycopg_floor if driver == "psycopg" else asyncpg_floor, driver)
    changing(session, driver)
    choosing(session, driver)


async def on_asyncpg(url):
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        await session.run_sync(on_postgresql, "asyncpg")
    await engine.dispose()


@pytest.mark.soak
def test_bars():
    """Print every bar beside its limit; nothing is asserted, because the machine may be busy."""
    main([])


def main(urls):
    with tempfile.TemporaryDirectory() as folder:
        for url in urls or [f"sqlite:///{folder}/bulk.db"]:
            if "+asyncpg" in url:
                asyncio.run(on_asyncpg(url))
                continue
            engine = create_engine(url)
            with Session(engine) as session:
                if engine.dialect.name == "postgresql":
                    on_postgresql(session, "psycopg")
                else:
                    Base.metadata.create_all(session.connection())
                    session.commit()
                    inserting(session, sqlite_floor, "sqlite")
            engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1:])
