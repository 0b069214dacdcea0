"""Datasette, an application nobody here wrote, wrapped by everything there is: its pages come out the same."""

import importlib
import sqlite3
from types import SimpleNamespace
from typing import NamedTuple

import httpx
import pytest

from isp_perf import CacheManager, CompressionMiddleware, RedisPool
from isp_perf.breaker import CircuitOpenMiddleware
from isp_perf.compression import RequestDecompressionMiddleware
from isp_perf.metrics import MetricsMiddleware

PAGES = [
    "/",
    "/isp",
    "/isp/clientes",
    "/isp/clientes?_sort_desc=nome&_size=20",
    "/isp/clientes?nome__contains=%C3%A3o&_facet=plano",
    "/isp/clientes?_size=20&_next=40",
    "/isp/clientes/7",
    "/isp/chamados/3",
    "/isp/clientes.csv?_size=max",
    "/isp/clientes.csv?_stream=on",
    "/isp/clientes.json?_shape=array&_size=100",
    "/isp/chamados.json?_labels=on",
    "/isp?sql=select+plano%2C+count%28*%29+from+clientes+group+by+plano",
    "/isp?sql=select+nothing+from+nowhere",
    "/isp/clientes/99999",
    "/no-such-database",
    "/-/static/app.css",
    "/isp.db",
]


class Page(NamedTuple):
    """A whole answer, as the cache keeps it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class CachedPages:
    """Answers GET requests without cookies through the cache, and hands everything else to the application."""

    def __init__(self, app, manager):
        self.app = app
        self.loads = 0
        self.page = manager.cached("page:{host}:{path}:{query}", ttl=60, when=lambda page: page.status == 200)(
            self.load
        )

    async def load(self, host: bytes, path: str, query: bytes, raw_path: bytes) -> Page:
        self.loads += 1
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
        scope |= {"path": path, "raw_path": raw_path, "query_string": query, "root_path": ""}
        scope |= {"headers": [(b"host", host)]}
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        start, *bodies = sent
        return Page(start["status"], list(start["headers"]), b"".join(part.get("body", b"") for part in bodies))

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or scope["method"] != "GET" or b"cookie" in headers:
            await self.app(scope, receive, send)
            return
        page = await self.page(headers[b"host"], scope["path"], scope["query_string"], scope["raw_path"])
        await send({"type": "http.response.start", "status": page.status, "headers": page.headers})
        await send({"type": "http.response.body", "body": page.body})


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A SQLite file with customers and their tickets, in Portuguese."""
    path = tmp_path_factory.mktemp("datasette") / "isp.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE clientes (id INTEGER PRIMARY KEY, nome TEXT, plano TEXT, foto BLOB)")
        connection.execute(
            "CREATE TABLE chamados (id INTEGER PRIMARY KEY, cliente_id INTEGER REFERENCES clientes(id), texto TEXT)"
        )
        names = ("João", "Conceição", "Sebastião", "Inês", "Müller & Söhne", "<b>Zé</b>")
        connection.executemany(
            "INSERT INTO clientes VALUES (?, ?, ?, ?)",
            [
                (i, f"{names[i % 6]} {i}", f"Fibra {200 * (i % 3 + 1)} Mega", bytes([i % 256]) * 9)
                for i in range(1, 301)
            ],
        )
        connection.executemany(
            "INSERT INTO chamados VALUES (?, ?, ?)",
            [(i, i % 300 + 1, f"Estou sem conexão há {i} horas; já reiniciei o roteador.") for i in range(1, 601)],
        )
    connection.close()
    return path


@pytest.fixture
async def datasette(database, monkeypatch):
    """The application as it is; its pages print how long a query took, so that its stopwatch stands still."""
    opened, connect = [], sqlite3.connect

    def recorded(*args, **options):
        opened.append(connect(*args, **options | {"check_same_thread": False}))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    module = importlib.import_module("datasette.app")  # not sooner: the import opens a connection of its own
    monkeypatch.setattr("datasette.views.base.time", SimpleNamespace(perf_counter=lambda: 0.0))
    served = module.Datasette([str(database)], settings={"allow_download": True, "default_cache_ttl": 0})
    await served.invoke_startup()
    yield served
    for connection in opened:  # Datasette itself leaves those in memory open
        connection.close()


