"""Threads on one pool: combined commands, and a leader's role that is never lost."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from isp_perf.errors import MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisPool
from isp_perf.redis._combine import Combiner
from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._stats import LaneStats
from isp_perf.redis._wire import Wire


@pytest.fixture
def make(proxy, patient):
    """Make pools behind the proxy, patient if not told otherwise, and close them."""
    made = []

    def make(**options):
        pool = RedisPool(patient(url=f"redis://127.0.0.1:{proxy.port}", **options))
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
    assert pool.blocking.set_many({f"k{i}": b"%d" % i for i in range(30)}).errors == {}
    before = pool.stats().lanes["blocking"].batches
    answers = in_threads(30, lambda i: {pool.blocking.get(f"k{i}") for _ in range(50)})
    assert answers == [{b"%d" % i} for i in range(30)]
    lane = pool.stats().lanes["blocking"]
    assert lane.connects == 1
    assert lane.batches - before < 1_500


def test_a_large_reply_and_a_blocking_command_take_their_own_connection(make):
    """They delay no other thread: the one that blocks is released by what comes after the others."""
    pool, got = make(), []
    blocked = threading.Thread(target=lambda: got.append(pool.sync().blpop(["queue"], timeout=60)))
    blocked.start()
    assert in_threads(4, lambda i: pool.blocking.set(f"k{i}", b"")) == [True] * 4
    assert not got
    pool.sync().rpush("queue", "x")
    blocked.join()
    assert [*got[0]] == [b"queue", b"x"]


def healed(pool):
    """Wait until the pool, which may be between two attempts to connect, works again."""
    end = time.monotonic() + 20
    while True:
        try:
            return pool.sync().ping()
        except (NotSentError, MaybeExecutedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


def test_no_reply_is_lost_or_mixed_up_when_connections_die(make, proxy):
    """Under cut connections each thread reads its own values, and a counter never exceeds what was admitted."""
    pool = make()
    assert pool.blocking.set_many({f"k{i}": b"%d" % i for i in range(12)}).errors == {}
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
    assert healed(pool)
    proxy.blackhole(direction="down")

    def work(i):
        if i == 0:  # the clock of the others: a thread among threads, which a busy machine delays as it does them
            time.sleep(0.2)
            for _ in range(10):
                time.sleep(0.005)
        else:
            with pytest.raises(RemoteError):
                pool.blocking.get("a")
        return time.monotonic()

    def all_in_time(_attempt):
        clock, *ended = in_threads(21, work)
        return max(ended) < clock

    assert any(map(all_in_time, range(5)))  # threads are not woken in a fair order: one round of five proves it
    proxy.heal()
    assert healed(pool)
    assert pool.blocking.get("a") is None


PING = [b"*1\r\n$4\r\nPING\r\n"]


class Outcomes(dict):
    """What became of a PING, by the name of the thread that sent it with so many seconds of time."""

    def __init__(self, combiner):
        super().__init__()
        self.combiner = combiner

    def start(self, name, seconds=30.0):
        thread = threading.Thread(target=self.ask, name=name, args=(name, seconds))
        thread.start()
        return thread

    def ask(self, name, seconds):
        try:
            self[name] = self.combiner.execute(PING, deadline=time.monotonic() + seconds)
        except LinkLostError as error:
            self[name] = error


@contextmanager
def held(monkeypatch, *, expired=()):
    """Hold back what the thread named first reads; threads named in ``expired`` find that their time is over."""
    gate, read = threading.Event(), Wire.next_reply

    def next_reply(wire, deadline, stats):
        name = threading.current_thread().name
        if name == "first":
            assert gate.wait(30)
        if name in expired:
            raise TimeoutError
        return read(wire, deadline, stats)

    monkeypatch.setattr(Wire, "next_reply", next_reply)
    try:
        yield
    finally:
        gate.set()


def wait_for(condition):
    """Wait until something has happened in another thread."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def combiner(make):
    """A combiner that is connected."""
    combiner = Combiner(make().sync()._open, check_after=0, stats=LaneStats())
    assert combiner.execute(PING, deadline=time.monotonic() + 30) == [b"PONG"]
    yield combiner
    combiner.close()


def test_a_leader_out_of_time_hands_the_reading_over(combiner, monkeypatch):
    """A thread with little time left fails alone; the one behind it gets its reply over the same connection."""
    outcomes = Outcomes(combiner)
    with held(monkeypatch, expired=["impatient"]):
        threads = [outcomes.start("first")]
        wait_for(lambda: combiner.busy)
        for number, name in enumerate(["impatient", "patient"], 1):  # both wait for the first, and share the next round
            threads.append(outcomes.start(name))
            wait_for(lambda number=number: len(combiner._queue) == number)
    for thread in threads:
        thread.join()
    assert outcomes["first"] == outcomes["patient"] == [b"PONG"]
    assert isinstance(outcomes["impatient"], LinkLostError)
    assert outcomes["impatient"].written
    assert combiner._stats.connects == 1


def test_a_thread_that_waited_too_long_was_surely_not_sent(combiner, monkeypatch):
    """A follower whose time ends before its commands were taken learns that nothing was sent."""
    outcomes = Outcomes(combiner)
    with held(monkeypatch):
        leader = outcomes.start("first")
        wait_for(lambda: combiner.busy)
        outcomes.start("late", seconds=0.02).join()
    leader.join()
    assert (outcomes["late"].written, outcomes["late"].timeout) == (False, "queue")
    assert outcomes["first"] == [b"PONG"]


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


def test_an_interrupted_follower_leaves_nobody_waiting(combiner, monkeypatch):
    """A signal that ends the wait of one thread ends no other's: who waits behind it is answered, and the next call."""
    outcomes = Outcomes(combiner)

    def interrupt():
        wait_for(lambda: combiner._queue)  # the main thread waits
        threads.append(outcomes.start("behind"))
        wait_for(lambda: len(combiner._queue) == 2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with held(monkeypatch):
        threads = [outcomes.start("first")]
        wait_for(lambda: combiner.busy)
        threads.append(threading.Thread(target=interrupt))
        threads[-1].start()
        with pytest.raises(KeyboardInterrupt):
            combiner.execute(PING, deadline=time.monotonic() + 30)
    for thread in threads:
        thread.join()
    assert outcomes == {"first": [b"PONG"], "behind": [b"PONG"]}
    assert combiner.execute(PING, deadline=time.monotonic() + 30) == [b"PONG"]


def test_a_silent_connection_is_checked_before_use(make, proxy):
    """After the health check interval a dead connection is noticed before a command is risked on it."""
    pool = make(health_check_interval=0.05)
    pool.sync().incr("n")
    time.sleep(0.1)
    proxy.drop()
    time.sleep(0.02)
    assert pool.sync().incr("n") == 2
