"""Coded request bodies: any chunking reads the same, and no bytes do harm."""

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from codings import PACK
from isp_perf.compression import RequestDecompressionMiddleware

bodies = st.one_of(st.binary(max_size=300), st.integers(0, 9000).map(lambda n: b"ab" * n))


async def post(chunks, codings, **limits):
    """Send a body in chunks; return what the application read (None if refused) and the status."""
    incoming = [
        {"type": "http.request", "body": chunk, "more_body": index + 1 < len(chunks)}
        for index, chunk in enumerate(chunks)
    ]
    read, sent = [], []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        while True:
            message = await receive()
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-encoding", ", ".join(codings).encode())],
    }
    await RequestDecompressionMiddleware(app, **limits)(scope, receive, send)
    return sent[0]["status"], b"".join(read)


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=100)
@given(
    bodies,
    st.lists(st.sampled_from(sorted(PACK)), min_size=1, max_size=2),
    st.lists(st.integers(0, 10_000), max_size=5),
)
def test_any_chunking_reads_the_same(body, codings, places):
    """A body coded once or twice and cut anywhere is read as it was."""
    data = body
    for coding in codings:
        data = PACK[coding](data)
    assert asyncio.run(post(cut(data, places), codings)) == (200, body)


@settings(max_examples=150)
@given(bodies, st.sampled_from(sorted(PACK)), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_a_damaged_body_is_never_taken_for_another(body, coding, place, byte, truncate):
    """A body with one byte changed or its end cut off is read as it was, or refused."""
    data = PACK[coding](body)
    place %= len(data)
    damaged = data[:place] if truncate else data[:place] + bytes((byte,)) + data[place + 1 :]
    status, read = asyncio.run(post([damaged], [coding]))
    if truncate and place:
        assert status == 400
    elif coding in ("gzip", "deflate"):  # these two carry a checksum
        assert status in (400, 413) or read in (body, b"")
    assert status in (200, 400, 413)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(sorted(PACK)), st.integers(1, 200))
def test_the_application_never_has_more_than_the_limit(data, coding, limit):
    """Whatever a stranger sends, the application reads at most the limit and gets an answer."""
    for sent in (data, PACK[coding](data)):
        status, read = asyncio.run(post([sent], [coding], max_size=limit))
        assert status in (200, 400, 413)
        assert len(read) <= limit
