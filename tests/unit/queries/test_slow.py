"""`install(slow_ms=...)`: one line a minute for each slow text, with its plan, without values."""

import logging
import threading
import time

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from isp_perf.errors import ConfigurationError
from isp_perf.queries import count_queries, install

SLOW = text("SELECT t.id FROM t WHERE t.id = :secret")


def wait_for(condition):
    """Wait for what another thread does."""
    limit = time.monotonic() + 20
    while not condition() and time.monotonic() < limit:
        threading.Event().wait(0.005)
    return condition()


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


def test_a_slow_statement_is_told_once(engine, caplog):
    """The line names the place and the plan, never the values; a repetition within a minute is only counted."""
    handle = install(engine, batching="off", slow_ms=0)
    with engine.connect() as connection:
        for _ in range(3):
            connection.execute(SLOW, {"secret": 4711})
    assert wait_for(lambda: "SEARCH t USING INTEGER PRIMARY KEY" in caplog.text)
    assert caplog.text.count("ms in test_a_slow_statement_is_told_once") == 1
    assert "test_slow.py:" in caplog.text
    assert "4711" not in caplog.text
    assert handle.stats().slow == 3
    handle.remove()


def test_within_a_count_too(engine, caplog):
    """Statements that are counted anyway are told of as well; fast ones are not."""
    handle = install(engine, batching="off", slow_ms=60_000)
    with engine.connect() as connection, count_queries() as queries:
        connection.execute(SLOW, {"secret": 1})
    assert (queries.count, handle.stats().slow, caplog.text) == (1, 0, "")
    install(engine, batching="off", slow_ms=0)
    with engine.connect() as connection, count_queries() as queries:
        connection.execute(SLOW, {"secret": 1})
    assert (queries.count, handle.stats().slow) == (1, 1)
    handle.remove()


def test_what_cannot_be_explained_is_counted(caplog):
    """A database in memory has no second connection: there is a line, and no plan."""
    caplog.set_level(logging.WARNING)
    engine = create_engine("sqlite://")
    handle = install(engine, batching="off", slow_ms=0)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert "SELECT 1" in caplog.text
    assert wait_for(lambda: handle.stats().unexplained == 1)
    handle.remove()
    engine.dispose()


async def test_async_engines(engine, tmp_path, caplog):
    """The plan is asked for in a thread with an event loop of its own."""
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    handle = install(other, batching="off", slow_ms=0)
    async with other.connect() as connection:
        await connection.execute(SLOW, {"secret": 4711})
    assert wait_for(lambda: "SEARCH t USING INTEGER PRIMARY KEY" in caplog.text)
    handle.remove()
    await other.dispose()


def test_a_time_is_not_negative(engine):
    """A negative time is an error that says so."""
    with pytest.raises(ConfigurationError, match="slow_ms"):
        install(engine, slow_ms=-1)
