"""Threads on one pool: combined commands, and a leader's role that is never lost."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.redis._combine import Combiner
from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._stats import LaneStats
from isp_perf.testing import FaultProxy


@pytest.fixture
def proxy(redis_url):
    """A proxy in front of the clean server."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        yield proxy


@pytest.fixture
def make(proxy):
    """Make pools behind the proxy, and close them."""
    made = []

    def make(**options):
        pool = RedisPool(RedisSettings(url=f"redis://127.0.0.1:{proxy.port}", **options))
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.sync().disconnect()


def in_threads(count, work):
    """Run ``work(i)`` in ``count`` threads that start together; return results or exceptions in order."""
    barrier = threading.Barrier(count)

    def run(i):
        barrier.wait()
        try:
            return work(i)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def test_threads_share_one_connection_and_get_their_own_replies(make):
    """Thirty threads, each reading its own key many times, over one socket with fewer writes than commands."""
    pool = make()
    pool.blocking.set_many({f"k{i}": b"%d" % i for i in range(30)})
    before = pool.stats().lanes["blocking"].batches
    answers = in_threads(30, lambda i: {pool.blocking.get(f"k{i}") for _ in range(50)})
    assert answers == [{b"%d" % i} for i in range(30)]
    lane = pool.stats().lanes["blocking"]
    assert lane.connects == 1
    assert lane.batches - before < 1_500


def test_a_large_reply_and_a_blocking_command_take_their_own_connection(make):
    """They delay no other thread."""
    pool = make()

    def work(i):
        if i == 0:
            return pool.sync().blpop(["nothing"], timeout=1)
        started = time.perf_counter()
        pool.blocking.set(f"k{i}", b"")
        return time.perf_counter() - started

    blocked, *others = in_threads(5, work)
    assert blocked is None
    assert max(others) < 0.5


def healed(pool):
    """Wait until the pool, which may be between two attempts to connect, works again."""
    end = time.monotonic() + 10
    while True:
        try:
            return pool.sync().ping()
        except NotSentError as error:
            if time.monotonic() > end:
                raise
            time.sleep(error.retry_after or 0.005)


def test_no_reply_is_lost_or_mixed_up_when_connections_die(make, proxy):
    """Under cut connections each thread reads its own values, and a counter never exceeds what was admitted."""
    pool = make(timeout=0.5)
    pool.blocking.set_many({f"k{i}": b"%d" % i for i in range(12)})
    stop = threading.Event()

    def cut():
        while not stop.wait(0.01):
            proxy.reset()

    def work(i):
        acknowledged = unsure = 0
        for _ in range(40):
            try:
                assert pool.blocking.get(f"k{i}") == b"%d" % i
                pool.sync().incr("n")
                acknowledged += 1
            except MaybeExecutedError as error:
                unsure += "INCR" in str(error)
            except NotSentError as error:
                time.sleep(error.retry_after or 0.005)
        return acknowledged, unsure

    cutter = threading.Thread(target=cut)
    cutter.start()
    outcomes = in_threads(12, work)
    stop.set()
    cutter.join()
    assert healed(pool)
    counted = int(pool.sync().get("n") or 0)
    acknowledged, unsure = (sum(part) for part in zip(*outcomes, strict=True))
    assert acknowledged > 0
    assert acknowledged <= counted <= acknowledged + unsure


def test_every_thread_ends_within_its_deadline(make, proxy):
    """When answers stop, leader and followers all end in time, and the pool works again afterwards."""
    pool = make(timeout=0.2)
    pool.blocking.get("a")
    proxy.blackhole(direction="down")

    def work(_):
        started = time.perf_counter()
        try:
            pool.blocking.get("a")
        except RemoteError:
            return time.perf_counter() - started
        raise AssertionError("an answer came out of nowhere")

    assert max(in_threads(20, work)) < 0.5
    proxy.heal()
    assert healed(pool)
    assert pool.blocking.get("a") is None


def test_a_leader_out_of_time_hands_the_reading_over(make, proxy):
    """A thread with little time left fails alone; the one behind it gets its reply over the same connection."""
    pool = make()
    stats = LaneStats()
    combiner = Combiner(pool.sync()._open, check_after=0, stats=stats)
    ping = [b"*1\r\n$4\r\nPING\r\n"]
    combiner.execute(ping, deadline=time.monotonic() + 1)
    proxy.latency(0.05)
    outcomes = {}

    def ask(name, seconds, wait):
        time.sleep(wait)
        try:
            outcomes[name] = combiner.execute(ping, deadline=time.monotonic() + seconds)
        except LinkLostError as error:
            outcomes[name] = error

    # the first occupies the connection, so that the impatient and the patient one share the next round
    plans = [("first", 1, 0), ("impatient", 0.13, 0.01), ("patient", 1, 0.02)]
    threads = [threading.Thread(target=ask, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes["first"] == outcomes["patient"] == [b"PONG"]
    assert isinstance(outcomes["impatient"], LinkLostError)
    assert outcomes["impatient"].written
    assert stats.connects == 1
    combiner.close()


def test_a_thread_that_waited_too_long_was_surely_not_sent(make, proxy):
    """A follower whose time ends before its commands were taken learns that nothing was sent."""
    pool = make()
    combiner = Combiner(pool.sync()._open, check_after=0, stats=LaneStats())
    ping = [b"*1\r\n$4\r\nPING\r\n"]
    combiner.execute(ping, deadline=time.monotonic() + 1)
    proxy.latency(0.05)
    leader = threading.Thread(target=combiner.execute, args=(ping,), kwargs={"deadline": time.monotonic() + 1})
    leader.start()
    time.sleep(0.02)
    with pytest.raises(LinkLostError) as caught:
        combiner.execute(ping, deadline=time.monotonic() + 0.02)
    leader.join()
    assert (caught.value.written, caught.value.timeout) == (False, "queue")
    combiner.close()


def test_an_interrupted_leader_passes_the_lead_on(make, monkeypatch):
    """Even an exception that is nobody's business ends the round in order, and the next call works."""
    pool = make()
    combiner = pool.sync().combiner
    pool.blocking.get("a")
    connection = combiner._connection

    def interrupted(_deadline, _stats):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(connection), "next_reply", lambda _self, deadline, stats: interrupted(deadline, stats))
    with pytest.raises(KeyboardInterrupt):
        pool.blocking.get("a")
    monkeypatch.undo()
    assert pool.blocking.get("a") is None
    assert not combiner.busy


def test_a_silent_connection_is_checked_before_use(make, proxy):
    """After the health check interval a dead connection is noticed before a command is risked on it."""
    pool = make(health_check_interval=0.05)
    pool.sync().incr("n")
    time.sleep(0.1)
    proxy.drop()
    time.sleep(0.02)
    assert pool.sync().incr("n") == 2
