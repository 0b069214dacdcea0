"""The two lines under a real server with several workers: totals in every endpoint, from every worker."""

import pytest

from isp_perf.ops import PATHS
from services import SQUARES, Service, eventually


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("wrapped"), SQUARES)
    yield running
    running.stop()


def test_every_endpoint_tells_the_totals_of_all_workers(service):
    """Calls spread over the workers add up, and every worker that is asked gives the same answer."""
    for number in range(30):
        assert service.get(f"/squares/{number % 3}", accept_encoding="br")[1]["content-encoding"] == "br"
    eventually(lambda: service.json("/circuit-breakers")["circuit_breakers"]["whatsapp_api"]["success_count"], 30)
    for _ in range(6):
        cache = service.json("/cache/stats")["cache_stats"]
        assert cache["hits"] + cache["misses"] >= 30
        assert cache["hits"] >= 24
        breakers = service.json("/circuit-breakers")["circuit_breakers"]
        assert breakers["whatsapp_api"]["state"] == "closed"
        assert breakers["whatsapp_api"]["failure_count"] == 0
        assert breakers["whatsapp_api"]["success_count"] == 30
        compression = service.json("/compression/stats")["compression_stats"]
        assert compression["by_encoding"]["brotli"]["requests"] == 30
        assert compression["total_bytes_saved"] > 30 * 2500


def test_every_endpoint_answers_from_every_worker(service):
    """Health, figures and metrics answer 200; the figures come from the cache, warmed at the start."""
    for _ in range(4):
        assert {service.get(path)[0] for path in PATHS} == {200}
        figures = service.json("/performance/dashboard")["dashboard_stats"]
        assert figures == {
            "total_conversations": 1500,
            "active_conversations": 45,
            "messages_today": 3200,
            "cache_hit": True,
            "configured": True,
        }
