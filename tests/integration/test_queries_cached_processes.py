"""Cached queries of two processes that share a Redis and a PostgreSQL."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

PROGRAM = Path(__file__).with_name("query_cache_process.py")


class Other:
    """A process that is told what to do, and says what came of it."""

    def __init__(self, stack, *urls):
        command = [sys.executable, str(PROGRAM), *urls]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
        assert json.loads(self.process.stdout.readline()) == "ready"

    def __call__(self, order):
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
async def database(postgres_url):
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE clientes (id integer PRIMARY KEY, nome text)"))
        await connection.execute(text("INSERT INTO clientes VALUES (1, 'ana')"))
    await engine.dispose()
    return postgres_url


@pytest.fixture
def processes(database, redis_url):
    with ExitStack() as stack:
        yield [Other(stack, database, redis_url) for _ in range(2)]


def heard(process, expected):
    """Read until the other process's commit is heard of, which takes no longer than max_stale if both may work."""
    limit = time.monotonic() + 20
    while (answer := process("read")) != expected and time.monotonic() < limit:
        pass
    return answer


def test_a_commit_reaches_the_other_process_and_a_rollback_does_not(processes):
    """Rows that one process read serve both; a commit drops them in both, what was rolled back drops nothing."""
    first, second = processes
    assert first("read") == ["ana"]
    assert second("read") == ["ana"]
    assert (first("statements"), second("statements")) == (1, 0)

    first("insert 2 bia")
    assert second("read") == ["ana"]
    first("rollback")
    assert (first("read"), second("read")) == (["ana"], ["ana"])
    assert (first("statements"), second("statements")) == (1, 0)

    first("insert 2 bia")
    assert second("read") == ["ana"]
    first("commit")
    assert first("read") == ["ana", "bia"]
    assert heard(second, ["ana", "bia"]) == ["ana", "bia"]

    second("insert 3 caio")
    second("commit")
    assert second("read") == ["ana", "bia", "caio"]
    assert heard(first, ["ana", "bia", "caio"]) == ["ana", "bia", "caio"]
    assert first("statements") + second("statements") <= 4
