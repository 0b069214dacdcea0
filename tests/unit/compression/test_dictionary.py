"""Dictionaries (RFC 9842): trained ones, previous responses, and when neither is used (D1 to D7)."""

import json
from base64 import b64encode
from hashlib import sha256

import pytest

from codings import ZSTD
from isp_perf.compression import (
    Breach,
    CompressionMiddleware,
    Dictionaries,
    Dictionary,
    compress_for,
    train_dictionary,
)
from isp_perf.compression import _dictionary as module
from isp_perf.errors import ConfigurationError

DCZ = b"gzip, deflate, br, zstd, dcb, dcz"
PUBLIC = (b"cache-control", b"max-age=60")


def conversation(i):
    return {
        "id": i * 7919, "cliente": f"Cliente {i * 31 % 97}", "canal": "whatsapp", "aberta": i % 2 == 0,
        "mensagens": [{"autor": "cliente", "texto": f"sem sinal desde {i % 24}h, protocolo {i * 104729 % 999983}"}] * 3,
    }  # fmt: skip


def polled(changed=0):
    return json.dumps([conversation(i + (1000 if i < changed else 0)) for i in range(300)]).encode()


def undo(data, dictionary):
    """Decode dcz as a client does: the magic, the hash of the dictionary, and a frame made with its raw content."""
    assert data[:8] == b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"
    assert data[8:40] == sha256(dictionary).digest()
    return ZSTD.decompress(data[40:], zstd_dict=ZSTD.ZstdDict(dictionary, is_raw=True))


def available(body):
    return (b"available-dictionary", b":" + b64encode(sha256(body).digest()) + b":")


async def ask(http, middleware, *headers, accept=DCZ, path="/api/list", scheme="https", **extra):
    return await http.call(middleware, accept, headers=headers, path=path, scheme=scheme, **extra)


def polling(http, bodies, *headers, **settings):
    queue = list(bodies)

    async def app(scope, receive, send):
        await http.answer(queue.pop(0), headers=headers or [PUBLIC])(scope, receive, send)

    settings = {"delta": ("/api/*",), **settings}
    return CompressionMiddleware(app, dictionaries=Dictionaries(**settings))


async def test_the_previous_response_is_the_next_ones_dictionary(http):
    """A polled list of which little changed is a small difference on the wire, and offers itself again."""
    first, second = polled(), polled(2)
    middleware = polling(http, [first, second])
    got = await ask(http, middleware)
    assert (got.coding, got.body) == ("br", first) or got.coding == "zstd"
    assert got.header(b"use-as-dictionary") == b'match="/api/*"'
    assert got.header(b"vary") == b"Accept-Encoding, Available-Dictionary"
    got = await ask(http, middleware, available(first))
    assert got.coding == "dcz"
    assert undo(got.raw, first) == second
    assert len(got.raw) < 2048 < len(compress_for(b"br", second, b"application/json").body)
    assert got.header(b"content-length") == b"%d" % len(got.raw)
    assert got.header(b"use-as-dictionary") == b'match="/api/*"'
    stats = middleware.stats.as_dict()
    assert (stats["dictionary"], stats["by_encoding"]["dcz"]["requests"]) == (1, 1)
    assert stats["bytes_in"] == stats["bytes_out"] + stats["total_bytes_saved"]


async def test_a_trained_dictionary_is_served_linked_and_used(http):
    """Clients learn where the dictionary is, fetch it, and get small answers that are smaller than brotli's."""
    samples = [json.dumps(conversation(i)).encode() * 3 for i in range(400)]
    dictionary = Dictionary(train_dictionary(samples), match="/api/*")
    body = json.dumps([conversation(5000 + i) for i in range(5)]).encode()
    middleware = CompressionMiddleware(http.answer(body), dictionaries=Dictionaries(trained=(dictionary,)))
    first = await ask(http, middleware)
    assert first.header(b"link") == f'<{dictionary.path}>; rel="compression-dictionary"'.encode()
    fetched = await ask(http, middleware, path=dictionary.path)
    assert fetched.header(b"use-as-dictionary") == b'match="/api/*"'
    assert b"max-age" in fetched.header(b"cache-control")
    head = await ask(http, middleware, path=dictionary.path, method="HEAD")
    assert (head.raw, head.start) == (b"", fetched.start)
    got = await ask(http, middleware, available(fetched.raw))
    assert got.coding == "dcz"
    assert got.header(b"link") is None
    assert undo(got.raw, fetched.raw) == body
    assert len(got.raw) < 0.8 * len(compress_for(b"br", body, b"application/json").body)


@pytest.mark.parametrize(
    "value", [b"", b"::", b":" + b"A" * 43 + b"=:", b":!!!!:", b"x", b"AAAA", b":" + b"A" * 400 + b":", b"\xff"]
)
async def test_an_unknown_or_malformed_hash_is_ignored(http, value):
    """A name that means nothing to us is no error: the response is coded as usual."""
    middleware = polling(http, [polled()])
    got = await ask(http, middleware, (b"available-dictionary", value))
    assert (got.coding in ("br", "zstd"), got.body) == (True, polled())


