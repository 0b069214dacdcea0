"""A breaker around a real HTTP client and a server that resets, hangs, or asks to be left alone."""

import asyncio
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitOpenError, retry_after
from isp_perf.testing import ManualClock


@asynccontextmanager
async def server(behave):
    """Serve on a free port; ``behave(reader, writer)`` is each connection's whole life."""
    connections = []

    async def handle(reader, writer):
        connections.append((asyncio.current_task(), writer))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await behave(reader, writer)

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        for _ in range(10):  # rounds of the loop: a connection that was made just now gets its handler, and is closed
            await asyncio.sleep(0.002)
        listening.close()
        for task, writer in connections:
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*(task for task, _ in connections), return_exceptions=True)
        for _, writer in connections:
            with suppress(ConnectionError):
                await writer.wait_closed()


async def answer(writer, status, *headers):
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()


def protected(config):
    breaker = CircuitBreaker("api", config, clock=ManualClock())

    @breaker
    async def fetch(url):
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            response = await client.get(url, timeout=30)
            return response.status_code

    return breaker, fetch


async def test_connections_that_break_open_the_circuit():
    """A server that closes without an answer is a failing service."""

    async def vanish(reader, writer):
        writer.transport.abort()

    breaker, fetch = protected(CircuitConfig(failure_threshold=2))
    async with server(vanish) as url:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await fetch(url)
        with pytest.raises(CircuitOpenError):
            await fetch(url)
    assert breaker.counts.failures == 2


async def test_server_that_hangs_opens_the_circuit_through_the_timeout():
    """A server that never answers is found out by the breaker's own timeout."""

    async def hang(reader, writer):
        await asyncio.sleep(60)

    breaker, fetch = protected(CircuitConfig(failure_threshold=2, timeout=0.1))
    async with server(hang) as url:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await fetch(url)
    assert breaker.state == "open"


async def test_retry_after_of_a_real_response_is_respected():
    """A 503 with Retry-After opens the circuit at once for the stated seconds."""

    async def busy(reader, writer):
        await answer(writer, "503 Service Unavailable", "Retry-After: 17")

    breaker = CircuitBreaker("api", CircuitConfig(retry_after=retry_after), clock=ManualClock())
    async with server(busy) as url, httpx.AsyncClient(trust_env=False, verify=False) as client:
        response = await breaker.acall(client.get, url)
        assert response.status_code == 503
        assert breaker.retry_after == 17.0
        with pytest.raises(CircuitOpenError):
            await breaker.acall(client.get, url)
