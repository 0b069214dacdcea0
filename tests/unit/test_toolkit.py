"""One object from the environment, and two lines around any application."""

import gzip
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from isp_perf.breaker import circuits
from isp_perf.cache import Auditor, cache_manager, cached
from isp_perf.errors import ConfigurationError
from isp_perf.metrics import registry
from isp_perf.settings import Settings, SettingsError
from isp_perf.toolkit import Toolkit


@pytest.fixture(autouse=True)
def defaults():
    """Give the default cache manager its own settings back."""
    yield
    cache_manager.configure(redis=None, namespace="isp", schema=1, max_entries=10_000)


async def page(request):
    return PlainTextResponse("x" * 5000)


async def own_health(request):
    return PlainTextResponse("mine")


def client(application):
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")


def test_it_configures_the_defaults_and_makes_no_rivals():
    """The parts are the package's own default objects, configured."""
    toolkit = Toolkit(Settings(namespace="suporte", cache_max_entries=7))
    assert toolkit.cache is cache_manager
    assert toolkit.circuits is circuits
    assert toolkit.metrics is registry
    assert not toolkit.redis.enabled


def test_wrong_variables_are_reported_together():
    """from_env names every wrong variable."""
    with pytest.raises(SettingsError) as caught:
        Toolkit.from_env({"REDIS_URL": "x", "ISP_PERF_CACHE_TTL": "x"})
    assert len(caught.value.problems) == 2


async def test_two_lines_make_an_application_compressed_measured_and_observable():
    """Bodies are coded, requests counted under their template, and the monitoring endpoints answer."""
    application = Toolkit.from_env({}).wrap(Starlette(routes=[Route("/page/{number}", page)]))
    before = registry.collect("worker").get("isp_http_requests_total").by_key()
    async with client(application) as http:
        answer = await http.get("/page/1", headers={"accept-encoding": "gzip"})
        codes = {path: (await http.get(path)).status_code for path in ("/health", "/cache/stats", "/metrics")}
        stats = (await http.get("/compression/stats?scope=worker")).json()["compression_stats"]
        missing = await http.get("/nowhere")
    after = registry.collect("worker").get("isp_http_requests_total").by_key()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "x" * 5000
    assert codes == {"/health": 200, "/cache/stats": 200, "/metrics": 200}
    assert stats["by_encoding"]["gzip"]["requests"] >= 1
    assert missing.status_code == 404
    for route in ("/page/{number}", "/health", "/metrics"):
        key = ("GET", route, "200")
        assert after[key] - before.get(key, 0) == 1


async def test_a_route_of_the_application_wins():
    """Where the application has a page of that name, it answers; the other endpoints are ours."""
    application = Toolkit().wrap(Starlette(routes=[Route("/health", own_health)]))
    async with client(application) as http:
        assert (await http.get("/health")).text == "mine"
        assert (await http.get("/health/live")).json() == {"status": "healthy"}


async def test_under_a_prefix_both_answer():
    """With another path the application's page and the endpoint of the same name are both there."""
    application = Toolkit().wrap(Starlette(routes=[Route("/health", own_health)]), ops="/ops/")
    async with client(application) as http:
        assert (await http.get("/health")).text == "mine"
        assert (await http.get("/ops/health")).json()["status"] == "healthy"
        assert (await http.get("/opsx")).status_code == 404


