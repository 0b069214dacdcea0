"""The four promises of the support service, as its team runs them: cache, compression, Redis, metrics.

python -m pytest tests/test_integration.py::TestCacheStrategy -v
"""

import asyncio
import gzip
import json
from itertools import count
from uuid import uuid4

import brotli
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from isp_perf import (
    CacheManager,
    CompressionMiddleware,
    RedisPool,
    Settings,
    Toolkit,
    cached,
    circuit_breaker,
    metrics,
)
from isp_perf.breaker import CircuitConfig, CircuitOpenError, CircuitRegistry
from isp_perf.compression import CompressionStats
from isp_perf.compression.starlette import CompressedJSONResponse
from isp_perf.metrics import CONVERSATION_DURATION, MESSAGE_PROCESSING_TIME, MetricRegistry

PROFILE = {"id": "42", "nome": "Maria Souza", "plano": "500 Mega"}
INBOX = [{"id": n, "texto": "Minha internet caiu, podem verificar o sinal?", "autor": "cliente"} for n in range(200)]


@pytest.fixture
async def manager(redis_url):
    """A cache of two levels in a namespace of its own."""
    async with CacheManager(redis=redis_url, namespace=f"isp-{uuid4().hex}") as manager:
        yield manager


class TestCacheStrategy:
    """Memory first, then Redis, then the database, and never an old value."""

    async def test_the_first_level_answers_after_the_first_call(self, manager):
        """A profile is loaded once, however often it is asked for."""
        loads = count()

        @manager.cached("user_profile:{hash}", ttl=1800)
        async def get_user_profile(user_id: str) -> dict[str, str]:
            next(loads)
            return {**PROFILE, "id": user_id}

        answers = [await get_user_profile("42") for _ in range(100)]
        assert answers == [PROFILE] * 100
        assert next(loads) == 1
        assert manager.stats().hit_ratio == 0.99

    async def test_the_second_level_answers_for_another_process(self, redis_url):
        """What one manager has loaded, another one finds in Redis."""
        namespace = f"isp-{uuid4().hex}"
        async with CacheManager(redis=redis_url, namespace=namespace) as one:
            assert await one.get_or_set("plano:7", lambda: "fibra") == "fibra"
            async with CacheManager(redis=redis_url, namespace=namespace) as other:
                assert await other.get("plano:7") == "fibra"
                assert other.stats().l2_hits == 1

    async def test_a_thousand_callers_make_one_load(self, manager):
        """Callers that miss together share one query."""
        loads = count()

        async def load() -> str:
            next(loads)
            await asyncio.sleep(0)
            return "ok"

        answers = await asyncio.gather(*(manager.get_or_set("popular", load) for _ in range(1000)))
        assert set(answers) == {"ok"}
        assert next(loads) == 1

    async def test_invalidation_by_key_pattern_and_tag(self, manager):
        """Whatever the way, the next read is not the old value."""
        for key in ("user:1", "user:2", "agent:1"):
            await manager.set(key, "old", tags=("everybody",) if key == "agent:1" else ())
        assert (await manager.invalidate("user:1")).delivered
        assert (await manager.invalidate_pattern("user:*")).delivered
        assert (await manager.invalidate_tags("everybody")).delivered
        assert await manager.get_many(["user:1", "user:2", "agent:1"]) == {}

    async def test_warm_up(self, manager):
        """What is popular is there before the first user asks."""

        async def load_popular_data() -> list[int]:
            return [1, 2, 3]

        report = await manager.warm_cache({"popular_data": {"fetch_func": load_popular_data, "ttl": 3600}})
        assert list(report.loaded) == ["popular_data"]
        assert not report.failed
        assert await manager.get("popular_data") == [1, 2, 3]

    async def test_it_works_without_redis(self):
        """The decorator of the package needs no server, no configuration and no start."""

        @cached(f"plan:{uuid4().hex}:{{name}}", ttl=60)
        async def plan(name: str) -> str:
            return name.upper()

        assert [await plan("fibra"), await plan("fibra")] == ["FIBRA", "FIBRA"]
        assert plan.stats.hits == 1

    async def test_a_dead_gateway_is_not_asked(self):
        """The circuit of WhatsApp opens after three failures and says when to come back."""
        asked = count()

        @circuit_breaker("whatsapp_api", CircuitConfig(3, break_duration=30), registry=CircuitRegistry())
        async def send_whatsapp_message(message: str) -> None:
            next(asked)
            raise ConnectionError(len(message))

        for _ in range(3):
            with pytest.raises(ConnectionError):
                await send_whatsapp_message("Olá")
        with pytest.raises(CircuitOpenError) as refused:
            await send_whatsapp_message("Olá")
        assert next(asked) == 3
        assert 0 < refused.value.retry_after <= 30


