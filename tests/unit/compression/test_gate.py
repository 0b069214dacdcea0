"""The quick decision by the head alone, and that it is the Responder's decision."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.compression import CompressionMiddleware, Options
from isp_perf.compression._gate import Gate
from isp_perf.compression._responder import Responder

fields = st.lists(
    st.sampled_from(
        [
            (b"content-type", b"application/json"),
            (b"Content-Type", b"text/plain"),
            (b"CONTENT-TYPE", b"image/png"),
            (b"content-type", b"image/png"),
            (b"content-length", b"0"),
            (b"content-length", b"007"),
            (b"Content-Length", b"999"),
            (b"content-length", b"1023"),
            (b"content-length", b"5000"),
            (b"content-length", b"-1"),
            (b"content-encoding", b"identity"),
            (b"content-encoding", b"br"),
            (b"content-range", b"bytes 0-1/9"),
            (b"cache-control", b"no-transform"),
            (b"cache-control", b"max-age=1"),
            (b"vary", b"Origin"),
            (b"Vary", b"accept-encoding"),
            (b"etag", b'"v"'),
        ]
    ),
    max_size=5,
)
accepts = st.sampled_from([None, b"", b"br", b"gzip;q=0", b"identity, br;q=0.5", b"br, identity;q=0", b"*;q=0"])
statuses = st.sampled_from([100, 200, 201, 204, 205, 206, 301, 304, 404, 416, 500, 799])
sizes = st.sampled_from([0, 7, 3000])
wishes = st.sampled_from([None, False, "gzip", Options(minimum_size=1), Options(minimum_size=5000)])


async def through_the_responder_alone(middleware, app, scope, send):
    request = middleware._engine.request(scope)
    if request.answer is not None:
        return await request.answer(scope["method"], send)
    scope = request.scope or scope
    return await Responder(request, scope, send).serve(app, None)


@settings(max_examples=150)
@given(
    fields, accepts, statuses, st.sampled_from(["GET", "HEAD"]), wishes, st.booleans(), st.sampled_from([0, 7, 3000])
)
def test_the_gate_decides_as_the_responder_does(headers, accept, status, method, wish, marked, size):
    """Every message, every counted reason and every byte is the same without the short cut."""

    async def endpoint():
        pass

    if marked:
        endpoint._isp_perf_no_compression = True

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"a" * size})

    asked = [] if accept is None else [(b"accept-encoding", accept)]
    scope = {"type": "http", "method": method, "path": "/", "headers": asked, "endpoint": endpoint}
    if wish is not None:
        scope["isp_perf.compression"] = wish
    results = []
    for direct in (False, True):
        middleware, sent = CompressionMiddleware(app), []

        async def keep(message, sent=sent):
            sent.append(message)

        run = through_the_responder_alone(middleware, app, dict(scope), keep) if direct else None
        asyncio.run(run or middleware(dict(scope), None, keep))
        figures = middleware.stats.as_dict()
        figures.pop("codec_seconds")
        results.append((sent, figures))
    assert results[0] == results[1]


@pytest.mark.parametrize(("kind", "asked"), [(b"image/png", b"br"), (b"text/plain", None), (b"text/plain", b"br;q=0")])
async def test_a_response_that_stays_uncoded_needs_no_responder(http, monkeypatch, kind, asked):
    """What the head decides never builds the state machine."""
    seen = []
    monkeypatch.setattr("isp_perf.compression._gate.Responder", seen.append)
    exchange = await http.call(CompressionMiddleware(http.answer(b"a" * 5000, kind)), asked)
    assert (exchange.raw, seen) == (b"a" * 5000, [])


async def test_the_first_message_decides_for_all(http):
    """After the head of an uncoded response every message goes to the server as the very same object."""
    sent = []
    messages = [
        {"type": http.START, "status": 200, "headers": [(b"content-type", b"image/png")]},
        {"type": http.BODY, "body": b"a", "more_body": True},
        {"type": "http.response.debug", "info": {}},
        {"type": http.BODY, "body": b""},
    ]

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    async def keep(message):
        sent.append(message)

    await http.call(CompressionMiddleware(app), send=keep)
    assert all(mine is theirs for mine, theirs in zip(sent, messages, strict=True))


async def test_a_response_that_never_began_is_counted_once(http):
    """An application that fails, or returns, without a word is one aborted response."""

    async def silent(scope, receive, send):
        pass

    async def failing(scope, receive, send):
        raise LookupError

    middleware = CompressionMiddleware(silent)
    await http.call(middleware)
    assert middleware.stats.skipped["aborted"] == 1
    middleware = CompressionMiddleware(failing)
    with pytest.raises(LookupError):
        await http.call(middleware)
    assert middleware.stats.skipped["aborted"] == 1


async def test_a_failure_after_an_uncoded_head_is_not_counted_again(http):
    """The head was counted as what it was; what fails later adds nothing."""

    async def app(scope, receive, send):
        await http.answer(b"a" * 9, b"image/png")(scope, receive, send)
        raise LookupError

    middleware = CompressionMiddleware(app)
    with pytest.raises(LookupError):
        await http.call(middleware)
    assert {reason: n for reason, n in middleware.stats.skipped.items() if n} == {"type": 1}


def test_a_gate_has_no_dictionary():
    """One gate is made per request, so it is slots only."""
    assert not hasattr(Gate(None, {}, None), "__dict__")
