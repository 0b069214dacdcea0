"""Runs SQLAlchemy's own ORM tests with peer batching on; see the README beside it."""

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from isp_perf.queries._peers import Batching
from isp_perf.queries._stats import QueryStats

STATS = QueryStats()
HOOK = Batching(STATS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """Install the hook before each test: the suite's teardown clears every ORM listener."""
    if not event.contains(Session, "do_orm_execute", HOOK):
        event.listen(Session, "do_orm_execute", HOOK)


def pytest_terminal_summary(terminalreporter):
    """Say how much was batched, so that a run without the hook cannot pass for a good one."""
    terminalreporter.write_line(f"peer batching: {STATS.batches} batches for {STATS.peers} objects")
