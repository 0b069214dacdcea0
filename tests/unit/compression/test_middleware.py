"""CompressionMiddleware: what is encoded, what is left alone, and how heads are written (B1 to B9, V1 to V7)."""

import pytest

from isp_perf.compression import Breach, Budget, CompressionMiddleware, Options, Streaming
from isp_perf.errors import ConfigurationError


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip", "deflate"])
async def test_a_complete_body_is_coded_with_its_exact_length(http, big, coding):
    """A body above the minimum is coded as asked, smaller, with Content-Encoding, Vary and its own length."""
    got = await http.serve(http.answer(big, headers=[(b"content-length", b"%d" % len(big))]), coding.encode())
    assert got.coding == coding
    assert got.body == big
    assert got.header(b"content-length") == b"%d" % len(got.raw)
    assert len(got.raw) < len(big) / 4
    assert got.header(b"vary") == b"Accept-Encoding"


async def test_a_browser_gets_brotli(http, big):
    """Among codings that are equally welcome the server's order decides."""
    assert (await http.serve(http.answer(big))).coding == "br"
    assert (await http.serve(http.answer(big), encodings=("gzip", "br"))).coding == "gzip"


async def test_several_lines_are_one_list(http, big):
    """Accept-Encoding in several lines is read as one list."""
    request = {"headers": [(b"accept-encoding", b"br;q=0"), (b"accept-encoding", b"zstd;q=0")]}
    assert (await http.serve(http.answer(big), b"gzip, br", request=request)).coding == "gzip"


async def test_a_very_long_header_is_read_whole(http, big):
    """Ten kilobytes of Accept-Encoding still find the coding at their end."""
    assert (await http.serve(http.answer(big), b"x;q=0.1, " * 1200 + b"gzip")).coding == "gzip"


@pytest.mark.parametrize(("size", "coding"), [(0, None), (1, None), (1023, None), (1024, "br")])
async def test_only_bodies_of_the_minimum_size_are_coded(http, size, coding):
    """1,023 bytes stay plain and 1,024 are coded, each with Vary."""
    got = await http.serve(http.answer(b"a" * size))
    assert got.coding == coding
    assert got.body == b"a" * size
    assert got.header(b"vary") == b"Accept-Encoding"


async def test_a_small_declared_stream_stays_plain(http):
    """A streamed body whose declared length is below the minimum is not coded."""
    got = await http.serve(http.answer(chunks=[b"ab", b"cd"], headers=[(b"content-length", b"4")]))
    assert (got.coding, got.raw, got.header(b"content-length")) == (None, b"abcd", b"4")
    assert got.middleware.stats.skipped["too_small"] == 1


