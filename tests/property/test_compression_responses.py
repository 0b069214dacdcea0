"""Whatever is asked and however it is answered: the client decodes what the application sent."""

import asyncio

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from codings import READ, UNPACK
from isp_perf.compression import Budget, CompressionMiddleware, CompressionStats, VariantCache, negotiate
from isp_perf.compression._codecs import available

START, BODY = "http.response.start", "http.response.body"
CODINGS = available(("br", "zstd", "gzip", "deflate"))

names = st.sampled_from([*CODINGS, "x-gzip", "identity", "*", "compress", "GZIP", "dcz", "bro", ""])
weights = st.sampled_from(["", ";q=0", ";q=0.000", ";q=1", ";Q=0.5", "; q=0.301", ";q=2", ";q=x", ";level=3", ";q"])
accepts = st.one_of(
    st.none(),
    st.lists(st.tuples(names, weights).map("".join), max_size=6).map(lambda m: ", ".join(m).encode()),
    st.binary(max_size=40),
)
pieces = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"a" * 900, b"a" * 1024, b'{"cliente": "Ana", "mensagem": "sem sinal"}' * 60]),
)
headers = st.lists(
    st.sampled_from(
        [
            (b"ETag", b'"v"'),
            (b"etag", b'W/"v"'),
            (b"Vary", b"Origin"),
            (b"vary", b"accept-encoding"),
            (b"Vary", b"*"),
            (b"Set-Cookie", b"a=1"),
            (b"Accept-Ranges", b"bytes"),
            (b"Content-Encoding", b"identity"),
            (b"Cache-Control", b"no-transform"),
            (b"Repr-Digest", b"x"),
        ]
    ),
    max_size=4,
)
types = st.sampled_from(
    [
        b"application/json",
        b"text/plain; charset=utf-8",
        b"text/event-stream",
        b"application/x-ndjson",
        b"image/png",
        b"",
    ]
)
budgets = st.sampled_from([Budget(), Budget(inline_ms=0), Budget(preset="fast"), Budget(adaptive=False)])


@st.composite
def answers(draw):
    chunks = draw(st.lists(pieces, min_size=1, max_size=5))
    fields = [(b"content-type", draw(types)), *draw(headers)]
    if draw(st.booleans()):
        fields.append((b"content-length", b"%d" % sum(map(len, chunks))))
    start = {"type": START, "status": draw(st.sampled_from([200, 200, 200, 201, 404, 500])), "headers": fields}
    bodies = [{"type": BODY, "body": chunk, "more_body": True} for chunk in chunks[:-1]]
    return [start, *bodies, {"type": BODY, "body": chunks[-1]}]


def application(messages):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


async def run(app, accept, *, send=None, fields=(), method="GET"):
    sent = []

    async def keep(message):
        sent.append(message)

    given_fields = [*([] if accept is None else [(b"accept-encoding", accept)]), *fields]
    scope = {"type": "http", "method": method, "path": "/", "headers": given_fields}
    await app(scope, None, send or keep)
    return sent


def field(messages, name):
    return [value for key, value in messages[0]["headers"] if key.lower() == name]


def body_of(messages):
    return b"".join(message.get("body", b"") for message in messages[1:])


def decoded(messages):
    codings = [value.decode() for value in field(messages, b"content-encoding") if value != b"identity"]
    assert len(codings) <= 1
    return UNPACK[codings[0]](body_of(messages)) if codings else body_of(messages)


def frame(messages):
    """Let h11 write the response, as a server does; it raises if framing and headers disagree."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    server.next_event(), server.next_event()
    head = [(name, value) for name, value in messages[0]["headers"]]
    server.send(h11.Response(status_code=messages[0]["status"], headers=head))
    for message in messages[1:]:
        server.send(h11.Data(data=message.get("body", b"")))
    return server.send(h11.EndOfMessage())


@settings(max_examples=150)
@given(answers(), accepts, budgets)
def test_what_arrives_is_what_was_sent(messages, accept, budget):
    """For any answer, chunking and Accept-Encoding the client decodes the application's body from valid frames."""
    before = [{**m, "headers": list(m["headers"])} if "headers" in m else dict(m) for m in messages]
    stats = CompressionStats()
    app = CompressionMiddleware(application(messages), budget=budget, stats=stats)
    sent = asyncio.run(run(app, accept))
    assert messages == before
    seen = stats.as_dict()
    assert seen["total_requests"] + sum(seen["skipped"].values()) == 1
    assert seen["bytes_in"] == seen["bytes_out"] + seen["total_bytes_saved"]
    frame(sent)
    if sent[0]["status"] == 406:
        assert body_of(sent) == b""
        return
    assert decoded(sent) == body_of(messages)
    coding = [value.decode() for value in field(sent, b"content-encoding") if value != b"identity"]
    if coding:
        assert coding[0] in negotiate(accept).acceptable
        assert sum(b"accept-encoding" in v.lower() or v == b"*" for v in field(sent, b"vary")) >= 1
        assert not [v for v in field(sent, b"etag") if not v.startswith(b"W/")]


@settings(max_examples=80)
@given(answers(), accepts)
def test_the_middleware_twice_is_the_middleware_once(messages, accept):
    """Wrapping an application twice changes no message."""
    once = CompressionMiddleware(application(messages))
    assert asyncio.run(run(once, accept)) == asyncio.run(run(CompressionMiddleware(once), accept))


