"""``FaultProxy`` between a plain socket client and an echo server."""

import contextlib
import gc
import socket
import socketserver
import threading
import time

import pytest

from isp_perf.errors import ConfigurationError
from isp_perf.testing import FaultProxy


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it receives."""

    def handle(self):
        with contextlib.suppress(OSError):
            while data := self.request.recv(4096):
                self.server.seen.append(data)
                self.request.sendall(data)


@pytest.fixture
def echo():
    """An echo server in a thread."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo):
    """A proxy in front of the echo server."""
    with FaultProxy(*echo.server_address) as proxy:
        yield proxy


@contextlib.contextmanager
def connect(proxy):
    """A client of the proxy."""
    with socket.create_connection((proxy.host, proxy.port), timeout=20.0) as client:
        yield client


def hears_nothing(client, data):
    """Send, and tell whether nothing comes back for a moment."""
    client.settimeout(0.1)
    try:
        echoed(client, data)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20.0)
    return False


def until(condition):
    """Wait until ``condition`` holds, for 20 s at most, and tell whether it does."""
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def echoed(client, data):
    """Send and receive the same number of bytes."""
    client.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = client.recv(4096)
        if not piece:
            break
        got += piece
    return got


def test_without_a_fault_everything_passes(proxy):
    """The proxy changes nothing until it is told to."""
    with connect(proxy) as client:
        assert echoed(client, b"hello" * 1000) == b"hello" * 1000
    assert proxy.accepted == 1


def test_latency_delays(proxy):
    """Each piece of data is held back for the time given."""
    proxy.latency(0.05)
    with connect(proxy) as client:
        started = time.perf_counter()
        assert echoed(client, b"x") == b"x"
        assert time.perf_counter() - started >= 0.1


def test_a_blackhole_down_loses_answers_only(proxy, echo):
    """The server works, and the client hears nothing until the proxy is healed."""
    with connect(proxy) as client:
        proxy.blackhole(direction="down")
        assert hears_nothing(client, b"lost")
        assert until(lambda: echo.seen == [b"lost"])
        proxy.heal()
        assert echoed(client, b"heard") == b"heard"


def test_a_blackhole_up_keeps_requests_from_the_server(proxy, echo):
    """Nothing arrives at the server."""
    proxy.blackhole(direction="up")
    with connect(proxy) as client:
        assert hears_nothing(client, b"lost")
    assert echo.seen == []


def test_slices_arrive_whole(proxy):
    """Cut into single bytes, the data is the same."""
    proxy.slice(1)
    with connect(proxy) as client:
        assert echoed(client, bytes(range(256))) == bytes(range(256))


def test_corruption_inverts_bytes(proxy):
    """Each second byte of an answer is inverted."""
    proxy.corrupt(2)
    with connect(proxy) as client:
        assert echoed(client, b"\x00\x00\x00\x00") == b"\x00\xff\x00\xff"


def test_drop_closes_and_refuses_on_request(proxy):
    """A dropped connection ends in order; refusing ends new ones too, until healed."""
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"
        proxy.drop(refuse=True)
        assert client.recv(1) == b""
    with connect(proxy) as client:
        assert client.recv(1) == b""
    proxy.heal()
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"


def test_reset_cuts(proxy):
    """A reset connection raises at the client."""
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_half_close_ends_the_answers_only(proxy, echo):
    """The client reads the end, and what it sends still arrives."""
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"
        proxy.half_close()
        assert client.recv(1) == b""
        assert proxy.open == 1
        client.sendall(b"y")
        assert until(lambda: b"y" in echo.seen)


def test_bad_numbers_are_refused(echo):
    """A size of 0, a negative latency and an impossible port are configuration errors."""
    proxy = FaultProxy(*echo.server_address)
    for call in (lambda: proxy.slice(0), lambda: proxy.latency(-1), lambda: FaultProxy("h", 0)):
        with pytest.raises(ConfigurationError):
            call()
    with proxy:
        pass
    proxy.stop()


def test_an_absent_server_closes_the_connection():
    """A client of a proxy without a server is not left hanging."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with FaultProxy("127.0.0.1", free.getsockname()[1]) as proxy, connect(proxy) as client:
            assert client.recv(1) == b""


def test_it_ends_while_it_connects_and_leaves_no_socket():
    """A proxy whose server does not take the connection ends at once, and closes the client's."""
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):  # the queue of the server is full, whoever else connects is left waiting
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        with FaultProxy(*deaf.getsockname()) as proxy, connect(proxy) as client:
            assert until(lambda: proxy.accepted)
            assert proxy.open == 0
            proxy.stop()
            assert client.recv(1) == b""
        gc.collect()  # a socket that nobody closed says so here
