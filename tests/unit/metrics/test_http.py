"""Requests are counted per route template, whatever way they end, and nothing else about them changes."""

import asyncio
import contextlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from isp_perf.metrics import MetricRegistry, MetricsMiddleware, app
from isp_perf.metrics._routes import UNMATCHED, route_template


@pytest.fixture
def registry():
    return MetricRegistry()


def counts(registry, name="isp_http_requests_total"):
    return registry.collect("worker").get(name).by_key()


async def user(request):
    return PlainTextResponse("x" * 10)


async def broken(request):
    raise LookupError("x")


async def upload(request):
    return PlainTextResponse(str(len(await request.body())))


async def streamed(request):
    async def chunks():
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield "abc"

    return StreamingResponse(chunks())


ROUTES = [
    Route("/users/{user_id:int}", user),
    Route("/broken", broken),
    Route("/upload", upload, methods=["POST"]),
    Route("/stream", streamed),
    Mount("/tenants/{tenant}", routes=[Route("/items/{item}", user)]),
    Mount("/files", app=PlainTextResponse("file")),
]


def client(registry, **options):
    application = MetricsMiddleware(Starlette(routes=ROUTES), target=registry)
    transport = httpx.ASGITransport(application, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_requests_are_counted_by_template(registry):
    """Every path of one route is one series; converters are not part of the template."""
    async with client(registry) as http:
        for number in range(5):
            await http.get(f"/users/{number}")
    assert counts(registry) == {("GET", "/users/{user_id}", "200"): 5}
    assert counts(registry, "isp_http_response_bytes_total") == {("GET", "/users/{user_id}"): 50}
    [cells] = registry.collect("worker").get("isp_http_request_duration_seconds").values
    assert sum(cells[:-1]) == 5


async def test_mounted_routes_have_their_whole_template(registry):
    """Parameters of a mount are names in the label, not values; a mount that answers itself is its prefix."""
    async with client(registry) as http:
        await http.get("/tenants/acme/items/7")
        await http.get("/tenants/other/items/8")
        await http.get("/files/a/b")
    assert counts(registry) == {
        ("GET", "/tenants/{tenant}/items/{item}", "200"): 2,
        ("GET", "/files", "200"): 1,
    }


async def test_paths_without_a_route_are_one_series(registry):
    """A scanner asking for made-up paths and methods adds one series each, not one per path."""
    async with client(registry) as http:
        for number in range(20):
            await http.get(f"/wp-admin/{number}")
            await http.request(f"HACK{number}", f"/nowhere/{number}")
    assert counts(registry) == {("GET", UNMATCHED, "404"): 20, ("_OTHER", UNMATCHED, "404"): 20}


async def test_a_wrong_method_keeps_the_template(registry):
    """405 is counted under the route that refused it."""
    async with client(registry) as http:
        await http.delete("/upload")
    assert counts(registry) == {("DELETE", "/upload", "405"): 1}


async def test_an_exception_is_counted_and_goes_on(registry):
    """A raising application counts as 500 and as an exception, and the error reaches the server."""
    async with client(registry) as http:
        with pytest.raises(LookupError):
            await http.get("/broken")
    assert counts(registry) == {("GET", "/broken", "500"): 1}
    assert counts(registry, "isp_http_exceptions_total") == {("GET", "/broken"): 1}
    assert counts(registry, "isp_http_requests_in_flight") == {(): 0}


async def test_request_bodies_are_measured(registry):
    """Bytes of the body count as the application reads them."""
    async with client(registry) as http:
        answer = await http.post("/upload", content=b"x" * 70_000)
    assert answer.text == "70000"
    assert counts(registry, "isp_http_request_bytes_total") == {("POST", "/upload"): 70_000}


async def test_a_stream_is_timed_to_its_last_byte(registry):
    """A streamed answer lasts as long as its chunks, and its bytes add up."""
    async with client(registry) as http:
        await http.get("/stream")
    [cells] = registry.collect("worker").get("isp_http_request_duration_seconds").values
    assert cells[-1] >= 30_000_000
    assert counts(registry, "isp_http_response_bytes_total") == {("GET", "/stream"): 9}


async def test_background_work_after_the_answer_is_not_part_of_it(registry):
    """What an application does after its last byte does not count as response time."""

    async def answer(request):
        return PlainTextResponse("x", background=BackgroundTask(asyncio.sleep, 0.2))

    application = MetricsMiddleware(Starlette(routes=[Route("/", answer)]), target=registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as http:
        await http.get("/")
    [cells] = registry.collect("worker").get("isp_http_request_duration_seconds").values
    assert cells[-1] < 200_000_000


def scope(**changes):
    return {"type": "http", "method": "GET", "path": "/", **changes}


@pytest.mark.parametrize(
    ("started", "failure", "status"),
    [
        (True, None, "200"),
        (False, None, "499"),
        (True, asyncio.CancelledError(), "200"),
        (False, asyncio.CancelledError(), "499"),
        (True, ConnectionResetError(), "200"),
    ],
)
async def test_a_client_that_leaves_is_a_disconnect(registry, started, failure, status):
    """An answer without its last byte counts as a disconnect, however the application ended."""

    async def half(scope, receive, send):
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if failure is not None:
            raise failure

    async def send(message):
        pass

    expected = contextlib.nullcontext() if failure is None else pytest.raises(type(failure))
    with expected:
        await MetricsMiddleware(half, target=registry)(scope(), None, send)
    assert counts(registry) == {("GET", UNMATCHED, status): 1}
    assert counts(registry, "isp_http_disconnects_total") == {("GET", UNMATCHED): 1}
    assert counts(registry, "isp_http_exceptions_total") == {}


async def test_requests_in_flight_are_seen_while_they_last(registry):
    """The gauge counts requests between start and end."""
    inside = asyncio.Event()
    leave = asyncio.Event()

    async def slow(scope, receive, send):
        inside.set()
        await leave.wait()

    task = asyncio.create_task(MetricsMiddleware(slow, target=registry)(scope(), None, None))
    await inside.wait()
    assert counts(registry, "isp_http_requests_in_flight") == {(): 1}
    leave.set()
    await task
    assert counts(registry, "isp_http_requests_in_flight") == {(): 0}


async def test_other_protocols_pass_through(registry):
    """Lifespan and websocket scopes reach the application with the server's own channels."""
    seen = []

    async def inner(*arguments):
        seen.append(arguments)

    arguments = ({"type": "lifespan"}, object(), object())
    await MetricsMiddleware(inner, target=registry)(*arguments)
    assert seen == [arguments]
    assert counts(registry) == {}


async def test_the_metrics_application_counts_itself_under_its_path(registry):
    """A scrape is a request like any other; its route is its path."""
    application = MetricsMiddleware(app(registry), target=registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as http:
        await http.get("/metrics")
    assert counts(registry) == {("GET", "/metrics", "200"): 1}


def test_frameworks_that_name_their_template_otherwise():
    """An own template in the scope comes first, then the route's, then Litestar's."""
    assert route_template({"isp_perf.route": "/own", "path_template": "/x"}) == "/own"
    assert route_template({"path_template": "/books/{id}"}) == "/books/{id}"
    assert route_template({"route": object()}) == UNMATCHED
    assert route_template({}) == UNMATCHED


def test_every_family_of_requests_stands_before_the_first_one(registry):
    """The families appear in a scrape as soon as the middleware exists."""
    MetricsMiddleware(None, target=registry)
    names = {name for name in registry.collect("worker").columns if name.startswith("isp_http_")}
    assert names == {
        "isp_http_requests_total",
        "isp_http_request_duration_seconds",
        "isp_http_requests_in_flight",
        "isp_http_request_bytes_total",
        "isp_http_response_bytes_total",
        "isp_http_exceptions_total",
        "isp_http_disconnects_total",
    }
