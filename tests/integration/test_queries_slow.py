"""The slow log on PostgreSQL: plans without values."""

import importlib.util
import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine

from isp_perf.queries import install

T = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))


async def test_plans_of_asyncpg_and_psycopg(postgres_url, caplog):
    """The generic plan is told, whatever the driver writes for its parameters."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(T.metadata.create_all)
    handle = install(engine, batching="off", slow_ms=0)
    async with engine.connect() as connection:
        await connection.execute(select(T.c.id).where(T.c.n == 4711, T.c.id > 12).limit(3))
    assert told(caplog)
    handle.remove()
    await engine.dispose()
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    caplog.clear()
    plain = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
    plain.connect().close()  # what the dialect asks of its first connection is slower than 0 ms too
    handle = install(plain, batching="off", slow_ms=0)
    with plain.connect() as connection:
        connection.execute(select(T.c.id).where(T.c.n == 4711, T.c.n % 7 == 3, T.c.id > 12).limit(3))
    assert told(caplog)
    assert "4711" not in caplog.text
    handle.remove()
    plain.dispose()


def told(caplog):
    for _ in range(600):
        if "Scan" in caplog.text and "Limit" in caplog.text:
            return True
        threading.Event().wait(0.005)
    return False
