"""Asking a running service: URLs as people write them, and every failure one clear line."""

import http.server
import json
import socket
import threading

import pytest

from isp_perf.cli import main
from isp_perf.cli._remote import Remote
from isp_perf.errors import ConfigurationError


@pytest.fixture
def answering():
    """A server that answers every path with what `answers` says, and notes requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answers, seen = {}, []

        def do_GET(self):
            self.seen.append((self.path, dict(self.headers)))
            status, body = self.answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("end", ["", "/", "/performance/dashboard", "/metrics", "/health/live"])
def test_any_address_of_the_service_will_do(answering, end):
    """The base, with or without a slash, or the address of one endpoint: the same service is asked, prefix included."""
    answering.answers["/ops/health"] = 200, b'{"status": "healthy"}'
    remote = Remote(f"{answering.url}/ops{end}", ["X-Key: a:b"])
    assert remote.health() == {"status": "healthy"}
    assert remote.url == f"{answering.url}/ops"
    assert answering.seen[-1][1]["X-Key"] == "a:b"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "http://a:b", "http://[::1", "", "http://a:0"])
def test_what_is_no_url_is_refused(url):
    """A wrong URL is a ConfigurationError that shows a right one."""
    with pytest.raises(ConfigurationError, match="http://127"):
        Remote(url, [])


@pytest.mark.parametrize("line", ["Authorization", ": x", "a\r\nb: c", ""])
def test_what_is_no_header_is_refused_without_its_value(line):
    """A wrong header line is refused, and its value, which may be a secret, is not shown."""
    with pytest.raises(ConfigurationError, match="Name: value"):
        Remote("http://a", [line])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"oops", "answered 500"),
        (403, b'{"detail": "not allowed"}', "403: not allowed"),
        (200, b"<html>", "without JSON"),
        (200, b"[1]", "other JSON"),
        (200, b'{"dashboard_stats": {}}', "no figures here"),
    ],
)
def test_answers_that_help_nobody_are_one_line(answering, capsys, status, body, said):
    """Errors, other pages and other JSON are exit code 1 with the address and the reason."""
    answering.answers["/performance/dashboard?fresh=1"] = status, body
    for command in ("top", "doctor", "report"):
        assert main([command, answering.url]) == 1
        errors = capsys.readouterr().err
        assert said in errors
        assert len(errors.splitlines()) == 1


def test_nobody_there_is_one_line(capsys):
    """A port where nobody listens is exit code 1."""
    assert main(["stats", "http://127.0.0.1:1"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_stats_of_an_unhealthy_service_are_shown(answering, capsys):
    """A 503 of /health is an answer: the figures are printed and the exit code is 1."""
    redis = {"status": "unhealthy", "ping_time_ms": None, "pool_info": {"created_connections": 0}}
    cache = {"hits": 5, "misses": 5, "hit_rate": 50.0, "l1_size": 3}
    answering.answers |= {
        "/health": (503, b'{"status": "unhealthy", "checks": {}}'),
        "/cache/stats": (200, json.dumps({"cache_stats": cache, "redis_health": redis}).encode()),
        "/compression/stats": (200, b'{"compression_stats": {"total_requests": 0, "total_bytes_saved": 0}}'),
        "/circuit-breakers": (200, b'{"circuit_breakers": {}}'),
    }
    assert main(["stats", answering.url]) == 1
    assert "50.0 % of 10 reads" in capsys.readouterr().out


def test_what_speaks_no_http_is_one_line(capsys):
    """A server of another protocol, and plain HTTP behind https, are exit code 1 without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            for _ in range(2):
                connection, _ = listening.accept()
                connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
                connection.recv(4096)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        for scheme in ("http", "https"):
            assert main(["stats", f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"]) == 1
        thread.join(10)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "does not speak HTTP" in errors[0]
