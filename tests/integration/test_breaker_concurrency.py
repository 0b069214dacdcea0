"""One breaker under threads, loops, tasks and fork."""

import asyncio
import gc
import os
import sys
import threading
import tracemalloc

import pytest

from isp_perf.breaker import (
    CircuitBreaker,
    CircuitConfig,
    CircuitOpenError,
    CountWindow,
    ProbeLimitError,
    SlowCall,
    TimeWindow,
    _machine,
)
from isp_perf.testing import ManualClock


@pytest.fixture
def frantic():
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_threads(number, work):
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fail():
    raise OSError


CONFIGS = [
    CircuitConfig(failure_threshold=10**9),
    CircuitConfig(window=CountWindow(100, 1.0, 100)),
    CircuitConfig(window=TimeWindow(0.01, 1.0, 10**9)),
    CircuitConfig(failure_threshold=10**9, slow_call=SlowCall(60)),
    CircuitConfig(failure_threshold=10**9, bad_result=lambda result: result == "bad"),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("locked", [False, True])
def test_every_outcome_is_counted_exactly(frantic, monkeypatch, config, locked):
    """Eight threads lose no success and no failure, without the GIL's help as well."""
    monkeypatch.setattr(_machine, "FREE_THREADED", locked)
    breaker = CircuitBreaker("threads", config)
    protected = breaker(lambda good: None if good else fail())

    def work():
        for number in range(500):
            try:
                protected(number % 5 != 0)
            except OSError:
                continue

    run_threads(8, work)
    assert (breaker.counts.successes, breaker.counts.failures) == (8 * 400, 8 * 100)


def test_no_success_is_lost_around_transitions(frantic):
    """While the circuit is reset again and again, every success ends up in the total exactly once."""
    breaker = CircuitBreaker("resets")
    protected = breaker(lambda: None)
    done = threading.Event()

    def reset():
        while not done.is_set():
            breaker.reset()

    resetting = threading.Thread(target=reset)
    resetting.start()
    run_threads(4, lambda: [protected() for _ in range(2000)])
    done.set()
    resetting.join()
    assert breaker.counts.successes == 8000


@pytest.mark.parametrize("probes", [1, 3])
def test_threads_never_exceed_the_probes(frantic, probes):
    """Of two hundred threads that arrive together at the end of the break, exactly the probes are admitted."""
    clock = ManualClock()
    config = CircuitConfig(failure_threshold=1, probes=probes, break_duration=30)
    breaker = CircuitBreaker("probes", config, clock=clock)
    begin, over = threading.Barrier(201), threading.Barrier(201)
    admitted, rejected = [], []

    def arrive():
        for _ in range(15):
            begin.wait()
            try:
                admitted.append(breaker.permit())
            except ProbeLimitError as error:
                rejected.append(error)
            over.wait()

    threads = [threading.Thread(target=arrive) for _ in range(200)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        breaker.permit().failed(OSError())
        clock.advance(30)
        begin.wait()
        over.wait()
        assert (len(admitted), len(rejected)) == (probes, 200 - probes)
        while admitted:
            admitted.pop().ok()
        rejected.clear()
        assert breaker.state == "closed"
    for thread in threads:
        thread.join()


async def test_ten_thousand_tasks_never_exceed_the_probes():
    """Of ten thousand tasks that arrive at the end of the break, exactly the probes reach the service."""
    clock = ManualClock()
    breaker = CircuitBreaker("tasks", CircuitConfig(failure_threshold=1, probes=3, break_duration=30), clock=clock)
    reached = []

    @breaker
    async def fetch():
        reached.append(1)
        await asyncio.sleep(0.01)

    with pytest.raises(OSError):
        breaker.call(fail)
    clock.advance(30)
    results = await asyncio.gather(*(fetch() for _ in range(10_000)), return_exceptions=True)
    assert len(reached) == 3
    assert sum(isinstance(result, ProbeLimitError) for result in results) == 9_997
    assert breaker.state == "closed"


def test_waiting_threads_share_the_fate_of_the_probe():
    """With overflow="wait" blocked threads go on when the probe has answered."""
    clock = ManualClock()
    config = CircuitConfig(failure_threshold=1, break_duration=30, overflow="wait")
    breaker = CircuitBreaker("waiters", config, clock=clock)
    with pytest.raises(OSError):
        breaker.call(fail)
    clock.advance(30)
    probe = breaker.permit()
    results = []
    threads = [threading.Thread(target=lambda: results.append(breaker.call(int))) for _ in range(10)]
    for thread in threads:
        thread.start()
    while len(breaker.era.waiters) < 10:
        assert not results
    probe.ok()
    for thread in threads:
        thread.join(20)
    assert results == [0] * 10


def test_two_loops_and_a_thread_share_one_breaker():
    """Coroutines of two event loops and a plain thread trip one circuit together."""
    breaker = CircuitBreaker("shared", CircuitConfig(failure_threshold=3))

    @breaker
    async def fetch():
        await asyncio.sleep(0)
        raise OSError

    def in_a_loop():
        with pytest.raises(OSError):
            asyncio.run(fetch())

    run_threads(2, in_a_loop)
    assert breaker.state == "closed"
    with pytest.raises(OSError):
        breaker.call(fail)
    assert breaker.state == "open"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_probes_for_itself():
    """A child inherits the state but not the parent's probe, and is never locked out by a lock held elsewhere."""
    clock = ManualClock()
    breaker = CircuitBreaker("fork", CircuitConfig(failure_threshold=1, break_duration=30), clock=clock)
    with pytest.raises(OSError):
        breaker.call(fail)
    clock.advance(30)
    parents = breaker.permit()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = breaker.permit()
            parents.ok()
            unmoved = breaker.state == "half_open"
            own.ok()
            code = 0 if unmoved and breaker.state == "closed" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert breaker.state == "half_open"
    parents.ok()
    assert breaker.state == "closed"


def test_collected_generator_hands_its_probe_back():
    """A probing generator or permit that is dropped in a reference cycle gives the next call its turn."""
    clock = ManualClock()
    breaker = CircuitBreaker("cycle", CircuitConfig(failure_threshold=1, break_duration=30), clock=clock)

    @breaker
    def numbers():
        yield 1

    with pytest.raises(OSError):
        breaker.call(fail)
    clock.advance(30)
    for make in (numbers, breaker.permit):
        held = make()
        if make is numbers:
            next(held)
        cycle = [held]
        cycle.append(cycle)
        del held, cycle
        gc.collect()
    assert breaker.call(int) == 0
    assert breaker.state == "closed"


def test_rejections_and_transitions_leave_nothing_behind():
    """Ten thousand rejections and thousands of transitions allocate no memory that stays."""
    clock = ManualClock()
    breaker = CircuitBreaker("memory", CircuitConfig(failure_threshold=1, break_duration=1), clock=clock)

    def trip_and_recover(times):
        for _ in range(times):
            for work in (fail, int):
                try:
                    breaker.call(work)
                except OSError:
                    clock.advance(1)

    def reject(times):
        breaker.isolate("test")
        for _ in range(times):
            try:
                breaker.call(int)
            except CircuitOpenError:
                continue
        breaker.reset()

    def kept():
        gc.collect()
        ours = tracemalloc.Filter(
            inclusive=True, filename_pattern="*isp_perf/breaker/*"
        )  # other threads allocate as well
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)

    tracemalloc.start()
    try:
        trip_and_recover(100)
        reject(100)
        before = kept()
        trip_and_recover(1_000)
        reject(10_000)
        grown = kept() - before
    finally:
        tracemalloc.stop()
    assert grown < 2048