class TestCompressionSystem:
    """Large JSON goes out small, to everyone in a coding they accept."""

    @pytest.fixture
    def client(self):
        """A client of an application that answers with an inbox, through the middleware."""

        async def inbox(_request):
            return JSONResponse(INBOX)

        async def coded(_request):
            return CompressedJSONResponse(INBOX)

        async def tiny(_request):
            return CompressedJSONResponse({"ok": True})

        self.stats = CompressionStats()
        app = Starlette(routes=[Route("/inbox", inbox), Route("/coded", coded), Route("/tiny", tiny)])
        transport = httpx.ASGITransport(app=CompressionMiddleware(app, stats=self.stats))
        return httpx.AsyncClient(transport=transport, base_url="http://isp.test")

    @pytest.mark.parametrize(
        ("accepted", "coding"),
        [("gzip, deflate, br", "br"), ("gzip", "gzip"), ("deflate", "deflate"), ("br;q=0.2, gzip", "gzip")],
    )
    async def test_the_best_coding_the_client_accepts(self, client, accepted, coding):
        """Brotli before gzip before deflate, unless the client prefers another; the body is the same."""
        answer = await client.get("/inbox", headers={"Accept-Encoding": accepted})
        assert answer.headers["Content-Encoding"] == coding
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert answer.json() == INBOX

    async def test_a_response_that_codes_itself(self, client):
        """The response class alone picks the best coding, and the middleware leaves it as it is."""
        answer = await client.get("/coded", headers={"Accept-Encoding": "gzip, br"})
        assert answer.headers["Content-Encoding"] == "br"
        assert answer.json() == INBOX

    async def test_small_and_unwanted_stay_as_they_are(self, client):
        """Below 1 KB, or for a client that accepts nothing, the body goes out uncoded."""
        small = await client.get("/tiny", headers={"Accept-Encoding": "br"})
        plain = await client.get("/inbox", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in small.headers
        assert "Content-Encoding" not in plain.headers

    async def test_the_sizes_it_promises(self, client):
        """A list of messages shrinks by 96.7 % with gzip and by 98.2 % with brotli, which is 45 % smaller than gzip."""
        raw = len(json.dumps(INBOX, separators=(",", ":")).encode())
        sizes = {}
        for coding, decode in (("gzip", gzip.decompress), ("br", brotli.decompress)):
            async with client.stream("GET", "/inbox", headers={"Accept-Encoding": coding}) as answer:
                body = b"".join([part async for part in answer.aiter_raw()])
            assert json.loads(decode(body)) == INBOX
            sizes[coding] = len(body)
        assert 1 - sizes["gzip"] / raw >= 0.90
        assert 1 - sizes["br"] / raw >= 0.967

    async def test_the_statistics_count_what_was_saved(self, client):
        """Requests and bytes saved are counted per coding, and the totals are their sums."""
        await client.get("/inbox", headers={"Accept-Encoding": "br"})
        await client.get("/inbox", headers={"Accept-Encoding": "gzip"})
        stats = self.stats.as_dict()
        coded = stats["by_encoding"]
        assert coded["brotli"]["requests"] == coded["gzip"]["requests"] == 1
        assert stats["total_bytes_saved"] == sum(entry["bytes_saved"] for entry in coded.values()) > 0


class TestRedisPerformance:
    """Many keys cost one round trip, and a sick server no more than an error."""

    async def test_bulk_reads_and_writes(self, redis_url):
        """A thousand keys are written and read back in a few batches, not in two thousand round trips."""
        async with RedisPool(redis_url) as pool:
            values = {f"k:{n}": str(n).encode() for n in range(1000)}
            assert not (await pool.set_many(values, ttl=60)).errors
            assert await pool.get_many(values) == values
            assert await pool.mget(["k:1", "absent", "k:2"]) == [b"1", None, b"2"]
            assert sum(lane.batches for lane in pool.stats().lanes.values()) < 100
            assert await pool.delete_many(values) == 1000

    async def test_commands_of_one_tick_share_a_round_trip(self, redis_url):
        """Hundred callers that ask at the same time are answered by a few writes."""
        async with RedisPool(redis_url) as pool:
            client = pool.client()
            await client.set("answer", b"42")
            before = sum(lane.batches for lane in pool.stats().lanes.values())
            assert await asyncio.gather(*(client.get("answer") for _ in range(100))) == [b"42"] * 100
            assert sum(lane.batches for lane in pool.stats().lanes.values()) - before <= 5

    async def test_a_pipeline_keeps_the_order(self, redis_url):
        """A pipeline returns its results in the order of its commands."""
        async with RedisPool(redis_url) as pool, pool.pipeline() as pipe:
            for number in range(10):
                pipe.rpush("fila", number)
            pipe.lrange("fila", 0, -1)
            replies = await pipe.execute()
        assert replies[:10] == list(range(1, 11))
        assert replies[10] == [str(n).encode() for n in range(10)]

    async def test_health_in_the_shape_of_the_endpoint(self, redis_url):
        """Health tells status, ping and pool; without a server it says disabled, and nothing raises."""
        async with RedisPool(redis_url) as pool:
            health = (await pool.health()).as_dict()
        assert health["status"] == "healthy"
        assert health["ping_time_ms"] >= 0
        assert set(health["pool_info"]) == {"created_connections", "available_connections"}
        assert (await RedisPool().health()).as_dict()["status"] == "disabled"


class TestMetricsCollection:
    """Everything is counted, under names that Prometheus reads."""

    async def test_the_names_of_the_service(self):
        """The three business metrics and at least 45 families of the features are in every scrape."""
        CONVERSATION_DURATION.observe(320.0)
        MESSAGE_PROCESSING_TIME.observe(0.025)
        transport = httpx.ASGITransport(app=metrics.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://isp.test") as client:
            scrape = (await client.get("/metrics")).text
        families = {family.name: family.type for family in text_string_to_metric_families(scrape)}
        assert families["conversation_duration_seconds"] == families["message_processing_seconds"] == "histogram"
        assert families["cache_hit_rate"] == "gauge"
        assert sum(name.startswith("isp_") for name in families) >= 45

    def test_counters_count_exactly(self):
        """A counter with labels holds what was added to it, no more and no less."""
        own = MetricRegistry()
        sent = own.counter("whatsapp_sends", "Messages handed to the gateway.", ["result"])
        for number in range(1000):
            sent.labels(result="taken" if number % 10 else "kept").inc()
        assert sent.labels(result="taken").n == 900
        assert sent.labels(result="kept").n == 100

    async def test_the_endpoints_of_the_service(self):
        """Any application gets the monitoring endpoints in their documented shape."""
        app = Toolkit(Settings()).wrap(Starlette())
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://isp.test") as client:
            cache = (await client.get("/cache/stats")).json()
            compression = (await client.get("/compression/stats")).json()
            circuits = (await client.get("/circuit-breakers")).json()
            dashboard = (await client.get("/performance/dashboard")).json()
            health = (await client.get("/health")).json()
            scrape = (await client.get("/metrics")).text
        assert {"hits", "misses", "hit_rate", "l1_size"} <= cache["cache_stats"].keys()
        assert {"status", "ping_time_ms", "pool_info"} <= cache["redis_health"].keys()
        assert {"total_requests", "total_bytes_saved", "by_encoding"} <= compression["compression_stats"].keys()
        assert isinstance(circuits["circuit_breakers"], dict)
        assert {"total_conversations", "active_conversations", "messages_today", "cache_hit"} <= (
            dashboard["dashboard_stats"].keys()
        )
        assert health["status"] in {"healthy", "degraded"}
        assert "isp_http_requests_total" in scrape
