"""The two lines under a real server with several workers: totals in every endpoint, from every worker."""

import socket
import subprocess
import sys
import textwrap
import time

import httpx
import pytest

from isp_perf.ops import PATHS

APPLICATION = textwrap.dedent("""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route
    from isp_perf.breaker import circuit_breaker, WHATSAPP_CIRCUIT_CONFIG
    from isp_perf.cache import cached
    from isp_perf.toolkit import Toolkit

    @cached("square:{number}", ttl=60)
    async def square(number: int) -> int:
        return number * number

    @circuit_breaker("whatsapp_api", WHATSAPP_CIRCUIT_CONFIG)
    async def send(number: int) -> int:
        return number

    async def page(request):
        number = request.path_params["number"]
        await send(number)
        return JSONResponse({"square": await square(number), "text": "x" * 3000})

    async def figures():
        return {"total_conversations": 1500, "active_conversations": 45, "messages_today": 3200}

    app = Toolkit.from_env().wrap(Starlette(routes=[Route("/squares/{number:int}", page)]), dashboard=figures)
""")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapped")
    (folder / "wrapped_service.py").write_text(APPLICATION)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "wrapped_service:app", "--workers", "2", "--port", port]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder)
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/live")
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            pytest.fail("the server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_every_endpoint_tells_the_totals_of_all_workers(url):
    """Calls spread over the workers add up, and every worker that is asked gives the same answer."""
    for number in range(30):
        assert httpx.get(f"{url}/squares/{number % 3}", headers={"accept-encoding": "br"}).json()["text"]
    for _ in range(6):
        cache = httpx.get(f"{url}/cache/stats").json()["cache_stats"]
        assert cache["hits"] + cache["misses"] >= 30
        assert cache["hits"] >= 24
        breakers = httpx.get(f"{url}/circuit-breakers").json()["circuit_breakers"]
        assert breakers["whatsapp_api"]["state"] == "closed"
        assert breakers["whatsapp_api"]["failure_count"] == 0
        assert breakers["whatsapp_api"]["success_count"] == 30
        compression = httpx.get(f"{url}/compression/stats").json()["compression_stats"]
        assert compression["by_encoding"]["brotli"]["requests"] == 30
        assert compression["total_bytes_saved"] > 30 * 2500


def test_every_endpoint_answers_from_every_worker(url):
    """Health, figures and metrics answer 200; the figures come from the cache, warmed at the start."""
    for _ in range(4):
        assert {httpx.get(url + path).status_code for path in PATHS} == {200}
        figures = httpx.get(f"{url}/performance/dashboard").json()["dashboard_stats"]
        assert figures == {
            "total_conversations": 1500,
            "active_conversations": 45,
            "messages_today": 3200,
            "cache_hit": True,
            "configured": True,
        }
