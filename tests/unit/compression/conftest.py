"""One request through an ASGI application, in memory."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from codings import UNPACK
from isp_perf.compression import CompressionMiddleware

START, BODY = "http.response.start", "http.response.body"
BROWSER = b"gzip, deflate, br, zstd"


def decode(coding: str | None, data: bytes) -> bytes:
    return data if coding is None else UNPACK[coding](data)


@dataclass
class Exchange:
    """What the client saw."""

    messages: list[Any] = field(default_factory=list)
    seen_scope: Any = None

    @property
    def start(self):
        return next(m for m in self.messages if m["type"] == START)

    @property
    def status(self):
        return self.start["status"]

    def values(self, name: bytes) -> list[bytes]:
        return [v for k, v in self.start.get("headers", ()) if k.lower() == name]

    def header(self, name: bytes) -> bytes | None:
        found = self.values(name)
        assert len(found) <= 1, (name, found)
        return found[0] if found else None

    @property
    def coding(self):
        value = self.header(b"content-encoding")
        return value.decode() if value else None

    @property
    def raw(self):
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == BODY)

    @property
    def body(self):
        return decode(self.coding, self.raw)


async def call(app, accept=BROWSER, *, headers=(), method="GET", path="/", send=None, **extra):
    """Run one request against an ASGI application and return what was sent."""
    exchange = Exchange()

    async def keep(message):
        exchange.messages.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    fields = [(b"host", b"test"), *([(b"accept-encoding", accept)] if accept is not None else []), *headers]
    scope = {"type": "http", "method": method, "path": path, "headers": fields, **extra}
    await app(scope, receive, send or keep)
    return exchange


def answer(body=b"", content_type=b"application/json", *, headers=(), status=200, chunks=None, seen=None, **start):
    """Return an application that gives one constant answer, whole or in chunks."""
    fields = [*([(b"content-type", content_type)] if content_type is not None else []), *headers]
    parts = [body] if chunks is None else list(chunks)
    messages = [{"type": BODY, "body": part, "more_body": True} for part in parts[:-1]] + [
        {"type": BODY, "body": parts[-1]}
    ]

    async def app(scope, receive, send):
        if seen is not None:
            seen.append(scope)
        await send({"type": START, "status": status, "headers": list(fields), **start})
        for message in messages:
            await send(dict(message))

    return app


async def serve(app, accept=BROWSER, *, request=None, **settings):
    """Run one request through a fresh middleware; the middleware is found as ``.middleware``."""
    middleware = CompressionMiddleware(app, **settings)
    exchange = await call(middleware, accept, **(request or {}))
    exchange.middleware = middleware
    return exchange


@pytest.fixture(scope="session")
def http():
    """The functions above, for tests that cannot import this file."""
    return SimpleNamespace(
        call=call, answer=answer, serve=serve, decode=decode, BROWSER=BROWSER, START=START, BODY=BODY
    )


@pytest.fixture(scope="session")
def big():
    """A compressible body of 4.6 KB."""
    return b'{"cliente": "Ana", "mensagem": "sem sinal"}' * 110