async def test_a_body_that_would_grow_is_sent_as_it_was(http):
    """A result that is not smaller is thrown away, and identity is sent with its tag."""
    body = bytes((i * 7919 + (i * i) // 3) % 251 for i in range(1100))
    got = await http.serve(
        http.answer(body, b"text/plain", headers=[(b"etag", b'"v"')]), b"deflate", encodings=("deflate",)
    )
    assert (got.coding, got.raw) == (None, body) or len(got.raw) < len(body)
    import os

    noise = os.urandom(2000)
    got = await http.serve(http.answer(noise, b"text/plain", headers=[(b"etag", b'"v"')]))
    assert (got.coding, got.raw, got.header(b"etag")) == (None, noise, b'"v"')
    assert got.header(b"vary") == b"Accept-Encoding"
    assert got.middleware.stats.skipped["not_smaller"] == 1


@pytest.mark.parametrize("refusal", [b"gzip, identity;q=0", b"gzip, *;q=0"])
async def test_a_client_that_refuses_identity_gets_a_coding_at_any_size(http, refusal):
    """Where identity is refused, a body below the minimum is coded although it grows."""
    got = await http.serve(http.answer(b"{}"), refusal)
    assert (got.coding, got.body) == ("gzip", b"{}")
    assert got.middleware.stats.total_bytes_saved < 0


async def test_nothing_acceptable_is_406_before_the_application_runs(http):
    """A client that refuses all on offer gets 406 with what is on offer, and the application is not called."""
    seen = []
    got = await http.serve(http.answer(b"x", seen=seen), b"identity;q=0, gzip;q=0", encodings=("gzip", "br"))
    assert (got.status, got.raw, seen) == (406, b"", [])
    assert got.header(b"accept-encoding") == b"gzip, br"
    assert got.header(b"vary") == b"Accept-Encoding"
    assert got.header(b"content-length") == b"0"
    assert got.middleware.stats.skipped["not_acceptable"] == 1


async def test_nothing_acceptable_may_be_answered_with_identity(http, big):
    """The kinder setting sends identity and counts it."""
    got = await http.serve(http.answer(big), b"identity;q=0", not_acceptable="identity")
    assert (got.status, got.coding, got.raw) == (200, None, big)
    assert got.middleware.stats.skipped["not_acceptable"] == 1


@pytest.mark.parametrize(
    ("content_type", "headers", "status", "reason"),
    [
        (b"image/png", [], 200, "type"),
        (None, [], 200, "type"),
        (b"application/json", [(b"Content-Encoding", b"gzip")], 200, "already_encoded"),
        (b"application/json", [(b"Content-Encoding", b"identity, br")], 200, "already_encoded"),
        (b"application/json", [(b"Cache-Control", b"public, No-Transform")], 200, "no_transform"),
        (b"text/plain", [(b"Content-Range", b"bytes 0-9/99")], 206, "range"),
        (b"text/plain", [], 206, "range"),
        (b"text/plain", [(b"Content-Range", b"bytes */99")], 416, "range"),
        (b"text/plain", [], 204, "status"),
        (b"text/plain", [], 205, "status"),
        (b"text/plain", [], 103, "status"),
    ],
)
async def test_what_must_not_be_touched_is_not(http, big, content_type, headers, status, reason):
    """Packed types, codings, no-transform, ranges and bodiless statuses pass with the very same messages."""
    sent = []
    app = http.answer(big, content_type, headers=[*headers, (b"etag", b'"v"')], status=status)

    async def spied(scope, receive, send):
        async def spy(message):
            sent.append(message)
            await send(message)

        await app(scope, receive, spy)

    got = await http.serve(spied)
    assert all(a is b for a, b in zip(sent, got.messages, strict=True))
    assert got.middleware.stats.skipped[reason] == 1


async def test_a_type_that_is_never_coded_does_not_vary(http, big):
    """Vary is left off types that are never coded, since it would split caches for nothing."""
    assert (await http.serve(http.answer(big, b"image/png"))).header(b"vary") is None


async def test_an_explicit_identity_is_replaced(http, big):
    """Content-Encoding: identity gives way to the coding, and is never appended to."""
    got = await http.serve(http.answer(big, headers=[(b"Content-Encoding", b"Identity")]))
    assert (got.coding, got.body) == ("br", big)


async def test_a_request_with_no_transform_gets_identity(http, big):
    """no-transform in the request keeps the body as it is."""
    got = await http.serve(http.answer(big), request={"headers": [(b"cache-control", b"no-transform")]})
    assert (got.coding, got.raw) == (None, big)
    assert got.middleware.stats.skipped["no_transform"] == 1


@pytest.mark.parametrize("accept", [None, b"", b"identity", b"gzip;q=0"])
async def test_an_uncoded_response_of_a_compressible_type_varies(http, big, accept):
    """Identity is marked with Vary too, and nothing else about it changes."""
    got = await http.serve(http.answer(big, headers=[(b"etag", b'"v"'), (b"accept-ranges", b"bytes")]), accept)
    assert (got.coding, got.raw) == (None, big)
    assert got.start["headers"] == [
        (b"content-type", b"application/json"),
        (b"etag", b'"v"'),
        (b"accept-ranges", b"bytes"),
        (b"vary", b"Accept-Encoding"),
    ]


async def test_a_coded_response_loses_what_described_other_bytes(http, big):
    """Ranges, digests and the application's framing are dropped, cookies keep order and number."""
    dropped = [
        (b"Accept-Ranges", b"bytes"),
        (b"Content-MD5", b"x"),
        (b"Repr-Digest", b"x"),
        (b"Transfer-Encoding", b"chunked"),
    ]
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    got = await http.serve(http.answer(big, headers=[*dropped, *cookies]))
    assert got.values(b"set-cookie") == [b"a=1", b"b=2"]
    assert not {k.lower() for k, _ in dropped} & {k for k, _ in got.start["headers"]}


async def test_tags_round_trip_through_a_conditional_request(http, big):
    """The tag of the coded 200 reaches the application restored, and its 304 carries the very same tag."""
    first = await http.serve(http.answer(big, headers=[(b"etag", b'"v1"')]))
    tag = first.header(b"etag")
    assert tag == b'W/"v1-br"'
    seen = []
    app = http.answer(b"", None, status=304, headers=[(b"etag", b'"v1"')], seen=seen)
    second = await http.serve(app, request={"headers": [(b"if-none-match", tag)]})
    assert dict(seen[0]["headers"])[b"if-none-match"] == b'"v1"'
    assert (second.status, second.header(b"etag"), second.header(b"vary"), second.raw) == (
        304,
        tag,
        b"Accept-Encoding",
        b"",
    )


async def test_a_mark_of_another_coding_counts(http):
    """A tag that another coding marked is restored too, and is what the 304 repeats."""
    seen = []
    app = http.answer(b"", None, status=304, headers=[(b"etag", b'"v1"')], seen=seen)
    got = await http.serve(app, b"br", request={"headers": [(b"if-none-match", b'"x", W/"v1-gzip"')]})
    assert dict(seen[0]["headers"])[b"if-none-match"] == b'"x", "v1"'
    assert got.header(b"etag") == b'W/"v1-gzip"'


async def test_if_match_is_restored_and_if_range_never(http, big):
    """Optimistic locking works through a coded GET, while a range is never joined to coded bytes."""
    seen = []
    headers = [(b"if-match", b'W/"v1-br"'), (b"if-range", b'W/"v1-br"')]
    await http.serve(http.answer(big, seen=seen), None, request={"headers": headers, "method": "PUT"})
    fields = dict(seen[0]["headers"])
    assert (fields[b"if-match"], fields[b"if-range"]) == (b'"v1"', b'W/"v1-br"')


async def test_foreign_conditions_pass_with_the_same_scope(http, big):
    """A star or a tag without our mark leaves the application the very same scope."""
    seen = []
    middleware = CompressionMiddleware(http.answer(big, seen=seen))
    for value in (b"*", b'"v1"', b'W/"v1"'):
        await http.call(middleware, headers=[(b"if-none-match", value)])
    assert [dict(scope["headers"])[b"if-none-match"] for scope in seen] == [b"*", b'"v1"', b'W/"v1"']


@pytest.mark.parametrize(
    ("content_type", "vary"), [(None, b"Accept-Encoding"), (b"text/html", b"Accept-Encoding"), (b"image/png", None)]
)
async def test_every_304_varies_unless_its_type_never_does(http, content_type, vary):
    """A 304 carries the Vary of the 200 it stands for."""
    got = await http.serve(http.answer(b"", content_type, status=304))
    assert got.header(b"vary") == vary


async def test_a_weak_tag_is_kept(http, big):
    """A weak tag says nothing of bytes and stays as it is."""
    assert (await http.serve(http.answer(big, headers=[(b"etag", b'W/"v1"')]))).header(b"etag") == b'W/"v1"'


async def test_suffix_tags_stay_strong_with_fixed_levels(http, big):
    """With fixed levels the tag may be strong, is taken off the same way, and a stream's tag is weak all the same."""
    settings = {"etag": "suffix", "budget": Budget(adaptive=False)}
    got = await http.serve(http.answer(big, headers=[(b"etag", b'"v1"')]), **settings)
    assert got.header(b"etag") == b'"v1-br"'
    seen = []
    await http.serve(http.answer(big, seen=seen), request={"headers": [(b"if-none-match", b'"v1-br"')]}, **settings)
    assert dict(seen[0]["headers"])[b"if-none-match"] == b'"v1"'
    streamed = await http.serve(http.answer(chunks=[big, b""], headers=[(b"etag", b'"v1"')]), **settings)
    assert streamed.header(b"etag") == b'W/"v1-br"'


async def test_head_has_the_head_of_get_and_no_byte(http, big):
    """HEAD shows the coding and the tag that GET would have, no plain length, and no body."""
    app = http.answer(big, headers=[(b"content-length", b"%d" % len(big)), (b"etag", b'"v1"')])
    get, head = await http.serve(app), await http.serve(app, request={"method": "HEAD"})
    assert head.raw == b""
    for name in (b"content-encoding", b"vary", b"etag", b"content-type"):
        assert head.header(name) == get.header(name)
    assert head.header(b"content-length") is None
    assert head.middleware.stats.skipped["head"] == 1


async def test_head_without_a_length_is_plain(http):
    """HEAD without a declared length keeps identity's head, with Vary."""
    got = await http.serve(http.answer(b"", headers=[(b"etag", b'"v1"')]), request={"method": "HEAD"})
    assert (got.coding, got.header(b"etag"), got.header(b"vary")) == (None, b'"v1"', b"Accept-Encoding")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("chunked", [False, True])
async def test_any_buffer_is_a_body(http, big, kind, chunked):
    """A body may be bytes, a bytearray or a memoryview, whole or in chunks."""
    chunks = [kind(big[:100]), kind(b""), kind(big[100:]), kind(b"")] if chunked else [kind(big)]
    assert (await http.serve(http.answer(chunks=chunks))).body == big


async def test_trailers_keep_their_chunked_framing(http, big):
    """A response that announced trailers gets no length, and its trailers lose only the digests."""

    async def app(scope, receive, send):
        await http.answer(big, trailers=True)(scope, receive, send)
        headers = [(b"repr-digest", b"x"), (b"server-timing", b"y")]
        await send({"type": "http.response.trailers", "headers": headers, "more_trailers": False})

    got = await http.serve(app)
    assert (got.coding, got.header(b"content-length"), got.body) == ("br", None, big)
    assert got.messages[-1]["headers"] == [(b"server-timing", b"y")]


async def test_trailers_of_a_plain_response_are_untouched(http):
    """Digests of an uncoded body still describe it, and stay."""
    trailer = {"type": "http.response.trailers", "headers": [(b"repr-digest", b"x")]}

    async def app(scope, receive, send):
        await http.answer(b"small", trailers=True)(scope, receive, send)
        await send(trailer)

    assert (await http.serve(app)).messages[-1] is trailer


@pytest.mark.parametrize(
    "settings",
    [
        {"minimum_size": -1},
        {"minimum_size": True},
        {"encodings": ()},
        {"encodings": ("lzma",)},
        {"encodings": ("gzip", "gzip")},
        {"encodings": "gzip"},
        {"types": "text/html"},
        {"exclude": "/x"},
        {"etag": "strong"},
        {"etag": "suffix"},
        {"not_acceptable": "415"},
    ],
)
def test_wrong_settings_are_named_at_construction(settings):
    """A setting out of its range is refused with its name, before the first request."""
    with pytest.raises(ConfigurationError) as caught:
        CompressionMiddleware(None, **settings)
    assert caught.value.fix


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budget(inline_ms=-1),
        lambda: Budget(inline_ms=float("nan")),
        lambda: Budget(preset="slow"),
        lambda: Breach(pad=0),
        lambda: Breach(pad=257),
        lambda: Breach(cross_site="no"),
        lambda: Streaming(encodings=("x",)),
        lambda: Options(coding="x"),
        lambda: Options(minimum_size=-1),
    ],
)
def test_wrong_parts_are_refused_too(make):
    """Each settings record checks itself."""
    with pytest.raises(ConfigurationError):
        make()