@settings(max_examples=60)
@given(
    st.lists(pieces, min_size=1, max_size=6),
    st.sampled_from(CODINGS),
    types.filter(lambda t: t.startswith((b"text", b"app"))),
)
def test_what_was_sent_can_be_read_before_more_is_sent(chunks, coding, content_type):
    """After each message the client has decoded everything that the application sent so far."""
    read = READ[coding]()
    got = []

    async def client(message):
        if message.get("body"):
            got.append(read(message["body"]))

    async def app(scope, receive, send):
        await send({"type": START, "status": 200, "headers": [(b"content-type", content_type)]})
        for index, chunk in enumerate(chunks):
            await send({"type": BODY, "body": chunk, "more_body": True})
            assert b"".join(got) == b"".join(chunks[: index + 1])
        await send({"type": BODY})

    asyncio.run(run(CompressionMiddleware(app), coding.encode(), send=client))
    assert b"".join(got) == b"".join(chunks)


@settings(max_examples=60)
@given(st.lists(answers(), min_size=1, max_size=3), st.sampled_from(CODINGS), st.integers(1, 4))
def test_a_cache_changes_no_body(many, coding, rounds):
    """With and without the variant cache every answer decodes to the same bytes."""
    cached = {"cache": VariantCache(max_bytes=6000, upgrade_after=1)}
    queue = [messages for _ in range(rounds) for messages in many]
    for extra in ({}, cached):
        waiting = list(queue)

        async def app(scope, receive, send, waiting=waiting):
            await application(waiting.pop(0))(scope, receive, send)

        middleware = CompressionMiddleware(app, **extra)
        for messages in queue:
            assert decoded(asyncio.run(run(middleware, coding.encode()))) == body_of(messages)


tag_text = st.text(
    st.characters(codec="latin-1", exclude_characters='"\\', min_codepoint=0x21, max_codepoint=0x7E), max_size=12
)


@settings(max_examples=80)
@given(tag_text, st.sampled_from(CODINGS), st.booleans(), st.lists(tag_text, max_size=2))
def test_tags_round_trip(text, coding, weak, others):
    """The tag of a coded 200 comes back to the application as its own, and its 304 repeats what the client holds."""
    tag = (b'W/"' if weak else b'"') + text.encode() + b'"'
    body = b"a" * 3000
    full = [
        {"type": START, "status": 200, "headers": [(b"content-type", b"text/plain"), (b"etag", tag)]},
        {"type": BODY, "body": body},
    ]
    first = asyncio.run(run(CompressionMiddleware(application(full)), coding.encode()))
    (held,) = field(first, b"etag")
    seen = []

    async def conditional(scope, receive, send):
        seen.append(dict(scope["headers"])[b"if-none-match"])
        await send({"type": START, "status": 304, "headers": [(b"etag", tag)]})
        await send({"type": BODY})

    condition = b", ".join([held, *(b'"' + other.encode() + b'"' for other in others)])
    second = asyncio.run(
        run(CompressionMiddleware(conditional), coding.encode(), fields=[(b"if-none-match", condition)])
    )
    marked_like = any(text.endswith("-" + name) for name in CODINGS)
    if not (weak and marked_like):  # a weak tag of the application that looks like ours costs one full answer
        assert tag in [member.strip() for member in seen[0].split(b", ")] or b"," in tag
        assert field(second, b"etag") == [held]


@settings(max_examples=300)
@given(accepts)
def test_a_refused_coding_is_never_chosen(accept):
    """No header raises, and no candidate is a coding that the header refuses or does not name."""
    plan = negotiate(accept)
    text = (accept or b"").decode("latin-1").lower()
    for coding in plan.candidates:
        assert coding in text or (coding == "gzip" and "x-gzip" in text) or "*" in text
        assert coding in plan.acceptable
    assert (plan.coding is None) == (plan.reason is not None)


def looks_whole(coding, data):
    try:
        UNPACK[coding](data)
    except Exception:
        return False
    return True


class Stop(Exception):
    """Thrown into the application's send at one point."""


@settings(max_examples=60)
@given(answers(), st.sampled_from(CODINGS), st.integers(0, 5), st.booleans())
def test_an_end_at_any_point_leaves_nothing_behind(messages, coding, point, cancel):
    """A failing or cancelled send at any message ends the response, counted once, with no task left."""

    async def scene():
        sent = []

        async def send(message):
            if len(sent) == point:
                raise asyncio.CancelledError if cancel else Stop
            sent.append(message)
            await asyncio.sleep(0)

        middleware = CompressionMiddleware(application(messages), budget=Budget(inline_ms=0))
        ended = None
        try:
            await run(middleware, coding.encode(), send=send)
        except (Stop, asyncio.CancelledError) as error:
            ended = error
        stats = middleware.stats
        assert stats.total_requests + sum(stats.skipped.values()) == 1
        assert middleware._engine.offload.pending == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return sent, ended

    sent, ended = asyncio.run(scene())
    coded = bool(sent) and field(sent, b"content-encoding") == [coding.encode()]
    if ended is not None and coded and body_of(sent):
        assert not looks_whole(coding, body_of(sent))
