"""Asks an ASGI application for its own pages, within this process, and watches what each answer costs."""

import asyncio
import gc
import sys
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from isp_perf._core.query_findings import Finding, Statement
from isp_perf.metrics._asgi import ASGIApp, Message

if TYPE_CHECKING:
    from isp_perf.queries import IndexAdvice

__all__ = ["Probe", "pages_of", "probe"]

_REPEATS: Final = 4
_TIMEOUT: Final = 30.0  # seconds for one answer
_WRAPPERS: Final = ("app", "_app")
_DEEPEST: Final = 20
_NO_PAGES: Final = ("/openapi", "/docs", "/redoc")


@dataclass(slots=True)
class Probe:
    """What the answers of one page were like.

    Attributes:
        path: of the page.
        status: of the last answer.
        seconds: median time of an answer, the first one left out.
        body: of the last answer.
        media: its content type.
        coding: its content coding, empty without one.
        same: every answer was the same.
        statements: statements sent to the database for one answer.
        findings: what could have been done in fewer.
        slowest: the slowest of the statements.
        sent: the statements of the last answer.
    """

    path: str
    status: int = 0
    seconds: float = 0.0
    body: bytes = b""
    media: str = ""
    coding: str = ""
    same: bool = True
    statements: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    slowest: Statement | None = None
    sent: list[Statement] = field(default_factory=list[Statement])


def pages_of(app: Any) -> list[str]:
    """Return the paths of an application's GET routes that have no parameter, in Starlette's and FastAPI's way."""
    routes = [route for layer in _layers(app) for route in getattr(layer, "routes", None) or ()]
    return list(dict.fromkeys(filter(None, map(_page_of, routes))))


def _page_of(route: Any) -> str:
    """Return the path of a route that can be asked for as it is, else an empty one."""
    path: str = getattr(route, "path", "")
    asked = "GET" in (getattr(route, "methods", None) or ())
    return path if asked and "{" not in path and not path.startswith(_NO_PAGES) else ""


def _layers(app: Any) -> Iterator[Any]:
    """Yield an application and what it is wrapped around, from the outside in."""
    for _ in range(_DEEPEST):
        yield app
        inside = [getattr(app, name, None) for name in _WRAPPERS]
        app = next((inner for inner in inside if inner is not None), None)
        if app is None:
            return


async def probe(app: ASGIApp, paths: Iterable[str]) -> tuple[list[Probe], "list[IndexAdvice]"]:
    """Start the application, ask for each path some times and for the indexes that its statements lack, and stop it.

    Raises:
        OSError: the application's startup failed.
    """
    async with _started(app):
        _watch_engines()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is found is told by us, once
            pages = [await _page(app, path) for path in paths]
            return pages, await _indexes()


async def _indexes() -> "list[IndexAdvice]":
    if "isp_perf.queries._watch" not in sys.modules:
        return []
    from isp_perf.queries._checkup import advise_watched
    from isp_perf.queries._count import QueryCount

    with QueryCount(watched=False):  # the questions of the advisor are no findings
        return await advise_watched()


async def _page(app: ASGIApp, path: str) -> Probe:
    found = Probe(path)
    times: list[float] = []
    bodies: set[bytes] = set()
    for _ in range(1 + _REPEATS):
        began = perf_counter()
        if "isp_perf.queries._count" in sys.modules:
            from isp_perf.queries._count import QueryCount

            with QueryCount(watched=False) as queries:
                await _ask(app, found)
            found.statements, found.findings = queries.count, queries.findings
            found.slowest = max(queries.statements, key=lambda one: one.seconds / one.count, default=None)
            found.sent = queries.statements
        else:
            await _ask(app, found)
        times.append(perf_counter() - began)
        bodies.add(found.body)
    found.seconds, found.same = median(times[1:]), len(bodies) == 1
    return found


async def _ask(app: ASGIApp, found: Probe) -> None:
    """Ask for a page once."""
    asked: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
    body = bytearray()
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def receive() -> Message:
        return asked.pop() if asked else await never

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value.decode("latin-1") for name, value in message.get("headers", ())}
            found.status = message["status"]
            found.media, found.coding = headers.get(b"content-type", ""), headers.get(b"content-encoding", "")
        else:
            body.extend(message.get("body", b""))

    try:
        async with asyncio.timeout(_TIMEOUT):
            await app(_scope(found.path), receive, send)
    except TimeoutError:
        found.status = 504
    except Exception as error:
        found.status, found.media = 500, f"raised {type(error).__name__}"
        if isinstance(error, (MemoryError, RecursionError)):
            raise
    finally:
        never.cancel()
    found.body = bytes(body)


def _scope(url: str) -> MutableMapping[str, Any]:
    """Return what a server says of a request for ``url``, a path with or without a query."""
    path, _, query = url.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), (b"accept-encoding", b"br, gzip"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "state": {},
    }


@asynccontextmanager
async def _started(app: ASGIApp) -> AsyncGenerator[None]:
    """Run the application's lifespan around the block, if it has one."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    running = asyncio.create_task(_lifespan(app, asked, said))
    await asked.put({"type": "lifespan.startup"})
    answer = await said.get()
    if answer["type"] == "lifespan.startup.failed":
        running.cancel()
        raise OSError(f"the application did not start: {answer.get('message', '')}")
    try:
        yield
    finally:
        await asked.put({"type": "lifespan.shutdown"})
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), _TIMEOUT)


async def _lifespan(app: ASGIApp, asked: asyncio.Queue[Message], said: asyncio.Queue[Mapping[str, Any]]) -> None:
    async def send(message: Message) -> None:
        await said.put(message)

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    [error] = await asyncio.gather(app(scope, asked.get, send), return_exceptions=True)
    if isinstance(error, Exception):  # an application without a lifespan may raise
        await said.put({"type": "lifespan.unsupported"})


def _watch_engines() -> None:
    """Watch the statements of every SQLAlchemy engine of this process that nobody watches yet."""
    kind = getattr(sys.modules.get("sqlalchemy"), "Engine", None)
    if kind is None:
        return
    from isp_perf.queries import install
    from isp_perf.queries._watch import WATCHES

    watched = {id(watch.engine) for watch in WATCHES}
    for engine in list(_instances(kind)):
        if id(engine) not in watched:
            install(engine, batching="off", detect="off")


def _instances(kind: type) -> Iterator[Any]:
    return (thing for thing in gc.get_objects() if issubclass(type(thing), kind))