async def test_metrics_arrive_readable_through_the_compression():
    """The scrape, which is gzipped by itself, is not coded twice."""
    application = Toolkit().wrap(Starlette())
    async with client(application) as http:
        answer = await http.get("/metrics", headers={"accept-encoding": "gzip, br"})
        raw = await http.send(
            http.build_request("GET", "/metrics", headers={"accept-encoding": "gzip, br"}), stream=True
        )
        body = b"".join([chunk async for chunk in raw.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert b"# TYPE" in gzip.decompress(body)


async def test_hits_are_audited_from_start_to_end_if_asked_for():
    """With a share of the hits set, the toolkit runs an auditor of its cache between start and close."""
    toolkit = Toolkit(Settings(cache_audit=0.5))
    await toolkit.start()
    await toolkit.start()
    with pytest.raises(ConfigurationError, match="one running auditor"):
        await Auditor(cache_manager).start()
    await toolkit.aclose()
    async with Auditor(cache_manager) as auditor:
        assert auditor.running


async def test_compression_may_be_switched_off():
    """With compression off bodies go out as they are."""
    application = Toolkit(Settings(compression=False)).wrap(Starlette(routes=[Route("/", page)]))
    async with client(application) as http:
        assert "content-encoding" not in (await http.get("/", headers={"accept-encoding": "gzip"})).headers


class Server:
    """The lifespan side of an ASGI server."""

    def __init__(self):
        self.sent = []
        self._messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive(self):
        return next(self._messages)

    async def send(self, message):
        self.sent.append(message["type"])


async def test_the_lifespan_runs_around_the_applications():
    """Ours starts before the application's and ends after it; the dashboard, which may need both, is warm after it."""
    order = []

    async def application(scope, receive, send):
        for _ in range(2):
            message = await receive()
            order.append(message["type"])
            await send({"type": f"{message['type']}.complete"})

    async def figures():
        order.append("figures")
        return {"total_conversations": 3}

    wrapped = Toolkit().wrap(application, dashboard=figures)
    start, close = wrapped.start, wrapped.aclose

    async def noted_start():
        order.append("start")
        await start()

    async def noted_close():
        order.append("close")
        await close()

    wrapped.start, wrapped.aclose = noted_start, noted_close
    server = Server()
    await wrapped({"type": "lifespan"}, server.receive, server.send)
    assert order == ["start", "lifespan.startup", "figures", "lifespan.shutdown", "close"]
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("reads", [True, False])
async def test_an_application_without_a_lifespan_gets_ours(reads):
    """An application that raises at the lifespan scope, before or after reading, is served all the same."""

    async def application(scope, receive, send):
        if reads:
            await receive()
        raise AssertionError("only http")

    server = Server()
    await Toolkit().wrap(application)({"type": "lifespan"}, server.receive, server.send)
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_startup_that_failed_stays_failed():
    """An application that says its startup failed ends there, and what was started is closed."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = Server()
    await Toolkit().wrap(application)({"type": "lifespan"}, server.receive, server.send)
    assert server.sent == ["lifespan.startup.failed"]


async def test_cached_functions_use_the_settings():
    """A function cached before the toolkit existed is cached under its namespace."""

    @cached("toolkit-test:{number}")
    async def double(number: int) -> int:
        return 2 * number

    Toolkit(Settings(namespace="suporte"))
    assert await double(2) == 4
    assert await double(2) == 4
    assert double.stats.hits == 1


@pytest.mark.parametrize(("given", "slow"), [({}, 1), ({"slow_ms": None}, 0)])
def test_queries_are_installed_on_request(given, slow):
    """``queries`` hands its arguments to the queries room, with the limit of the settings for what is slow."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine("sqlite://")
    engine.connect().close()  # a dialect's own first questions are slower than 0 ms too
    installed = Toolkit(Settings(slow_ms=0)).queries(engine, batching="off", **given)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        assert installed.stats().slow == slow
    finally:
        installed.remove()
        engine.dispose()
    assert "isp_perf.queries" in sys.modules


async def test_circuits_are_shared_from_start_to_end(redis_url):
    """With share_circuits the default registry joins the fleet when the toolkit starts and leaves it when it ends."""
    toolkit = Toolkit.from_env({"REDIS_URL": redis_url, "ISP_PERF_SHARE_CIRCUITS": "on"})
    for _ in range(2):
        await toolkit.start()
        with pytest.raises(ConfigurationError, match="shared already"):
            circuits.share(toolkit.redis)
        await toolkit.aclose()