async def test_a_missing_library_removes_its_coding_only(http, big, monkeypatch):
    """Without zstd and brotli the rest is offered as before."""
    from isp_perf.compression import _codecs

    monkeypatch.setattr(_codecs, "library", lambda *names: None)
    _codecs.codec.cache_clear()
    try:
        got = await http.serve(http.answer(big))
        assert (got.coding, got.body) == ("gzip", big)
        refused = await http.serve(http.answer(big), b"br, identity;q=0")
        assert (refused.status, refused.header(b"accept-encoding")) == (406, b"gzip, deflate")
    finally:
        _codecs.codec.cache_clear()


@pytest.mark.parametrize(("status", "body"), [(204, b""), (205, b""), (304, b""), (200, b"")])
@pytest.mark.parametrize("accept", [b"gzip", b"gzip, identity;q=0"])
@pytest.mark.parametrize("chunks", [1, 3])
async def test_an_empty_response_never_gets_a_byte(http, status, body, accept, chunks):
    """No status without a body, and no empty body, becomes a coded stream of nothing (20 bytes in gzip)."""
    # Several empty chunks of a 200 would be a stream whose end is not known yet: there the type is a packed one.
    kind = b"image/png" if status == 200 and chunks > 1 else b"text/plain"
    exchange = await http.serve(http.answer(content_type=kind, status=status, chunks=[body] * chunks), accept)
    assert (exchange.raw, exchange.header(b"content-encoding")) == (b"", None)
