"""The endpoints answer the seed's JSON, by schema, to whoever may see them."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitRegistry
from isp_perf.cache import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.metrics import registry
from isp_perf.ops import PATHS, OpsApp, schema
from isp_perf.redis import RedisPool

TYPES = {
    "object": dict,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "string": str,
    "array": list,
}


def check(value, rules):
    """Check ``value`` against the few JSON Schema keywords our schemas use."""
    kinds = rules.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert not kinds or any(isinstance(value, TYPES[kind]) for kind in kinds), (value, rules)
    assert "const" not in rules or value == rules["const"]
    assert "enum" not in rules or value in rules["enum"]
    if isinstance(value, (int, float)):
        assert rules.get("minimum", value) <= value <= rules.get("maximum", value)
    for item in value if isinstance(value, list) else ():
        check(item, rules.get("items", {}))
    if isinstance(value, dict):
        assert set(rules.get("required", ())) <= set(value)
        for name, item in value.items():
            other = rules.get("additionalProperties", True)
            assert name in rules.get("properties", {}) or other is not False, name
            check(item, rules.get("properties", {}).get(name, other if isinstance(other, dict) else {}))


class Watched:
    """The three parts the endpoints read."""

    def __init__(self, redis=None):
        self.cache = CacheManager("ops-test")
        self.redis = RedisPool(redis)
        self.metrics = registry


def client(application):
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/metrics"])
@pytest.mark.parametrize("scope", ["", "?scope=worker"])
async def test_every_endpoint_keeps_its_schema(path, scope):
    """Each JSON endpoint answers 200 with what its shipped schema says, not to be stored."""
    async with client(OpsApp(Watched())) as http:
        answer = await http.get(path + scope)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    check(answer.json(), schema(path))


@pytest.mark.parametrize("scope", ["", "?scope=worker"])
async def test_who_may_see_the_page_gets_its_figures_as_json(scope):
    """On this machine the dashboard's JSON holds what the page shows, by schema; elsewhere the seed's keys."""
    watched = Watched()

    @watched.cache.cached(f"user{len(scope)}:{{user_id}}")
    async def user(user_id: int) -> int:
        return user_id

    for number in (4711, 4711, 4712):
        await user(number)
    circuits = CircuitRegistry()
    CircuitBreaker("ops-gateway", CircuitConfig(failure_threshold=2), registry=circuits).call(int)
    app = OpsApp(watched)
    async with client(app) as http:
        near = await http.get(f"http://localhost/performance/dashboard{scope}")
        far = await http.get(f"/performance/dashboard{scope}")
        breakers = (await http.get(f"/circuit-breakers{scope}")).json()
    await app.aclose()
    check(near.json(), schema("/performance/dashboard"))
    check(breakers, schema("/circuit-breakers"))
    assert set(far.json()) == {"dashboard_stats"}
    keys = {row["key"]: row for row in near.json()["performance"]["hot_keys"] if row["cache"] == "ops-test"}
    assert keys[f"user{len(scope)}:{{user_id}}"]["hits"] == 1
    assert "4711" not in near.text
    gateway = breakers["circuit_breakers"]["ops-gateway"]
    assert (gateway["opened_at"], gateway["config"]["failure_threshold"]) == (None, 2)
    assert gateway["config"]["break_duration"] == 30.0


async def test_the_page_is_for_this_machine_unless_somebody_decides():
    """A browser elsewhere gets 403 and the reason; with an auth that agrees it gets the page."""

    async def agree(_):
        return True

    html = {"accept": "text/html"}
    async with client(OpsApp(Watched())) as http:
        near = await http.get("http://localhost/performance/dashboard", headers=html)
        far = await http.get("/performance/dashboard", headers=html)
        head = await http.head("http://localhost/performance/dashboard", headers=html)
        stream = await http.get("/performance/dashboard", headers={"accept": "text/event-stream"})
        proxied = await http.get("http://localhost/performance/dashboard", headers={**html, "x-real-ip": "10.0.0.1"})
    async with client(OpsApp(Watched(), auth=agree)) as http:
        agreed = await http.get("/performance/dashboard", headers=html)
    assert [near.status_code, far.status_code, stream.status_code, proxied.status_code] == [200, 403, 403, 403]
    assert "auth" in far.json()["detail"]
    assert near.headers["content-type"].startswith("text/html")
    assert (agreed.status_code, agreed.text.startswith("<!doctype html>")) == (200, True)
    assert (head.status_code, head.content) == (200, b"")


async def test_without_redis_the_pool_is_disabled_and_the_service_healthy():
    """No Redis is a choice, not a fault: disabled, no ping, no connections, healthy."""
    async with client(OpsApp(Watched())) as http:
        redis = (await http.get("/cache/stats")).json()["redis_health"]
        health = (await http.get("/health")).json()
    assert (redis["status"], redis["ping_time_ms"]) == ("disabled", None)
    assert redis["pool_info"] == {"created_connections": 0, "available_connections": 0}
    assert health["status"] == "healthy"


async def test_a_redis_that_is_down_degrades_the_service():
    """With Redis configured and gone the service is degraded, answers 200, and /cache/stats still answers."""
    watched = Watched("redis://127.0.0.1:1/0")
    async with client(OpsApp(watched)) as http:
        health = await http.get("/health")
        redis = (await http.get("/cache/stats")).json()["redis_health"]
    await watched.redis.aclose()
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert redis["status"] == "unhealthy"
    assert redis["ping_time_ms"] is None


async def test_a_required_dependency_that_is_down_is_a_503():
    """A further check that raises makes /health and /health/ready 503, while /health/live asks nobody."""

    async def database():
        raise ConnectionError("password")

    async with client(OpsApp(Watched(), checks={"database": database})) as http:
        answers = {path: await http.get(path) for path in ("/health", "/health/ready", "/health/live")}
        draft = await http.get("/health", headers={"accept": "application/health+json"})
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/health": 503,
        "/health/ready": 503,
        "/health/live": 200,
    }
    assert "password" not in answers["/health"].text
    assert draft.json()["status"] == "fail"
    assert draft.headers["content-type"] == "application/health+json"


async def test_metrics_are_answered_under_further_names():
    """With ``naming`` the names of published Grafana boards stand beside ours; an unknown one is refused."""
    async with client(OpsApp(Watched(), naming="micrometer")) as http:
        scrape = (await http.get("/metrics")).text
    assert "# TYPE cache_gets_total counter" in scrape
    assert "# TYPE isp_cache_gets_total counter" in scrape
    with pytest.raises(ConfigurationError, match="naming"):
        OpsApp(Watched(), naming="micrometre")


async def test_metrics_are_answered_too():
    """/metrics is the text format of the same figures."""
    async with client(OpsApp(Watched())) as http:
        answer = await http.get("/metrics")
    assert "isp_cache_gets_total" in answer.text


async def test_the_hook_decides_who_may_see():
    """A request the hook refuses gets 403; probes of an orchestrator are always answered."""
    seen = []

    async def refuse(scope):
        seen.append(scope["path"])
        return False

    async with client(OpsApp(Watched(), auth=refuse)) as http:
        codes = {path: (await http.get(path)).status_code for path in PATHS}
    assert {path for path, code in codes.items() if code == 200} == {"/health/live", "/health/ready"}
    assert set(codes.values()) == {200, 403}
    assert "/metrics" in seen


async def test_other_pages_and_methods():
    """Unknown pages are 404, other methods 405, HEAD has no body, a slash at the end is no other page."""
    async with client(OpsApp(Watched())) as http:
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.post("/health")).status_code == 405
        head = await http.head("/cache/stats")
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.get("/cache/stats/")).status_code == 200


async def test_it_may_be_mounted_under_a_path():
    """Under a mount every endpoint answers below the mount's path."""
    async with client(Starlette(routes=[Mount("/ops", OpsApp(Watched()))])) as http:
        codes = [(await http.get(f"/ops{path}")).status_code for path in PATHS]
    assert set(codes) == {200}


async def test_alone_it_speaks_lifespan_and_closes_websockets():
    """Run as a whole application it takes part in the lifespan protocol and closes websockets."""
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    application = OpsApp(Watched())
    await application({"type": "lifespan"}, receive, send)
    await application({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


def test_schemas_are_for_json_endpoints_only():
    """Asking for the schema of the metrics or of no endpoint is a ConfigurationError."""
    for path in ("/metrics", "/nowhere", "/../../settings"):
        with pytest.raises(ConfigurationError):
            schema(path)