@pytest.mark.parametrize("accept", [b"br", b"*", b"br, dcz;q=0", b"br, dcz;q=0.5", None])
async def test_dcz_must_be_named_and_welcome(http, accept):
    """Without dcz in Accept-Encoding, named and liked best, no dictionary is used, and Vary says that it could be."""
    first = polled()
    middleware = polling(http, [first, first])
    await ask(http, middleware)
    got = await ask(http, middleware, available(first), accept=accept)
    assert got.coding != "dcz"
    assert got.header(b"vary") == b"Accept-Encoding, Available-Dictionary"


@pytest.mark.parametrize(
    ("headers", "scheme", "used"),
    [
        ([], "https", True),
        ([], "http", False),
        ([(b"host", b"localhost:8000")], "http", True),
        ([(b"sec-fetch-site", b"same-origin")], "https", True),
        ([(b"sec-fetch-site", b"none")], "https", True),
        ([(b"sec-fetch-site", b"cross-site")], "https", False),
        ([(b"sec-fetch-site", b"same-site")], "https", False),
    ],
)
async def test_dictionaries_need_a_secure_context_and_one_origin(http, headers, scheme, used):
    """Plain http and other origins neither get a dictionary response nor an offer."""
    first = polled()
    middleware = polling(http, [first, first])
    await ask(http, middleware)

    scope_headers = [(b"accept-encoding", DCZ), available(first), *headers]
    scope = {"type": "http", "method": "GET", "path": "/api/list", "scheme": scheme, "headers": scope_headers}
    sent = []

    async def keep(message):
        sent.append(message)

    await middleware(scope, None, keep)
    fields = dict(sent[0]["headers"])
    assert (fields[b"content-encoding"] == b"dcz") is used
    assert (b"use-as-dictionary" in fields) is used


@pytest.mark.parametrize(
    ("control", "personal", "kept"),
    [
        (b"max-age=9", [], True),
        (b"no-store", [], False),
        (b"private, max-age=9", [], False),
        (b"max-age=9", [(b"cookie", b"s=1")], False),
        (b"max-age=9", [(b"authorization", b"x")], False),
        (b"public, max-age=9", [(b"cookie", b"s=1")], True),
    ],
)
async def test_without_a_session_key_only_public_responses_are_kept(http, control, personal, kept):
    """What may be one user's is not made a dictionary when nobody says whose it is."""
    first = polled()
    middleware = polling(http, [first, first], (b"cache-control", control))
    got = await ask(http, middleware, *personal)
    assert (got.header(b"use-as-dictionary") is not None) is kept
    got = await ask(http, middleware, *personal, available(first))
    assert (got.coding == "dcz") is kept


async def test_a_private_dictionary_serves_its_own_user_only(http):
    """With a session key each user's responses are dictionaries for that user and for nobody else."""
    first = polled()
    middleware = polling(
        http, [first] * 3, (b"cache-control", b"private, max-age=9"), session=lambda scope: scope["user"]
    )
    await ask(http, middleware, user="ana")
    assert (await ask(http, middleware, available(first), user="ana")).coding == "dcz"
    middleware = polling(
        http, [first] * 3, (b"cache-control", b"private, max-age=9"), session=lambda scope: scope["user"]
    )
    await ask(http, middleware, user="ana")
    assert (await ask(http, middleware, available(first), user="bia")).coding != "dcz"


async def test_kept_responses_are_bounded_in_bytes(http):
    """The oldest previous responses go when the limit is reached, and large ones are never kept."""
    bodies = [polled(i) for i in range(6)]
    limit = int(2.5 * len(bodies[0]))
    middleware = polling(http, [*bodies, bodies[0], bodies[0]], max_bytes=limit)
    for _ in bodies:
        await ask(http, middleware)
    shelf = middleware._engine.shelf
    assert sum(len(entry.body) for entry in shelf._by_digest.values()) == shelf._bytes <= limit
    assert len(shelf._by_body) == len(shelf._by_digest) == 2
    assert (await ask(http, middleware, available(bodies[0]))).coding != "dcz"
    assert (await ask(http, middleware, available(bodies[5]))).coding == "dcz"
    middleware = polling(http, bodies, max_body=100)
    assert (await ask(http, middleware)).header(b"use-as-dictionary") is None


async def test_tags_of_dictionary_responses_round_trip(http):
    """A tag marked with dcz is taken off like any other mark."""
    seen = []
    app = http.answer(b"", None, status=304, headers=[(b"etag", b'"v"')], seen=seen)
    middleware = CompressionMiddleware(app, dictionaries=Dictionaries(delta=("/api/*",)))
    got = await ask(http, middleware, (b"if-none-match", b'W/"v-dcz"'))
    assert dict(seen[0]["headers"])[b"if-none-match"] == b'"v"'
    assert got.header(b"etag") == b'W/"v-dcz"'
    assert got.header(b"vary") == b"Accept-Encoding, Available-Dictionary"


