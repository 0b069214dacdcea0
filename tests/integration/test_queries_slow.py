"""The slow log on PostgreSQL: plans without values."""

import asyncio
import threading
import time

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine

from isp_perf.queries import _slow, install

T = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Let a busy machine take its time to plan."""
    monkeypatch.setattr(_slow, "_BEFORE", [("SET plan_cache_mode = force_generic_plan", ())])


async def test_the_plan_by_asyncpg(postgres_url, caplog):
    """The generic plan is told, whatever asyncpg writes for its parameters."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(T.metadata.create_all)
    handle = install(engine, batching="off", slow_ms=0)
    async with engine.connect() as connection:
        await connection.execute(select(T.c.id).where(T.c.n == 4711, T.c.id > 12).limit(3))
    assert await asyncio.to_thread(told, handle, caplog) == (1, 0)
    assert_planned(caplog.text)
    handle.remove()
    await engine.dispose()


def test_the_plan_by_psycopg(postgres_url, caplog):
    """So it is for psycopg, which writes parameters by name and percent signs twice."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    plain = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
    T.metadata.create_all(plain)
    handle = install(plain, batching="off", slow_ms=0)
    with plain.connect() as connection:
        connection.execute(select(T.c.id).where(T.c.n == 4711, T.c.n % 7 == 3, T.c.id > 12).limit(3))
    assert told(handle, caplog) == (1, 0)
    assert_planned(caplog.text)
    handle.remove()
    plain.dispose()


def told(handle, caplog):
    """Wait until the one slow statement was asked about, and return how many were slow and had no plan."""
    limit = time.monotonic() + 20
    while not ("the plan of" in caplog.text or handle.stats().unexplained) and time.monotonic() < limit:
        threading.Event().wait(0.005)
    return handle.stats().slow, handle.stats().unexplained


def assert_planned(text):
    assert "Scan" in text
    assert "Limit" in text
    assert "4711" not in text