def _wrap(app, manager):
    pages = CachedPages(app, manager)
    wrapped = RequestDecompressionMiddleware(CompressionMiddleware(CircuitOpenMiddleware(pages), minimum_size=200))
    return MetricsMiddleware(wrapped), pages


def _client(app, coding="identity"):
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://isp.test", headers={"accept-encoding": coding})


def _told(answer):
    """What a reader of an answer is told: its status, type, target and place."""
    kept = ("content-type", "location", "link", "cache-control", "content-disposition")
    return answer.status_code, {name: answer.headers[name] for name in kept if name in answer.headers}


@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
async def test_every_page_is_the_same_byte_for_byte(datasette, coding):
    """Pages, tables, facets, CSV, streams, JSON, errors, static files and downloads are unchanged, cached or not."""
    wrapped, pages = _wrap(datasette.app(), CacheManager())
    async with _client(datasette.app()) as plain, _client(wrapped, coding) as ours:
        for path in PAGES:
            expected = await plain.get(path)
            first, second = await ours.get(path), await ours.get(path)
            assert first.content == second.content == expected.content, path
            assert _told(first) == _told(second) == _told(expected), path
            if coding == "identity":
                assert "content-encoding" not in first.headers
    assert len(PAGES) < pages.loads < 2 * len(PAGES), "errors are asked for again, all else comes from the cache"


async def test_a_large_page_gets_much_smaller(datasette):
    """What the wrapping is for: a table page is less than a fifth on the wire, and its second view asks nobody."""
    wrapped, pages = _wrap(datasette.app(), CacheManager())
    async with _client(wrapped, "br") as ours:
        answers = [await ours.get("/isp/clientes?_size=100") for _ in range(3)]
        raw = b"".join([part async for part in (await ours.send(answers[0].request, stream=True)).aiter_raw()])
    assert pages.loads == 1
    assert answers[0].headers["content-encoding"] == "br"
    assert len(raw) < len(answers[0].content) / 5


async def test_pages_for_a_person_are_not_cached(datasette):
    """A request with a cookie goes to the application each time."""
    wrapped, pages = _wrap(datasette.app(), CacheManager())
    async with _client(datasette.app()) as plain, _client(wrapped) as ours:
        expected = await plain.get("/isp/clientes", headers={"cookie": "ds_messages=x"})
        answer = await ours.get("/isp/clientes", headers={"cookie": "ds_messages=x"})
    assert answer.content == expected.content
    assert pages.loads == 0


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
async def test_other_methods_pass_through(datasette, method):
    """HEAD, POST and OPTIONS are answered as by the application itself."""
    wrapped, pages = _wrap(datasette.app(), CacheManager())
    async with _client(datasette.app()) as plain, _client(wrapped) as ours:
        expected, answer = await plain.request(method, "/isp/clientes"), await ours.request(method, "/isp/clientes")
    assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
    assert pages.loads == 0


async def test_the_second_level_keeps_pages_byte_for_byte(datasette, redis_url):
    """A page that comes back from Redis in another process's cache is the same page."""
    namespace = "datasette"
    async with RedisPool(redis_url) as pool:
        first, filled = _wrap(datasette.app(), CacheManager(redis=pool, namespace=namespace))
        second, untouched = _wrap(datasette.app(), CacheManager(redis=pool, namespace=namespace))
        async with _client(datasette.app()) as plain, _client(first) as one, _client(second) as other:
            for path in PAGES[:11]:
                expected = (await plain.get(path)).content
                assert (await one.get(path)).content == expected
                assert (await other.get(path)).content == expected
    assert filled.loads == 11
    assert untouched.loads == 0
