"""`listen` on SQLite, and the DDL for PostgreSQL as text."""

import sqlite3
import threading
import time

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.orm import Session

from isp_perf import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.queries import cached_query, invalidation_ddl, listen


def wait_until(condition):
    limit = time.monotonic() + 20
    while not (met := condition()) and time.monotonic() < limit:
        threading.Event().wait(0.005)
    return met


def test_another_program_commits_to_a_file(tmp_path):
    """A commit by another connection drops what was read; stopping twice is fine."""
    path = tmp_path / "a.db"
    engine = create_engine(f"sqlite:///{path}")
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True))
    table.create(engine)
    manager = CacheManager()

    def count():
        with Session(engine) as session:
            return len(cached_query(manager, session, select(table.c.id), ttl=600))

    with listen(manager, engine) as listening:
        assert listening.wait(20)
        assert count() == 0
        other = sqlite3.connect(path)
        other.execute("INSERT INTO t VALUES (1)")
        other.commit()
        other.close()
        assert wait_until(lambda: count() == 1)
        listening.stop()
    assert listening.gaps >= 2
    assert not listening.goes_on()
    engine.dispose()


def test_a_file_that_goes_away(tmp_path, caplog):
    """While nothing can be heard everything is dropped, again and again, and a line says so."""
    folder = tmp_path / "gone"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder}/a.db")
    folder.rmdir()
    with listen(CacheManager(), engine) as listening:
        assert not listening.wait(0.05)
        assert wait_until(lambda: listening.gaps >= 1)
    assert "not heard" in caplog.text


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_databases_that_nobody_hears(url):
    """A database that no other program can write, or none that can tell, is an error."""
    with pytest.raises(ConfigurationError, match="SQLite files"):
        listen(CacheManager(), create_engine(url))


def test_the_ddl():
    """One function, and one trigger for each table that is no view; odd names are quoted."""
    metadata = MetaData()
    for name in ("a", 'B"c', "it's"):
        Table(name, metadata, Column("id", Integer), schema="s")
    Table("v", metadata, Column("id", Integer), info={"isp_tables": ("a",)})
    ddl = invalidation_ddl(metadata)
    assert ddl.count("CREATE OR REPLACE FUNCTION isp_perf_notify()") == 1
    assert ddl.count("CREATE TRIGGER") == 3
    assert 'ON s."B""c"' in ddl
    assert "isp_perf_notify('it''s')" in ddl
    assert " v\n" not in ddl
    with pytest.raises(ConfigurationError, match="channel"):
        invalidation_ddl(metadata, channel="x; DROP TABLE a")
