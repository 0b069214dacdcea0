"""The live page of a real server with two workers: the first figures at once, then a stream, for this machine only."""

import contextlib
import json
import time

import pytest

from services import SQUARES, Service

PATH = "/performance/dashboard"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("live"), SQUARES)
    yield running
    running.stop()


def test_the_first_figures_are_there_within_a_second(server):
    """A browser's request is answered in less than a second with a small page that holds the figures."""
    for number in range(9):
        assert server.get(f"/squares/{number % 3}")[0] == 200
    status, body, took, deadline = 0, b"", 1.0, time.monotonic() + 20
    while (b"/squares/{number}" not in body or took >= 1.0) and time.monotonic() < deadline:
        began = time.monotonic()  # figures may be a second old, and a busy machine may stand still in between
        status, headers, body = server.get(PATH, accept="text/html")
        took = time.monotonic() - began
    assert (status, took < 1.0) == (200, True)
    assert len(body) <= 40_000
    assert "script-src 'sha256-" in headers["content-security-policy"]
    assert b"/squares/{number}" in body
    assert b"square:{number}" in body
    assert b"1,500" in body


def test_for_everybody_else_it_is_the_seeds_json(server):
    """Programs such as curl get the seed's object, with the page's figures beside it on this machine."""
    _, headers, body = server.get(PATH, accept="*/*")
    answer = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert answer["dashboard_stats"]["total_conversations"] == 1500
    assert answer["performance"]["workers"]
    assert "performance" not in json.loads(server.get(PATH, x_forwarded_for="203.0.113.1")[2])


def test_through_a_proxy_there_is_no_page(server):
    """A request that was forwarded, or that names another host, is refused though it comes from this machine."""
    assert server.get(PATH, accept="text/html", x_forwarded_for="203.0.113.1")[0] == 403
    assert server.get(PATH, accept="text/html", host="rebound.example")[0] == 403


def test_the_stream_brings_the_changes(server):
    """The stream begins with all cards, goes on with the figures that changed, and is not compressed."""
    connection, answer = server.open(PATH, accept="text/event-stream", accept_encoding="gzip, br")
    with contextlib.closing(connection):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers
        assert set(_event(answer)["cards"]) >= {"now", "saved", "routes", "keys", "breakers"}
        server.get("/squares/1")
        deadline = time.monotonic() + 20
        while "cells" not in _event(answer):
            assert time.monotonic() < deadline, "no figure changed"


def test_an_open_page_does_not_keep_the_server_from_ending(tmp_path):
    """A server that is told to end while a stream is open ends it, and stops without being killed."""
    server = Service(tmp_path, SQUARES, workers=1)
    connection, answer = server.open(PATH, accept="text/event-stream")
    _event(answer)
    with contextlib.closing(connection):
        server.process.terminate()
        assert answer.read().endswith(b"event: again\ndata: {}\n\n")
        assert server.process.wait(25) in {0, -15}


def _event(answer):
    """Return the data of the next event."""
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    return json.loads(line[6:])
