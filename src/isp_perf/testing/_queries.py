"""A pytest plugin: ``query_count``, ``fresh_circuits`` and ``cache_history``, ``max_queries`` and ``max_stale``.

A test that asks for ``query_count`` gets a count of its own statements; a test marked
``@pytest.mark.max_queries(3)`` fails if it sends more. Only engines that ``isp_perf.queries.install`` was called on are
seen, in the test or before it. A test that asks for ``fresh_circuits`` starts and ends with every circuit breaker as
new. One that asks for ``cache_history`` fails if what it recorded breaks a promise of the cache; the mark
``max_stale(seconds)`` sets another bound than 0.1 s. All work for sync and async tests.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from isp_perf.breaker import CircuitRegistry
    from isp_perf.queries import QueryCount
    from isp_perf.testing._history import History

__all__ = ["cache_history", "fresh_circuits", "pytest_configure", "query_count"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "max_queries(n): the test may send at most n statements to watched engines")
    config.addinivalue_line("markers", "max_stale(seconds): the bound for reads recorded in `cache_history`, 0.1")


@pytest.fixture
def query_count(request: pytest.FixtureRequest) -> "Iterator[QueryCount]":
    """The statements of this test: ``count``, ``seconds``, ``statements``, ``findings``.

    Raises:
        QueryBudgetError: at the end of a test marked ``max_queries(n)`` that sent more than ``n``.
        ConfigurationError: no engine was watched when the test ended.
    """
    from isp_perf.queries import count_queries, query_budget

    mark = request.node.get_closest_marker("max_queries")
    with count_queries() if mark is None else query_budget(*mark.args) as queries:
        yield queries


@pytest.fixture
def fresh_circuits() -> "Iterator[CircuitRegistry]":
    """The default registry of circuit breakers, every one of them closed, with nothing counted, before and after.

    For every test of a module: ``pytestmark = pytest.mark.usefixtures("fresh_circuits")``.
    """
    from isp_perf.testing._breakers import fresh_circuits as fresh

    with fresh() as registry:
        yield registry


@pytest.fixture
def cache_history(request: pytest.FixtureRequest) -> "Iterator[History]":
    """A ``History`` to record reads and writes in; it is judged by ``check`` when the test has ended.

    Raises:
        AssertionError: at the end of the test: a read was stale beyond the bound of the mark ``max_stale(seconds)``
            (default 0.1), went backwards, was invented or raised.
    """
    from isp_perf.testing._history import History
    from isp_perf.testing._verdict import check

    mark = request.node.get_closest_marker("max_stale")
    history = History()
    yield history
    verdict = check(history, max_stale=0.1 if mark is None else mark.args[0])
    if not verdict.ok:
        raise AssertionError(str(verdict))


@pytest.fixture(autouse=True)
def _max_queries(request: pytest.FixtureRequest) -> None:
    """Count the statements of every marked test, whether it asks for the fixture or not."""
    if request.node.get_closest_marker("max_queries") is not None:
        request.getfixturevalue("query_count")
