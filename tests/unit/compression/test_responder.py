"""The responder: ASGI manners, streams, faults and control (A1 to A10, S1, S3, C1, C2)."""

import asyncio
import gzip
import zlib

import brotli
import pytest

from codings import READ
from isp_perf.compression import Breach, Budget, CompressionMiddleware, Options, no_compression
from isp_perf.errors import ConfigurationError


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something"])
async def test_other_scopes_are_passed_on_as_they_are(kind):
    """A scope other than http reaches the application as the same three objects."""
    got = []

    async def app(*arguments):
        got.append(arguments)

    given = ({"type": kind}, object(), object())
    await CompressionMiddleware(app)(*given)
    assert all(a is b for a, b in zip(got[0], given, strict=True))


async def test_nothing_received_is_changed(http, big):
    """Constant messages and scopes can be used again: none of them differs after a request."""
    start = {
        "type": http.START,
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"etag", b'"v"'), (b"Vary", b"Origin")],
    }
    body = {"type": http.BODY, "body": big}
    copies = [{**start, "headers": list(start["headers"])}, dict(body)]

    async def app(scope, receive, send):
        await send(start)
        await send(body)

    middleware = CompressionMiddleware(app)
    for accept in (b"br", None, b"gzip"):
        headers = [(b"accept-encoding", accept)] if accept else []
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [*headers, (b"if-none-match", b'W/"v-br"')],
                 "extensions": {"http.response.zerocopysend": {}}}  # fmt: skip
        before = {**scope, "headers": list(scope["headers"]), "extensions": dict(scope["extensions"])}
        sent = []

        async def keep(message, sent=sent):
            sent.append(message)

        await middleware(scope, None, keep)
        assert [start, body] == copies
        assert scope == before
        assert http.decode(accept and accept.decode(), sent[1]["body"]) == big


async def test_optional_keys_may_be_missing_and_headers_any_iterable(http, big):
    """Missing headers, body and more_body are defaults, and a header generator is read once."""

    async def bare(scope, receive, send):
        await send({"type": http.START, "status": 200})
        await send({"type": http.BODY})

    got = await http.serve(bare)
    assert (got.status, got.raw) == (200, b"")

    async def lazy(scope, receive, send):
        await send(
            {"type": http.START, "status": 200, "headers": (pair for pair in [[b"Content-Type", b"text/plain"]])}
        )
        await send({"type": http.BODY, "body": big})

    got = await http.serve(lazy)
    assert (got.coding, got.body) == ("br", big)
    got = await http.serve(lazy, None)
    assert got.values(b"content-type") == [b"text/plain"]


async def test_a_second_head_is_a_loud_error(http, big):
    """A second head is refused, and the first one goes its way."""

    async def app(scope, receive, send):
        start = {"type": http.START, "status": 201, "headers": [(b"content-type", b"text/plain")]}
        await send(start)
        with pytest.raises(RuntimeError, match="already been received"):
            await send({**start, "status": 500})
        await send({"type": http.BODY, "body": big})

    got = await http.serve(app)
    assert (got.status, got.coding, got.body) == (201, "br", big)


@pytest.mark.parametrize("kind", [tuple, iter])
async def test_request_headers_may_be_any_iterable(http, big, kind):
    """Request headers are read once, and the application can read them after us."""
    seen = []
    middleware = CompressionMiddleware(http.answer(big, seen=seen))
    sent = []

    async def keep(message):
        sent.append(message)

    fields = [(b"accept-encoding", b"gzip"), (b"x", b"y")]
    await middleware({"type": "http", "method": "GET", "path": "/", "headers": kind(fields)}, None, keep)
    assert dict(sent[0]["headers"])[b"content-encoding"] == b"gzip"
    assert list(seen[0]["headers"]) == fields


async def test_other_messages_are_forwarded_in_order(http, big):
    """Early hints, debug and unknown messages pass before and after the head, in order."""

    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.unheard_of"})
        await send({"type": http.BODY, "body": big})

    got = await http.serve(app)
    assert [m["type"] for m in got.messages] == [
        "http.response.early_hint",
        http.START,
        "http.response.unheard_of",
        http.BODY,
    ]
    assert (got.coding, got.raw, got.header(b"vary")) == (None, big, b"Accept-Encoding")
    assert got.middleware.stats.skipped["other_message"] == 1


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_files_pass_uncoded(http, kind):
    """A file sent by the server passes with its head as identity, and Vary."""
    message = {"type": kind, "path": "/x"}

    async def app(scope, receive, send):
        await send(
            {
                "type": http.START,
                "status": 200,
                "headers": [(b"content-type", b"text/css"), (b"content-length", b"9999")],
            }
        )
        await send(message)

    got = await http.serve(app)
    assert (got.coding, got.header(b"content-length"), got.header(b"vary")) == (None, b"9999", b"Accept-Encoding")
    assert got.messages[-1] is message
    assert got.middleware.stats.skipped["pathsend"] == 1


