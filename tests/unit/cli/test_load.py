"""The load of the demo: a plan fixed by its seed, and honest figures."""

import asyncio
from collections import Counter

import pytest

from isp_perf.cli._load import Outcome, Request, apply, plan


async def _server(answers):
    """Serve each request with the next of `answers` (bytes, or None to hang up) and note what came in."""
    seen, left = [], iter(answers)

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(head.split(b"\r\n")[0].decode())
                answer = next(left)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, StopIteration):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


def _answer(body, status=200):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_the_same_seed_gives_the_same_plan():
    """Two plans of one seed are equal request by request, and a longer one only goes on where the shorter ends."""
    assert plan(300, seed=7) == plan(300, seed=7)
    assert plan(300, seed=7) != plan(300, seed=8)


def test_the_plan_mixes_reads_and_writes_unevenly():
    """Most requests read, some write, and few agents and customers get most of them."""
    requests = plan(4_000, seed=1)
    kinds = Counter(request.method for request in requests)
    assert 0.01 < kinds["POST"] / len(requests) < 0.06
    paths = Counter(request.path for request in requests if request.method == "GET")
    assert sum(count for _, count in paths.most_common(40)) > 0.5 * kinds["GET"]
    assert len(paths) > 200


def test_a_request_says_what_it_carries():
    """A body goes with its type and length, and every request accepts codings as a browser does."""
    encoded = Request("POST", "/x", b'{"text":"ol\xc3\xa1"}').encode("127.0.0.1:1")
    head, _, body = encoded.partition(b"\r\n\r\n")
    assert body == b'{"text":"ol\xc3\xa1"}'
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"accept-encoding: gzip" in head.lower()
    assert b"content-length" not in Request("GET", "/x").encode("h").lower()


async def test_all_of_an_answer_counts_as_bytes_on_the_wire():
    """Heads, bodies and the framing of chunked answers are counted to the byte, and other statuses as failures."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    answers = [_answer("hello"), chunked, _answer("no", 503)]
    server, port, seen = await _server(answers)
    async with server:
        done = []
        outcome = await apply(
            [Request("GET", f"/{n}") for n in range(3)], port, connections=1, done=lambda: done.append(1)
        )
    assert outcome.bytes_received == sum(map(len, answers))
    assert outcome.failures == 1
    assert len(outcome.latencies) == len(done) == 3
    assert seen == ["GET /0 HTTP/1.1", "GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]
    assert outcome.rate > 0


async def test_no_more_connections_than_requests():
    """A plan shorter than the number of connections is sent once, not more."""
    server, port, seen = await _server([_answer("x")] * 9)
    async with server:
        await apply([Request("GET", "/")] * 2, port, connections=8)
    assert len(seen) == 2


async def test_after_its_time_a_load_takes_no_further_request():
    """The requests answered within the time are the first of the plan."""
    server, port, seen = await _server([_answer("x")] * 9)
    async with server:
        outcome = await apply([Request("GET", f"/{n}") for n in range(5)], port, connections=1, at_most=0)
    assert seen == []
    assert (outcome.latencies, outcome.rate, outcome.quantile(0.5)) == ([], 0.0, 0.0)


async def test_a_broken_connection_is_one_clear_error():
    """A service that hangs up in the middle ends the load with an OSError, not with a group of task errors."""
    server, port, _ = await _server([_answer("x"), None])
    async with server:
        with pytest.raises(OSError, match="stopped answering"):
            await apply([Request("GET", "/")] * 4, port, connections=1)


def test_quantiles_are_latencies_that_were_measured():
    """The quantile is the value that the share did not exceed, also at both ends."""
    outcome = Outcome(seconds=2.0, latencies=[0.004, 0.001, 0.003, 0.002])
    assert [outcome.quantile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.001, 0.003, 0.004, 0.004]
    assert outcome.rate == 2.0
