"""Who gets the live page, and in which form the client asked for it."""

import pytest

from isp_perf.ops._viewer import is_local, wanted


def scope(client=("127.0.0.1", 5000), **headers):
    named = {"host": "localhost:8000", **headers}
    return {
        "type": "http",
        "client": client,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()],
    }


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/health+json", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "page"),
        ("text/event-stream", "stream"),
        ("application/json;q=0.5, text/html", "page"),
        ("application/json, text/html;q=0.5", "json"),
        ("text/html;q=0", "json"),
        ("text/html;q=x", "json"),
        ("text/html;q=\N{SUPERSCRIPT TWO}", "json"),
        ("TEXT/HTML", "page"),
        (";;,,=", "json"),
    ],
)
def test_the_form_is_what_was_asked_for(accept, form):
    """Browsers get the page, event sources the stream, everybody else JSON; weights count, nonsense does not."""
    asked = {"type": "http", "headers": [(b"accept", accept.encode("utf-8"))]}
    assert wanted(asked) == form


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1:8000", "[::1]:8000", "app.localhost"])
@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_local(host, client):
    """Every loopback address counts, in both families, with every name of this machine."""
    assert is_local(scope((client, 1), host=host))


@pytest.mark.parametrize(
    "asked",
    [
        scope(("192.0.2.1", 1)),
        scope(("", 0)),
        scope(None),
        scope(("unix:/run/app.sock", 0)),
        scope(host="evil.example"),
        scope(host=""),
        scope(host="localhost.evil.example"),
        scope(host="127.0.0.1.evil.example"),
        scope(x_forwarded_for="203.0.113.9"),
        scope(forwarded="for=203.0.113.9"),
        scope(x_real_ip="127.0.0.1"),
        scope(via="1.1 proxy"),
    ],
)
def test_everybody_else_is_not(asked):
    """Other addresses, sockets without one, requests through a proxy and names that were bent to us are not local."""
    assert not is_local(asked)
