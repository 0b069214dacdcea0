"""`QueryBudgetMiddleware`: one scope per request, a header, a log line or an error."""

import httpx
import pytest
from sqlalchemy import text

from isp_perf.errors import ConfigurationError, QueryBudgetError
from isp_perf.queries import QueryBudgetMiddleware, install


@pytest.fixture
def installed(engine):
    handle = install(engine)
    yield handle
    handle.remove()


def application(engine, statements):
    """An application that sends some statements for each request."""

    async def app(scope, receive, send):
        with engine.connect() as connection:
            for number in range(statements):
                connection.execute(text(f"SELECT {number}"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def get(app):
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/conversas?nome=s3cr3t")


async def test_each_request_is_counted_in_a_header(installed, engine):
    """The response says how many statements it took, for each request anew, and keeps its own headers."""
    app = QueryBudgetMiddleware(application(engine, 3))
    for _ in range(2):
        response = await get(app)
        assert (response.status_code, response.headers["x-query-count"], response.headers["x-own"]) == (200, "3", "1")


async def test_the_header_can_be_renamed_and_left_out(installed, engine):
    """`header` names the header; an empty one sends none."""
    assert (await get(QueryBudgetMiddleware(application(engine, 1), header="X-SQL"))).headers["x-sql"] == "1"
    assert "x-query-count" not in (await get(QueryBudgetMiddleware(application(engine, 1), header=""))).headers


async def test_too_many_statements_are_logged_and_served(installed, engine, caplog):
    """Over budget the response is untouched; the log names the route without its query string."""
    assert (await get(QueryBudgetMiddleware(application(engine, 3), max_queries=2))).text == "ok"
    assert "GET /conversas: 3 statements, 2 allowed" in caplog.text
    assert "s3cr3t" not in caplog.text


async def test_the_installed_budget_is_the_default(engine, caplog):
    """Without a number of its own the middleware holds to the budget given to `install`."""
    handle = install(engine, budget=2)
    await get(QueryBudgetMiddleware(application(engine, 2)))
    assert caplog.text == ""
    await get(QueryBudgetMiddleware(application(engine, 3)))
    assert "3 statements, 2 allowed" in caplog.text
    handle.remove()


async def test_on_excess_error_raises_before_the_response(installed, engine):
    """In tests and development the request fails in place of its response."""
    app = QueryBudgetMiddleware(application(engine, 3), max_queries=2, on_excess="error")
    with pytest.raises(QueryBudgetError, match="3 statements, 2 allowed"):
        await get(app)


async def test_without_any_installed_engine_requests_are_served(engine):
    """The middleware never breaks a response because nothing is watched."""
    assert (await get(QueryBudgetMiddleware(application(engine, 3)))).headers["x-query-count"] == "0"


async def test_other_connections_pass_through():
    """Lifespan and websocket scopes reach the application untouched."""
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["type"], send))

    await QueryBudgetMiddleware(app)({"type": "lifespan"}, None, "send")
    assert seen == [("lifespan", "send")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_queries": -1}, "whole number"), ({"on_excess": "boom"}, "'log' or 'error'")],
    ids=str,
)
def test_wrong_settings_are_refused(settings, message):
    """A budget below 0 and an unknown reaction are refused."""
    with pytest.raises(ConfigurationError, match=message):
        QueryBudgetMiddleware(None, **settings)
