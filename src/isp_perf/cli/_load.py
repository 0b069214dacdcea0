"""A bounded HTTP load over loopback: the same requests in the same order for the same seed.

The plan is made before the first request, so two runs differ in nothing but the service they meet. Popularity follows
Zipf's law, as it does among customers, agents and open conversations.
"""

import asyncio
import json
import os
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, takewhile
from time import perf_counter

__all__ = ["Outcome", "Request", "apply", "plan"]

# The data of the example service (examples/support/seeding.py).
_AGENTS, _CUSTOMERS, _CONVERSATIONS, _PAGES = 40, 1_200, 5_000, 8
_MIX = {"inbox": 75, "profile": 16, "dashboard": 6, "answer": 3}  # percent
_SUCCESS = 2  # first digit of the status
_TIMEOUT = 30.0  # seconds for one answer
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, ready to be sent."""

    method: str
    path: str
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()

    def encode(self, host: str) -> bytes:
        """Return the bytes on the wire; the codings a browser accepts are accepted."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        if self.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        return head.encode() + b"\r\n" + self.body


@dataclass(slots=True)
class Outcome:
    """What a load measured.

    Args:
        seconds: wall time from the first request to the last answer.
        latencies: seconds of each answered request, in order of arrival.
        bytes_received: headers and bodies of all answers.
        failures: number of requests without an answer of class 2xx.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list[float])
    bytes_received: int = 0
    failures: int = 0

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Return the latency in seconds that ``share`` (0 to 1) of the requests did not exceed; 0.0 without any."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def plan(requests: int, seed: int) -> list[Request]:
    """Return ``requests`` requests drawn with ``seed``: inboxes, customers, the dashboard and agents' answers."""
    rng = random.Random(seed)
    kinds = rng.choices(list(_MIX), list(_MIX.values()), k=requests)
    draw = {
        "agent": _zipf(rng, _AGENTS, 0.8),
        "page": _zipf(rng, _PAGES, 3.0),
        "customer": _zipf(rng, _CUSTOMERS, 1.3),
        "recent": _zipf(rng, _CONVERSATIONS, 1.0),
    }
    return [_request(kind, number, draw) for number, kind in enumerate(kinds)]


def _request(kind: str, number: int, draw: Mapping[str, Callable[[], int]]) -> Request:
    if kind == "inbox":
        return Request("GET", f"/agents/{draw['agent']()}/conversations/{draw['page']()}")
    if kind == "profile":
        return Request("GET", f"/customers/{draw['customer']()}")
    if kind == "dashboard":
        return Request("GET", "/performance/dashboard")
    text = f"Olá! O seu atendimento número {number} está em andamento, já retornamos."
    conversation = _CONVERSATIONS + 1 - draw["recent"]()
    return Request("POST", f"/conversations/{conversation}/messages", json.dumps({"text": text}).encode())


def _zipf(rng: random.Random, n: int, exponent: float) -> Callable[[], int]:
    """Return a source of ranks 1 to ``n``, rank k with a weight of k ** -exponent."""
    steps = list(accumulate(k**-exponent for k in range(1, n + 1)))
    return lambda: bisect_left(steps, rng.random() * steps[-1]) + 1


async def apply(
    requests: Sequence[Request],
    port: int,
    *,
    connections: int,
    at_most: float | None = None,
    done: Callable[[], None] | None = None,
    host: str = "127.0.0.1",
    tls: bool = False,
) -> Outcome:
    """Send ``requests`` to ``host``:``port`` over ``connections`` kept-alive connections and measure.

    Each connection has one request under way and takes the next of the plan when it is answered; ``done`` is called
    after each. After ``at_most`` seconds no further request is taken, so those answered are the first of the plan.

    Raises:
        OSError: a connection was refused or broken off, or an answer took longer than 30 seconds.
    """
    outcome = Outcome()
    started = perf_counter()
    pending = iter(requests)
    if at_most is not None:
        pending = takewhile(lambda _: perf_counter() - started < at_most, pending)
    line = partial(_Line, host, port, tls=tls)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(connections, len(requests))):
                group.create_task(_connection(pending, outcome, line(), done=done or _ignore))
    except ExceptionGroup as errors:
        raise OSError(f"{host}:{port} stopped answering: {_first(errors)}") from errors
    outcome.seconds = perf_counter() - started
    return outcome


def _first(errors: ExceptionGroup) -> str:
    """Return what went wrong first, in words."""
    error = errors.exceptions[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _ignore() -> None:
    """Nobody watches."""


class _Line:
    """One kept-alive connection, opened when it is needed."""

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> tuple[int, int]:
        """Send a request and return status and size of its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        reader, writer = self._streams
        writer.write(request.encode(self._name))
        status, size, last = await _answer(reader, bodiless=request.method == "HEAD")
        if last:
            self.close()
        return status, size

    def close(self) -> None:
        """Close the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


async def _connection(pending: Iterator[Request], outcome: Outcome, line: _Line, *, done: Callable[[], None]) -> None:
    try:
        for request in pending:
            started = perf_counter()
            async with asyncio.timeout(_TIMEOUT):
                status, size = await line.ask(request)
            outcome.latencies.append(perf_counter() - started)
            outcome.bytes_received += size
            outcome.failures += status // 100 != _SUCCESS
            done()
    finally:
        line.close()


async def _answer(reader: asyncio.StreamReader, *, bodiless: bool) -> tuple[int, int, bool]:
    """Read one answer to its end; return its status, its size in bytes (head included), and whether it was the last."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    status, size = int(head.split(None, 2)[1]), len(head)
    last = b"close" in fields.get(b"connection", b"")
    if bodiless or status in _BODILESS:
        return status, size, last
    if b"content-length" in fields:
        size += len(await reader.readexactly(int(fields[b"content-length"])))
    elif b"chunked" in fields.get(b"transfer-encoding", b""):
        size += await _chunks(reader)
    else:
        size, last = size + len(await reader.read()), True
    return status, size, last


async def _chunks(reader: asyncio.StreamReader) -> int:
    """Read a chunked body and return its size on the wire."""
    size, chunk = 0, b""
    while chunk != b"\r\n":
        length = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(length.split(b";")[0], 16) + 2)
        size += len(length) + len(chunk)
    return size