async def test_zerocopysend_is_hidden_only_when_a_coding_is_chosen(http, big):
    """An application is not invited to send files past the codec, and keeps its other extensions."""
    seen = []
    extensions = {"http.response.zerocopysend": {}, "http.response.pathsend": {}}
    middleware = CompressionMiddleware(http.answer(big, seen=seen))
    await http.call(middleware, extensions=extensions)
    await http.call(middleware, None, extensions=extensions)
    assert seen[0]["extensions"] == {"http.response.pathsend": {}}
    assert seen[1]["extensions"] is extensions


async def test_a_file_after_coded_bytes_is_a_loud_error(http, big):
    """A file is never joined to a coded body."""

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/css")]})
        await send({"type": http.BODY, "body": big, "more_body": True})
        await send({"type": "http.response.zerocopysend", "file": 3})

    with pytest.raises(RuntimeError, match="cannot be joined"):
        await http.serve(app)


async def test_a_head_that_is_still_held_is_sent_at_the_end(http):
    """An application that returns after its head gets the head sent."""

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})

    got = await http.serve(app)
    assert [m["type"] for m in got.messages] == [http.START]


async def test_an_error_before_the_body_leaves_nothing_sent(http):
    """While the head is held an error of the application passes through and nothing was sent, so that a 500 can be."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})
        raise LookupError("user")

    middleware = CompressionMiddleware(app)

    async def keep(message):
        sent.append(message)

    with pytest.raises(LookupError):
        await http.call(middleware, send=keep)
    assert sent == []
    assert middleware.stats.skipped["aborted"] == 1


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
async def test_an_error_in_mid_stream_never_looks_whole(http, big, coding):
    """A stream that breaks off is not closed by the codec: what was sent can be read, and is visibly cut."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": http.BODY, "body": big, "more_body": True})
        raise LookupError("user")

    async def keep(message):
        sent.append(message)

    middleware = CompressionMiddleware(app)
    with pytest.raises(LookupError):
        await http.call(middleware, coding.encode(), send=keep)
    data = b"".join(m.get("body", b"") for m in sent)
    with pytest.raises((EOFError, zlib.error, brotli.error, Exception)):
        http.decode(coding, data)
    stats = middleware.stats
    assert (stats.bytes_in, stats.bytes_out, stats.encoded[coding]) == (len(big), len(data), 1)


@pytest.mark.parametrize("declared", [b"9000", b"2000"])
async def test_a_lying_length_is_never_made_to_look_right(http, big, declared):
    """A complete body that is not as long as declared is sent plain with its lie, for the server to refuse."""
    got = await http.serve(http.answer(big, headers=[(b"content-length", declared)]))
    assert (got.coding, got.header(b"content-length"), got.raw) == (None, declared, big)
    assert got.middleware.stats.skipped["wrong_length"] == 1


@pytest.mark.parametrize(("declared", "relation"), [(b"9000", "shorter"), (b"2000", "longer")])
async def test_a_stream_of_another_length_is_broken_off(http, big, declared, relation):
    """A stream that is not as long as declared ends in an error, not in a body that looks whole."""
    with pytest.raises(RuntimeError, match=relation):
        await http.serve(http.answer(chunks=[big[:2500], big[2500:]], headers=[(b"content-length", declared)]))


async def test_a_failing_send_reaches_the_application(http, big):
    """An error of the server's send is raised where the application awaits its own."""
    seen = []

    async def app(scope, receive, send):
        try:
            await http.answer(big)(scope, receive, send)
        except OSError as error:
            seen.append(error)
            raise

    async def broken(message):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await http.call(CompressionMiddleware(app), send=broken)
    assert len(seen) == 1


async def test_middleware_over_middleware_codes_once(http, big):
    """Twice the middleware gives the messages of one."""
    for accept in (b"br", b"gzip", None):
        for chunks in ([big], [big[:50], big[50:]], [b"small"]):
            app = http.answer(chunks=chunks, headers=[(b"etag", b'"v"')])
            once = await http.serve(app, accept)
            twice = await http.serve(CompressionMiddleware(app), accept)
            assert once.messages == twice.messages


