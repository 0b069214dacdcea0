"""The /metrics application: formats, filters, HEAD, ETag, gzip, and an application's own registry."""

import gzip

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from isp_perf.metrics import MetricRegistry, app


@pytest.fixture
def registry():
    registry = MetricRegistry()
    jobs = registry.counter("jobs", "Jobs.", ["queue"])
    for queue in range(100):
        jobs.labels(queue).inc(queue)
    return registry


def client(application):
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")


async def test_the_text_format_is_the_default(registry):
    """A plain GET answers the text format with its content type, not to be stored."""
    async with client(app(registry)) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    families = {family.name: family for family in parse_text(answer.text)}
    assert sum(sample.value for sample in families["jobs"].samples) == 4950


async def test_large_answers_are_gzipped_for_who_takes_gzip(registry):
    """Above 1 kB the body is gzip if the client takes it, and identity if it does not."""
    async with client(app(registry)) as http:
        packed = await http.get("/metrics", headers={"accept-encoding": "gzip"})
        plain = await http.get("/metrics", headers={"accept-encoding": "gzip;q=0"})
        starred = await http.get("/metrics", headers={"accept-encoding": "br;q=1, *;q=0.5"})
    assert packed.headers["content-encoding"] == starred.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 1))


async def test_head_has_the_headers_only(registry):
    """HEAD answers the length of GET and no body."""
    async with client(app(registry)) as http:
        head = await http.head("/metrics", headers={"accept-encoding": "identity"})
        full = await http.get("/metrics", headers={"accept-encoding": "identity"})
    assert head.content == b""
    assert head.headers["content-length"] == str(len(full.content))


async def test_an_unchanged_answer_is_not_sent_again(registry):
    """If-None-Match with the tag of unchanged figures answers 304; after a count it answers 200."""
    async with client(app(registry)) as http:
        first = await http.get("/metrics")
        again = await http.get("/metrics", headers={"if-none-match": first.headers["etag"]})
        registry.counter("jobs", "Jobs.", ["queue"]).labels(1).inc()
        changed = await http.get("/metrics", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert changed.status_code == 200


async def test_names_and_scope_are_query_parameters(registry):
    """``name[]`` keeps the named families; ``scope=worker`` is this process alone."""
    async with client(app(registry)) as http:
        answer = await http.get("/metrics", params={"name[]": "jobs_total", "scope": "worker"})
    assert {family.name for family in parse_text(answer.text)} == {"jobs"}


async def test_other_methods_are_refused(registry):
    """POST answers 405 and names what is allowed."""
    async with client(app(registry)) as http:
        answer = await http.post("/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
async def test_another_registry_may_follow(registry, accept):
    """The application's own prometheus-client metrics are appended, in the same format, before the end mark."""
    own = CollectorRegistry()
    PrometheusCounter("own", "Own.", registry=own).inc(7)
    async with client(app(registry, append=own)) as http:
        answer = await http.get("/metrics", headers={"accept": accept})
    parse = parse_openmetrics if "openmetrics" in accept else parse_text
    families = {family.name: family for family in parse(answer.text)}
    assert {"own", "jobs"} <= set(families)


async def test_lifespan_and_websockets_are_answered(registry):
    """Run as a whole application it takes part in the lifespan protocol and closes websockets."""
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    await app(registry)({"type": "lifespan"}, receive, send)
    await app(registry)({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