async def test_other_paths_and_streams_are_coded_as_ever(http, big):
    """A path without a dictionary does not vary by it, and a stream uses none."""
    middleware = CompressionMiddleware(http.answer(chunks=[big, b""]), dictionaries=Dictionaries(delta=("/api/*",)))
    got = await ask(http, middleware, available(big), path="/else")
    assert (got.coding, got.header(b"vary")) == ("br", b"Accept-Encoding")
    got = await ask(http, middleware, available(big))
    assert (got.coding, got.body) == ("br", big)


async def test_a_dictionary_job_above_the_budget_runs_in_a_thread(http):
    """Large differences are coded away from the event loop like any other body."""
    from isp_perf.compression import Budget

    first = polled()

    middleware = CompressionMiddleware(
        http.answer(first, headers=[PUBLIC]), budget=Budget(inline_ms=0), dictionaries=Dictionaries(delta=("/api/*",))
    )
    await ask(http, middleware)
    got = await ask(http, middleware, available(first))
    assert (got.coding, middleware.stats.offloaded) == ("dcz", 2)


async def test_without_zstd_dictionaries_change_nothing(http, big, monkeypatch):
    """A missing library turns dictionaries off, and training says what to install."""
    monkeypatch.setattr(module, "dictionary_codec", lambda: None)
    middleware = CompressionMiddleware(http.answer(big), dictionaries=Dictionaries(delta=("/api/*",)))
    got = await ask(http, middleware)
    assert (got.coding, got.header(b"vary")) == ("br", b"Accept-Encoding")
    with pytest.raises(ConfigurationError, match="zstd"):
        train_dictionary([b"x"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dictionary(b"", match="/x"),
        lambda: Dictionary(b"x", match="x"),
        lambda: Dictionary(b"x", match='/x"'),
        lambda: Dictionaries(delta=("/x(.*)",)),
        lambda: Dictionaries(max_bytes=0),
        lambda: Dictionaries(max_body=0),
        lambda: train_dictionary([b"a"]),
        lambda: train_dictionary([b"a"] * 100, max_size=1),
        lambda: CompressionMiddleware(None, breach=Breach(), dictionaries=Dictionaries()),
    ],
)
def test_wrong_settings_are_refused(make):
    """Patterns with groups, empty dictionaries, useless limits and the contradiction with padding are named."""
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize("samples", [[b"a"] * 10, [b"%d" % i for i in range(14)], [b"abcd"] * 100, []])
def test_samples_of_a_few_bytes_are_refused(samples):
    """The trainer of the library would end the process on them, so it is never asked."""
    with pytest.raises(ConfigurationError, match="too little in common"):
        train_dictionary(samples)


@pytest.mark.parametrize("accept", [b"dcz", b"dcz, identity;q=0", b"identity, dcz", b"gzip;q=0.5, dcz, identity"])
async def test_a_client_of_dcz_alone_is_served_with_it(http, accept):
    """A dictionary that the client has makes dcz a coding like the others, even the only one."""
    middleware = polling(http, [polled(), polled(2)])
    await ask(http, middleware)
    second = await ask(http, middleware, available(polled()), accept=accept)
    assert second.header(b"content-encoding") == b"dcz"
    assert undo(second.raw, polled()) == polled(2)


@pytest.mark.parametrize(("accept", "status"), [(b"dcz", 200), (b"dcz, identity;q=0", 406)])
async def test_a_client_of_dcz_alone_without_a_dictionary_gets_no_coding(http, accept, status):
    """Without a dictionary that both have, dcz cannot be used: identity, or 406 where that is refused."""
    exchange = await ask(http, polling(http, [polled()]), available(b"unknown"), accept=accept)
    assert (exchange.status, exchange.header(b"content-encoding")) == (status, None)
    assert b"Accept-Encoding" in exchange.header(b"vary")


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_streams_to_a_client_of_dcz_alone_stay_plain(http, kind):
    """A stream has no dictionary, so a client that takes nothing else gets it as it is, with what it varies by."""
    body = polled()
    queue = [http.answer(body, headers=[PUBLIC]), http.answer(body, kind, chunks=[body, body])]

    async def app(scope, receive, send):
        await queue.pop(0)(scope, receive, send)

    middleware = CompressionMiddleware(app, dictionaries=Dictionaries(delta=("/api/*",)))
    await ask(http, middleware)
    exchange = await ask(http, middleware, available(body), accept=b"dcz")
    assert (exchange.header(b"content-encoding"), exchange.raw) == (None, body * 2)
    assert exchange.header(b"vary") == b"Accept-Encoding, Available-Dictionary"


async def test_head_names_the_coding_of_get_with_a_dictionary(http):
    """HEAD of a resource whose GET would be coded with a dictionary says dcz too."""
    first, second = polled(), polled(2)
    length = [PUBLIC, (b"content-length", b"%d" % len(second))]
    middleware = polling(http, [first], PUBLIC)
    await ask(http, middleware)
    middleware.app = http.answer(second, headers=length)
    got = await ask(http, middleware, available(first))
    head = await ask(http, middleware, available(first), method="HEAD")
    assert got.header(b"content-encoding") == head.header(b"content-encoding") == b"dcz"
    assert head.raw == b""
