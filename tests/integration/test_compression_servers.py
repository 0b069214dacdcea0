"""Real ends: a uvicorn server on a socket, and the clients that people use.

The default run has uvicorn with httpx, the standard library and h11. curl, aiohttp, urllib3, hypercorn and granian join
where they are installed.
"""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time

import httpx
import pytest
import uvicorn

from codings import PACK, UNPACK
from isp_perf.compression import CompressionMiddleware, RequestDecompressionMiddleware

PATIENCE = 60  # seconds that nothing takes here, unless it hangs
LIST = json.dumps([{"id": i, "cliente": "Ana", "texto": "sem sinal"} for i in range(400)]).encode()
READ = [threading.Event() for _ in range(3)]  # set when a client has read the event of that number


async def application(scope, receive, send):
    """Serve a list, a stream, events, a conditional resource, a truncated stream, and an echo."""
    path = scope["path"]

    async def head(kind, *fields, status=200):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *fields]})

    async def body(data, more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "/list":
        if dict(scope["headers"]).get(b"if-none-match") == b'"v1"':
            await head(b"application/json", (b"etag", b'"v1"'), status=304)
            return await body(b"")
        await head(b"application/json", (b"etag", b'"v1"'), (b"content-length", b"%d" % len(LIST)))
        return await body(b"" if scope["method"] == "HEAD" else LIST)
    if path in ("/stream", "/cut"):
        await head(b"text/plain")
        for i in range(0, len(LIST), 1000):
            await body(LIST[i : i + 1000], more=True)
        if path == "/cut":
            raise ConnectionAbortedError("the application gave up")
        return await body(b"")
    if path == "/events":
        await head(b"text/event-stream")
        for i in range(3):
            await body(b"data: %d\n\n" % i, more=True)
            await asyncio.to_thread(READ[i].wait, PATIENCE)
        return await body(b"")
    data = b""
    while True:
        message = await receive()
        data += message.get("body", b"")
        if not message.get("more_body"):
            break
    await head(b"text/plain")
    return await body(b"%d" % len(data))


def wrapped():
    return CompressionMiddleware(RequestDecompressionMiddleware(application))


@pytest.fixture(scope="module")
def url():
    """The address of a uvicorn server in a thread."""
    server = uvicorn.Server(uvicorn.Config(wrapped(), port=0, log_level="critical", lifespan="off"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join(PATIENCE)


def raw_get(url, path, accept, **headers):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept-Encoding": accept, **headers})
        response = connection.getresponse()
        return response, response.read()


@pytest.mark.parametrize("path", ["/list", "/stream"])
@pytest.mark.parametrize("coding", sorted(UNPACK))
def test_bytes_on_the_wire_are_the_coding(url, path, coding):
    """Over a real socket each coding arrives whole, framed and decodable, streamed or not."""
    response, data = raw_get(url, path, coding)
    assert response.headers.get_all("content-encoding") == [coding]
    assert response.headers["vary"] == "Accept-Encoding"
    assert UNPACK[coding](data) == LIST
    assert len(data) < len(LIST) / 3


def test_httpx_reads_every_path(url):
    """Httpx decodes what it asked for, and a conditional request gets its 304 with the same tag."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        for path in ("/list", "/stream"):
            assert client.get(path).content == LIST
        first = client.get("/list")
        assert first.headers["etag"].startswith('W/"v1-')
        second = client.get("/list", headers={"if-none-match": first.headers["etag"]})
        assert (second.status_code, second.headers["etag"]) == (304, first.headers["etag"])
        head = client.head("/list")
        assert head.headers["content-encoding"] == first.headers["content-encoding"]


def test_events_arrive_one_by_one(url):
    """Each event can be read before the next one is sent: the application waits until it was."""
    received = []
    with httpx.stream("GET", url + "/events", timeout=PATIENCE) as response:
        assert response.headers["content-encoding"] == "gzip"
        for text in filter(None, response.iter_text()):
            READ[len(received)].set()
            received.append(text)
    assert received == ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"]


def test_a_broken_stream_does_not_look_whole(url):
    """A client of a stream that broke off sees an error, not a shorter body."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.DecodingError)):
        httpx.get(url + "/cut", timeout=PATIENCE)
    with pytest.raises(http.client.IncompleteRead):
        raw_get(url, "/cut", "gzip")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_uploads_are_opened(url, coding):
    """A coded upload reaches the application plain, and a damaged one is 400."""
    packed = PACK[coding](LIST)
    with httpx.Client(base_url=url, headers={"content-encoding": coding}, timeout=PATIENCE) as client:
        assert client.post("/echo", content=packed).text == str(len(LIST))
        assert client.post("/echo", content=packed[:-9]).status_code == 400


def test_curl_decodes_what_it_asks_for(url):
    """Curl --compressed prints the body of a whole and of a streamed response."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    for path in ("/list", "/stream"):
        assert subprocess.check_output([curl, "-s", "--compressed", url + path], timeout=PATIENCE) == LIST


def test_node_fetch_decodes_what_it_asks_for(url):
    """Node's fetch reads the body of a whole and of a streamed response."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = f"for (const p of ['/list', '/stream']) process.stdout.write(await (await fetch('{url}' + p)).text())"
    assert subprocess.check_output([node, "--input-type=module", "-e", script], timeout=PATIENCE) == LIST * 2


def test_urllib3_decodes_what_it_asks_for(url):
    """urllib3 with its brotli and zstd support reads the body."""
    urllib3 = pytest.importorskip("urllib3", reason="urllib3 is not installed")
    for accept in ("br", "gzip", "deflate"):
        assert urllib3.request("GET", url + "/stream", headers={"accept-encoding": accept}).data == LIST


async def test_aiohttp_decodes_what_it_asks_for(url):
    """Aiohttp reads the body of a whole and of a streamed response."""
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    async with aiohttp.ClientSession() as session:
        for path in ("/list", "/stream"):
            async with session.get(url + path) as response:
                assert await response.read() == LIST


@pytest.mark.parametrize(
    ("server", "arguments"),
    [
        ("hypercorn", ["-b", "127.0.0.1:{port}", "served:app"]),
        ("granian", ["--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "served:app"]),
    ],
)
def test_other_servers_serve_the_same(tmp_path, server, arguments):
    """Hypercorn and granian put the same coded bytes on the wire."""
    if importlib.util.find_spec(server) is None:
        pytest.skip(f"{server} is not installed")
    (tmp_path / "served.py").write_text(
        textwrap.dedent("""
        from isp_perf.compression import CompressionMiddleware
        BODY = b"sem sinal " * 500

        async def plain(scope, receive, send):
            if scope["type"] != "http":
                raise RuntimeError("http only")
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            if scope["path"] == "/stream":
                await send({"type": "http.response.body", "body": BODY[:99], "more_body": True})
                await send({"type": "http.response.body", "body": BODY[99:]})
            else:
                await send({"type": "http.response.body", "body": BODY})

        app = CompressionMiddleware(plain)
        """)
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", server, *[argument.format(port=port) for argument in arguments]]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                raw_get(address, "/", "gzip")
                break
            time.sleep(0.1)
        for path in ("/", "/stream"):
            for coding, decode in UNPACK.items():
                response, data = raw_get(address, path, coding)
                assert (response.headers["content-encoding"], decode(data)) == (coding, b"sem sinal " * 500)
    finally:
        process.terminate()
        process.wait(PATIENCE)