async def test_mixed_requests_at_once_share_nothing(http, big):
    """Fifty concurrent requests with different codings each decode to their own body."""

    async def app(scope, receive, send):
        body = scope["path"].encode() + big
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for i in range(0, len(body), 900):
            await asyncio.sleep(0)
            await send({"type": http.BODY, "body": body[i : i + 900], "more_body": True})
        await send({"type": http.BODY})

    middleware = CompressionMiddleware(app)
    accepts = (b"br", b"gzip", None, b"zstd", b"deflate")
    got = await asyncio.gather(*(http.call(middleware, accepts[i % 5], path=f"/{i}") for i in range(50)))
    assert [g.body for g in got] == [f"/{i}".encode() + big for i in range(50)]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
async def test_every_message_can_be_decoded_when_it_was_sent(http, coding):
    """Before the application goes on, the client can read all that was sent so far."""
    read = READ[coding]()
    received = []

    async def client(message):
        if message["type"] == http.BODY and message["body"]:
            received.append(read(message["body"]))

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for i in range(5):
            await send({"type": http.BODY, "body": b"data: %d\n\n" % i, "more_body": True})
            await send({"type": http.BODY, "body": b"", "more_body": True})
            assert received[-1] == b"data: %d\n\n" % i
        assert len(received) == 5
        await send({"type": http.BODY})

    await http.call(CompressionMiddleware(app), coding.encode(), send=client)
    assert b"".join(received) == b"".join(b"data: %d\n\n" % i for i in range(5))


async def test_the_head_of_an_event_stream_leaves_at_once(http):
    """An event stream's head does not wait for the first event, and prefers gzip's small streams."""
    sent = []

    async def keep(message):
        sent.append(message)

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        assert dict(sent[0]["headers"])[b"content-encoding"] == b"gzip"
        await send({"type": http.BODY})

    await http.call(CompressionMiddleware(app), send=keep)
    assert gzip.decompress(sent[-1]["body"]) == b""


@pytest.mark.parametrize(
    ("value", "coding"), [(False, None), (True, "br"), ("gzip", "gzip"), (Options(coding="zstd"), "zstd"), (None, "br")]
)
async def test_the_scope_chooses_for_one_response(http, big, value, coding):
    """An endpoint, router or outer middleware may turn compression off or name the coding."""

    async def app(scope, receive, send):
        scope["isp_perf.compression"] = value
        await http.answer(big)(scope, receive, send)

    got = await http.serve(app)
    assert (got.coding, got.body) == (coding, big)
    assert got.middleware.stats.skipped["opted_out"] == (value is False)


async def test_options_never_overrule_a_refusal(http, big):
    """A coding that the client refused is not used, whatever the scope says."""
    got = await http.serve(http.answer(big), b"br;q=0, gzip", request={"isp_perf.compression": "br"})
    assert got.coding == "gzip"
    got = await http.serve(http.answer(big), b"identity, br;q=0.5", request={"isp_perf.compression": "br"})
    assert got.coding == "br"


async def test_options_set_the_minimum_size(http):
    """One response may have a smaller or greater minimum."""
    got = await http.serve(http.answer(b"a" * 200), request={"isp_perf.compression": Options(minimum_size=100)})
    assert got.coding == "br"


async def test_a_wrong_option_is_a_configuration_error(http, big):
    """A value that means nothing is reported to its author."""
    with pytest.raises(ConfigurationError):
        await http.serve(http.answer(big), request={"isp_perf.compression": 7})


async def test_server_timing_names_codec_and_time(http, big):
    """On request, a complete coded response says how it was coded and how long that took."""
    got = await http.serve(http.answer(big), request={"isp_perf.compression": Options(server_timing=True)})
    value = got.header(b"server-timing")
    assert value.startswith(b"cmp;dur=")
    assert value.endswith(b';desc="br4"')


async def test_no_compression_marks_an_endpoint_and_wraps_an_application(http, big):
    """The decorator opts out what frameworks call endpoints, and plain ASGI applications."""

    @no_compression
    def endpoint():
        """Stay what it is."""

    assert endpoint() is None
    got = await http.serve(http.answer(big), request={"endpoint": endpoint})
    assert got.coding is None
    app = http.answer(big)

    @no_compression
    async def wrapped(scope, receive, send):
        await app(scope, receive, send)

    got = await http.serve(wrapped)
    assert (got.coding, got.middleware.stats.skipped["opted_out"]) == (None, 1)


