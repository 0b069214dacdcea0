"""Bars of `cached_query`: the price of a hit, and how soon writes of other programs are heard.

Run with `python benchmarks/test_queries_cached.py`; with a URL as the argument (`postgresql+psycopg://...`, a database
that may be emptied) latency is measured there too.
"""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
from time import perf_counter, sleep
from timeit import repeat

from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf import CacheManager
from isp_perf.queries import cached_query, invalidation_ddl, listen

CALLS, ROUNDS = 20_000, 7


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(primary_key=True)
    texto: Mapped[str]


def bar(name, measured, limit):
    print(f"{name:<72} {measured:10.2f}   bar {limit}")


def micros(call, number=CALLS):
    return min(repeat(call, number=number, repeat=ROUNDS)) / number * 1e6


def hits(path):
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Linha(texto="x" * 40) for _ in range(500)])
        session.commit()
    manager = CacheManager()

    @cached_query(manager, ttl=600)
    def linhas(least):
        return select(Linha).where(Linha.id >= least)

    @manager.cached("floor:{least}", ttl=600, typed=True)
    def floor(least):
        return least

    def orm():
        with Session(engine) as other:
            other.scalars(select(Linha).where(Linha.id >= 1)).all()

    with Session(engine) as session:
        linhas(session, 1), floor(1)
        session.rollback()
        hit = micros(lambda: linhas(session, 1))
        bar("hit, decorated, us", hit, "<= 1")
        bar("hit / hit of a plain cached function", hit / micros(lambda: floor(1)), "(for comparison)")
        bar("ORM query of 500 rows / hit", micros(orm, 20) / hit, ">= 3,000")
        by_statement = micros(lambda: cached_query(manager, session, select(Linha).where(Linha.id >= 1), ttl=600), 300)
        bar("hit, statement built each time, us", by_statement, "(for comparison)")
    asyncio.run(hit_async(path, linhas))
    engine.dispose()


async def hit_async(path, linhas):
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with AsyncSession(engine) as session:
        await linhas(session, 1)
        await session.rollback()
        started = perf_counter()
        for _ in range(CALLS):
            await linhas(session, 1)
        bar("hit, AsyncSession, us", (perf_counter() - started) / CALLS * 1e6, "(for comparison)")
    await engine.dispose()


def latency(engine, write):
    """Return the median and the 99th percentile, in ms, from the foreign commit's return to the new rows."""
    manager = CacheManager()
    times = []

    @cached_query(manager, ttl=600)
    def last():
        return select(Linha.id).order_by(Linha.id.desc()).limit(1)

    with listen(manager, engine) as listening:
        assert listening.wait()
        for number in range(10_000, 10_300):
            with Session(engine) as session:
                last(session)
            write(number)
            started = perf_counter()
            while True:
                with Session(engine) as session:
                    rows = last(session)
                if rows and rows[0].id == number:
                    break
                sleep(0.0001)
            times.append((perf_counter() - started) * 1e3)
    return statistics.median(times), sorted(times)[int(len(times) * 0.99)]


def on_sqlite(path):
    engine = create_engine(f"sqlite:///{path}")
    other = sqlite3.connect(path)

    def write(number):
        other.execute("INSERT INTO linhas VALUES (?, 'x')", (number,))
        other.commit()

    median, late = latency(engine, write)
    bar("SQLite: foreign commit to new rows, median ms", median, "(for comparison)")
    bar("SQLite: foreign commit to new rows, p99 ms", late, "<= 5")
    other.close()
    engine.dispose()


def on_postgresql(url):
    engine = create_engine(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    other = engine.raw_connection().driver_connection
    other.autocommit = True
    other.execute(invalidation_ddl(Base.metadata))
    median, late = latency(engine, lambda number: other.execute("INSERT INTO linhas VALUES (%s, 'x')", (number,)))
    bar("PostgreSQL: foreign commit to new rows, median ms", median, "(for comparison)")
    bar("PostgreSQL: foreign commit to new rows, p99 ms", late, "<= 5")
    engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        hits(f"{folder}/a.db")
        on_sqlite(f"{folder}/a.db")
    if len(sys.argv) > 1:
        on_postgresql(sys.argv[1])
