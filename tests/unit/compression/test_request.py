"""RequestDecompressionMiddleware (R1 to R8)."""

import contextlib
import os
import threading
import tracemalloc

import brotli
import pytest

from codings import PACK, ZSTD
from isp_perf.compression import RequestDecompressionMiddleware
from isp_perf.compression._decoders import Chain, RefusedBodyError
from isp_perf.errors import ConfigurationError

CODINGS = sorted(PACK)


class Post:
    """One request with a coded body against a middleware around an application that reads all of it."""

    def __init__(self, *chunks, codings=(), app=None, **settings):
        self.sent = []
        self.read = None
        self.sizes = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"content-length", b"7"), (b"x", b"y"), *[(b"content-encoding", c) for c in codings]],
        }
        self.seen = None
        self.incoming = [
            *[{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks[:-1]],
            {"type": "http.request", "body": chunks[-1] if chunks else b"", "more_body": False},
        ]
        self.middleware = RequestDecompressionMiddleware(app or self.application, **settings)

    async def receive(self):
        return self.incoming.pop(0) if self.incoming else {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def application(self, scope, receive, send):
        self.seen = (scope, receive, send)
        parts = []
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            parts.append(message["body"])
            self.sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        self.read = b"".join(parts)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run(self):
        await self.middleware(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
async def test_a_coded_body_is_read_plain(coding, step):
    """A body of any coding, in any chunks, reaches the application as it was before coding."""
    body = b"mensagem " * 300
    data = PACK[coding](body)
    post = await Post(*[data[i : i + step] for i in range(0, len(data), step)], codings=[coding.encode()]).run()
    assert (post.read, post.status) == (body, 200)
    assert post.seen[0]["headers"] == [(b"x", b"y")]


async def test_codings_are_undone_in_reverse_from_one_line_or_several():
    """Codings listed in one line or several, in any case and with identity between, are undone last first."""
    body = b"abc" * 1000
    data = PACK["br"](PACK["gzip"](body))
    for lines in ([b" X-GZip , identity,Br "], [b"gzip", b"br"]):
        assert (await Post(data, codings=lines).run()).read == body


@pytest.mark.parametrize("lines", [[], [b""], [b"identity"], [b"identity, ,"]])
async def test_a_plain_body_passes_as_it_is(lines):
    """Without a coding the application gets the same scope, receive and send."""
    post = await Post(b"plain", codings=lines).run()
    assert post.read == b"plain"
    assert post.seen[0] is post.scope
    assert post.seen[1] == post.receive


async def test_other_scopes_pass():
    """Websockets and lifespan are none of its business."""
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    given = ({"type": "websocket"}, object(), object())
    await RequestDecompressionMiddleware(app)(*given)
    assert seen == [given]


@pytest.mark.parametrize("lines", [[b"lzma"], [b"gzip, compress"], [b"gzip"] * 3, [b"gzip, br, gzip"], [b"\xff"]])
async def test_unknown_or_too_many_codings_are_415(lines):
    """The answer names what is accepted; neither the application nor the body is touched."""
    post = await Post(b"x", codings=lines).run()
    assert post.status == 415
    assert dict(post.sent[0]["headers"])[b"accept-encoding"] == b"br, zstd, gzip, deflate"
    assert (post.seen, len(post.incoming)) == (None, 1)


async def test_an_empty_body_is_empty():
    """A coded body without any byte is an empty body."""
    for coding in CODINGS:
        assert (await Post(b"", codings=[coding.encode()]).run()).read == b""


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("fault", ["cut", "corrupt", "garbage"])
async def test_a_damaged_body_is_400(coding, fault):
    """A body that is cut off, corrupt or followed by garbage is refused, never taken as whole."""
    data = PACK[coding](os.urandom(5000))
    damaged = {"cut": data[:-3], "corrupt": b"\x00\x01\x02" + data[3:], "garbage": data + b"garbage"}[fault]
    for chunks in ([damaged], [damaged[:100], damaged[100:], b""]):
        post = await Post(*chunks, codings=[coding.encode()]).run()
        assert (post.status, post.read) == (400, None)


async def test_members_of_gzip_are_one_body():
    """Concatenated gzip members, cut anywhere, and zstd frames are one body."""
    data = PACK["gzip"](b"one ") + PACK["gzip"](b"") + PACK["gzip"](b"two")
    for cut in range(len(data)):
        assert (await Post(data[:cut], data[cut:], codings=[b"gzip"]).run()).read == b"one two"
    assert (await Post(PACK["zstd"](b"one ") + PACK["zstd"](b"two"), codings=[b"zstd"]).run()).read == b"one two"


@pytest.mark.parametrize("coding", CODINGS)
async def test_the_size_limit_is_exact(coding):
    """A body of exactly the limit passes, one byte more is 413 and the application never has more than the limit."""
    for size, status in ((100_000, 200), (100_001, 413)):
        post = await Post(PACK[coding](b"a" * size), codings=[coding.encode()], max_size=100_000, max_ratio=1e9).run()
        assert post.status == status
        assert sum(post.sizes) <= 100_000


@pytest.mark.parametrize("codings", [["gzip"], ["br"], ["zstd"], ["deflate"], ["br", "br"], ["gzip", "gzip"]])
async def test_a_bomb_costs_little_memory(codings):
    """A body that expands beyond all measure is stopped with at most twice the limit in memory, in every stage."""
    limit = 1 << 20
    data = b"\0" * (16 << 20)
    for coding in codings:
        data = brotli.compress(data, quality=5) if coding == "br" else PACK[coding](data)
    post = Post(data, codings=[",".join(codings).encode()], max_size=limit, max_ratio=1e9)
    tracemalloc.start()
    try:
        await post.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert post.status == 413
    assert peak < 2 * limit


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd", "deflate"])
@pytest.mark.parametrize("limit", [1, 100, 40_000, 100_000])
def test_no_decoder_produces_more_than_a_block_beyond_the_limit(coding, limit):
    """A bomb is stopped one byte above the limit; brotli's decoder works by blocks, and stops within 32,752 bytes."""
    packed = PACK[coding](b"\0" * (4 << 20))
    chain = Chain([coding], max_size=limit, max_ratio=1e9)
    with pytest.raises(RefusedBodyError) as refused:
        assert sum(map(len, chain.decode(packed, last=True))) <= limit
    assert refused.value.status == 413
    assert limit < chain._produced[0] <= limit + (32_752 if coding == "br" else 1)


async def test_a_greedy_ratio_is_413_above_a_floor():
    """Tiny repetitive bodies pass whatever their ratio; beyond 1 MiB the ratio counts."""
    for size, status in ((1 << 20, 200), (3 << 20, 413)):
        assert (await Post(PACK["gzip"](b"a" * size), codings=[b"gzip"]).run()).status == status


async def test_a_large_zstd_window_is_refused():
    """A frame that asks for a window above 8 MiB is not decoded."""
    parameter = ZSTD.CompressionParameter
    packer = ZSTD.ZstdCompressor(options={parameter.window_log: 25})
    data = packer.compress(os.urandom(10_000)) + packer.flush()
    assert (await Post(data, codings=[b"zstd"]).run()).status == 413


@pytest.mark.parametrize("reaction", ["swallow", "answer", "other error"])
async def test_our_answer_wins_while_no_head_was_sent(reaction):
    """Whatever the application makes of the fault, the client gets exactly one answer: ours."""
    after = []

    async def app(scope, receive, send):
        try:
            await receive()
        except Exception:
            after.append(await receive())
            if reaction == "other error":
                raise LookupError from None
            if reaction == "answer":
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body"})

    post = await Post(b"garbage", codings=[b"gzip"], app=app).run()
    assert [m.get("status") for m in post.sent] == [400, None]
    assert after == [{"type": "http.disconnect"}]


async def test_a_fault_after_the_head_breaks_the_connection_off():
    """When the response has begun it is not completed: the server sees an error."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(Exception):
            await receive()

    post = Post(b"garbage", codings=[b"gzip"], app=app)
    with pytest.raises(RuntimeError, match="refused after the response had begun"):
        await post.run()
    assert len(post.sent) == 1


async def test_the_applications_errors_and_a_disconnect_pass_through():
    """An error of the application is its own, and a client that left is reported as such."""

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.disconnect"
        raise LookupError("mine")

    post = Post(codings=[b"gzip"], app=app)
    post.incoming.clear()
    with pytest.raises(LookupError, match="mine"):
        await post.run()


async def test_a_large_body_arrives_in_messages_of_bounded_size():
    """A chunk that expands is handed on in several messages, decoded one at a time away from the loop."""
    body = os.urandom(1000) * 3000
    post = await Post(PACK["zstd"](body), codings=[b"zstd"], max_ratio=1e9).run()
    assert post.read == body
    assert max(post.sizes) <= 1 << 18
    assert len(post.sizes) > 10


@pytest.mark.parametrize(
    "settings",
    [{"max_size": 0}, {"max_ratio": 0}, {"max_codings": 0}, {"encodings": ("x",)}, {"max_ratio": float("nan")}],
)
def test_wrong_settings_are_refused(settings):
    """A limit that could never be met is a configuration error."""
    with pytest.raises(ConfigurationError):
        RequestDecompressionMiddleware(None, **settings)


async def test_chunks_above_the_inline_budget_are_decoded_in_threads(monkeypatch):
    """A small chunk is decoded on the event loop, a large one elsewhere, and both read the same."""
    names = []
    body = os.urandom(30_000)
    post = Post(PACK["gzip"](body)[:4000], PACK["gzip"](body)[4000:], codings=[b"gzip"])
    original = Chain.decode

    def spied(self, data, *, last):
        for piece in original(self, data, last=last):
            names.append((len(data) > 8192, threading.current_thread().name.startswith("isp_perf-codec")))
            yield piece

    monkeypatch.setattr(Chain, "decode", spied)
    assert (await post.run()).read == body
    assert set(names) == {(False, False), (True, True)}