async def test_excluded_paths_are_left_alone_altogether(http, big):
    """A path pattern switches everything off, and the application gets the server's own send."""
    got = await http.serve(http.answer(big), request={"path": "/static/a.js"}, exclude=("/static/*", "/metrics"))
    assert (got.coding, got.header(b"vary"), got.middleware.stats.skipped["excluded"]) == (None, None, 1)
    got = await http.serve(http.answer(big), request={"path": "/x/static/a.js"}, exclude=("/static/*", "/metrics"))
    assert got.coding == "br"


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
@pytest.mark.parametrize("content_type", [b"text/plain", b"text/event-stream"])
async def test_padding_changes_the_length_and_nothing_else(http, big, coding, content_type):
    """A padded body decodes as before, is longer, and has the same length every time it is asked for."""
    plain = await http.serve(http.answer(big, content_type), coding.encode())
    padded = [
        await http.serve(http.answer(big, content_type), coding.encode(), breach=Breach(pad=64)) for _ in range(2)
    ]
    assert padded[0].body == big
    assert len(padded[0].raw) > len(plain.raw)
    assert padded[0].raw == padded[1].raw


async def test_padding_differs_between_bodies(http, big):
    """Different bodies are lengthened differently, so lengths say less about what they share."""
    lengths = set()
    for i in range(12):
        body = big + b"%02d" % i
        plain = await http.serve(http.answer(body), b"gzip")
        padded = await http.serve(http.answer(body), b"gzip", breach=Breach(pad=200))
        lengths.add(len(padded.raw) - len(plain.raw))
    assert len(lengths) > 4


@pytest.mark.parametrize("credential", [b"cookie", b"authorization"])
async def test_credentials_from_another_site_are_not_compressed(http, big, credential):
    """A request with credentials from another site gets identity, unless that is switched off."""
    request = {"headers": [(credential, b"x"), (b"sec-fetch-site", b"cross-site")]}
    got = await http.serve(http.answer(big), request=request, breach=Breach())
    assert (got.coding, got.middleware.stats.skipped["cross_site"]) == (None, 1)
    assert (await http.serve(http.answer(big), request=request, breach=Breach(cross_site="encode"))).coding == "br"
    same = {"headers": [(credential, b"x"), (b"sec-fetch-site", b"same-origin")]}
    assert (await http.serve(http.answer(big), request=same, breach=Breach())).coding == "br"


async def test_what_exceeds_the_budget_runs_in_a_thread(http, big):
    """With no budget every body and chunk is coded away from the loop, with the same result."""
    for chunks in ([big], [big[:2000], big[2000:], b""]):
        got = await http.serve(http.answer(chunks=chunks), budget=Budget(inline_ms=0))
        assert got.body == big
        assert got.middleware.stats.offloaded == (1 if len(chunks) == 1 else 2)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"gzip, deflate, br, zstd", "gzip"),
        (b"br, zstd, deflate", "br"),
        (b"zstd, deflate", "zstd"),
        (b"gzip;q=0.5, zstd", "zstd"),
        (b"gzip;q=0, br", "br"),
    ],
)
@pytest.mark.parametrize("content_type", [b"text/event-stream", b"application/x-ndjson"])
async def test_streams_of_records_take_the_coding_that_costs_least_while_open(http, accept, coding, content_type):
    """Among codings liked equally gzip comes first, then brotli, then zstd; what the client likes better still wins."""
    got = await http.serve(http.answer(content_type=content_type, chunks=[b"data: 1\n\n", b"data: 2\n\n", b""]), accept)
    assert (got.coding, got.body) == (coding, b"data: 1\n\ndata: 2\n\n")


@pytest.mark.parametrize("inline_ms", [0, 1000])
async def test_the_application_goes_no_faster_than_the_client(http, big, inline_ms):
    """A message is taken when the one before it has been taken by the server, so nothing piles up in between."""
    arrived, taken, steps = asyncio.Queue(), asyncio.Semaphore(0), []

    async def app(scope, receive, send):
        await send({"type": http.START, "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for i in range(3):
            await send({"type": http.BODY, "body": big, "more_body": True})
            steps.append(i)
        await send({"type": http.BODY})

    async def slow(message):
        if message["type"] == http.BODY:
            arrived.put_nowait(message)
            await taken.acquire()

    middleware = CompressionMiddleware(app, budget=Budget(inline_ms=inline_ms))
    task = asyncio.ensure_future(http.call(middleware, b"gzip", send=slow))
    for done in range(4):
        await arrived.get()
        assert steps == list(range(done))
        taken.release()
    await task
    assert arrived.empty()
