"""Pipelines and streams for threads: redis-py's meaning over the shared connection."""

import contextlib
import threading

import pytest
from redis.exceptions import ResponseError, WatchError

from isp_perf.errors import ConfigurationError, MaybeExecutedError, RemoteError
from isp_perf.redis import RedisPool


@pytest.fixture
def pool(redis_url, patient):
    """A pool on the clean server."""
    pool = RedisPool(patient(url=redis_url))
    yield pool
    pool.sync().disconnect()


def test_redis_pys_pipelines_keep_their_meaning(pool):
    """Plain ones, transactions, errors in their places, WATCH, and empty ones."""
    client = pool.sync()
    assert client.pipeline(transaction=False).set("a", 1).get("a").hgetall("h").execute() == [True, b"1", {}]
    assert client.pipeline().incr("n").incr("n").execute() == [1, 2]
    assert client.pipeline().execute() == []
    replies = client.pipeline(transaction=False).lpush("a", 1).get("a").execute(raise_on_error=False)
    assert isinstance(replies[0], ResponseError)
    assert replies[1] == b"1"
    with pytest.raises(ResponseError):
        client.pipeline().lpush("a", 1).get("a").execute()
    with client.pipeline() as watched:
        watched.watch("n")
        client.incr("n")
        watched.multi()
        watched.incr("n")
        with pytest.raises(WatchError):
            watched.execute()
    assert client.get("n") == b"3"
    assert pool.stats().lanes["blocking"].connects == 1


def test_the_pools_pipeline_collects_or_raises_and_sends_the_rest(pool):
    """Leaving the block sends what was queued, a failed block sends nothing."""
    with pool.blocking.pipeline(on_error="collect") as pipe:
        pipe.set("a", 1).lpush("a", 1)
        done, error = pipe.execute()
        assert done
        assert isinstance(error, ResponseError)
        pipe.set("b", 2)
    assert pool.blocking.get("b") == b"2"
    with pytest.raises(ZeroDivisionError), pool.blocking.pipeline() as pipe:
        pipe.set("c", 1 / len(pipe))
    assert pool.blocking.get("c") is None
    with pytest.raises(ResponseError), pool.blocking.pipeline(transaction=True) as pipe:
        pipe.lpush("a", 1)
    for bad in ({"limit": 0}, {"on_error": "ignore"}):
        with pytest.raises(ConfigurationError):
            pool.blocking.pipeline(**bad)


def test_a_large_pipeline_is_streamed_in_chunks(pool):
    """Thousands of commands are complete and in order, and other threads have their turn in between."""
    stop, turns = threading.Event(), 0

    def neighbour():
        nonlocal turns
        while not stop.is_set():
            pool.blocking.get("none")
            turns += 1

    thread = threading.Thread(target=neighbour)
    thread.start()
    with pool.sync().pipeline(transaction=False) as pipe:
        for i in range(8_000):
            pipe.set(f"k{i}", i).get(f"k{i}")
        replies = pipe.execute()
    stop.set()
    thread.join()
    assert replies[1::2] == [b"%d" % i for i in range(8_000)]
    assert turns > 1


def test_a_stream_answers_in_order(pool):
    """A generator of commands is drawn chunk by chunk; errors are raised, or stand in their places."""
    drawn = 0

    def commands():
        nonlocal drawn
        for i in range(5_000):
            drawn += 1
            yield ("ECHO", str(i))

    replies = pool.blocking.stream(commands(), limit=100)
    assert next(replies) == b"0"
    assert drawn == 100
    assert list(replies) == [b"%d" % i for i in range(1, 5_000)]
    pool.blocking.set("a", b"1")
    broken = [("ECHO", "x"), ("LPUSH", "a", "1"), ("ECHO", "y")]
    first, error, last = pool.blocking.stream(broken, on_error="collect")
    assert (first, last) == (b"x", b"y")
    assert isinstance(error, ResponseError)
    with pytest.raises(ResponseError):
        list(pool.blocking.stream(broken))
    with pytest.raises(ConfigurationError):
        list(pool.blocking.stream([("BLPOP", "l", 0)]))


def test_a_pipeline_whose_answers_are_lost_says_so(pool, proxy, patient):
    """Plain, as a transaction and with WATCH: it may have been executed, and is not repeated."""
    client = RedisPool(patient(url=f"redis://127.0.0.1:{proxy.port}", timeout=0.5)).sync()
    reached(client)
    proxy.blackhole(direction="down")
    with pytest.raises(MaybeExecutedError):
        client.pipeline(transaction=False).incr("n").execute()
    proxy.heal()
    reached(client)
    proxy.blackhole(direction="down")
    with pytest.raises(MaybeExecutedError):
        client.pipeline().incr("n").execute()
    proxy.heal()
    reached(client)
    with client.pipeline() as watched:
        watched.watch("n")
        proxy.blackhole(direction="down")
        with pytest.raises(MaybeExecutedError):
            watched.get("n")
        proxy.heal()
    client.disconnect()
    assert pool.blocking.get("n") == b"2"


def reached(client):
    """Ask until the server answers in time: the deadline is short, because its end is what the test waits for."""
    for _ in range(40):
        with contextlib.suppress(RemoteError):
            return client.ping()
    raise AssertionError("no answer within 20 s")
