"""The pytest plugin: the fixture `query_count` and the mark `max_queries`."""

import subprocess
import sys

SUITE = """
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool
from isp_perf.queries import install

engine = create_engine("sqlite://", poolclass=StaticPool)
other = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
HANDLES = [install(engine), install(other)]

def ask(times):
    with engine.connect() as connection:
        for number in range(times):
            connection.execute(text(f"SELECT {number}"))

def test_counts(query_count):
    ask(2)
    assert query_count.count == 2

async def test_counts_async(query_count):
    async with other.connect() as connection:
        await connection.execute(text("SELECT 1"))
    ask(1)
    assert query_count.count == 2
    await other.dispose()

@pytest.mark.max_queries(2)
def test_within():
    ask(2)

@pytest.mark.max_queries(2)
def test_beyond():
    ask(3)

@pytest.mark.max_queries(1)
async def test_beyond_async():
    ask(2)
"""


def test_the_plugin_counts_and_limits_sync_and_async_tests(tmp_path):
    """Counts are per test in both colours, and a test over its limit errs with the budget error."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\naddopts = --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "isp_perf.testing._queries", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "5 passed, 2 errors" in done.stdout, done.stdout
    assert done.stdout.count("QueryBudgetError: 3 statements, 2 allowed") >= 1
    assert done.stdout.count("QueryBudgetError: 2 statements, 1 allowed") >= 1
