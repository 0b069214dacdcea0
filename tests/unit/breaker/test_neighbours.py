import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from isp_perf.breaker import (
    Backoff,
    BulkheadFullError,
    CircuitBreaker,
    CircuitConfig,
    CircuitOpenError,
    RetryBudget,
    bulkhead,
    fallback,
    hedge,
    pipeline,
    retry,
    retry_after,
    timeout,
)
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock

SOON = Backoff(0.001, factor=1, maximum=0.001, jitter=1)


class Flaky:
    """Fails as often as told, then answers."""

    def __init__(self, failures, error=OSError):
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self, x=1):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return x

    async def later(self, x=1):
        await asyncio.sleep(0)
        return self(x)


def test_retry_calls_again_until_it_succeeds_or_attempts_run_out():
    """A plain function is called at most ``attempts`` times, and the last error is the one that is raised."""
    good, bad = Flaky(2), Flaky(9)
    assert retry(3, backoff=SOON)(good)(5) == 5
    with pytest.raises(OSError):
        retry(3, backoff=SOON)(bad)()
    assert (good.calls, bad.calls) == (3, 3)


async def test_retry_serves_coroutine_functions():
    """A coroutine function is retried in the flow of its own task."""
    flaky = Flaky(2)
    assert await retry(3, backoff=SOON)(flaky.later)(6) == 6
    assert flaky.calls == 3


@pytest.mark.parametrize("error", [KeyError, CircuitOpenError("x", 1.0), asyncio.CancelledError, KeyboardInterrupt])
def test_retry_leaves_other_errors_alone(error):
    """What is not named, a rejection, a cancellation and an exit are raised at the first attempt."""
    flaky = Flaky(1, error)
    with pytest.raises(BaseException):
        retry(3, backoff=SOON, on=OSError)(flaky)()
    assert flaky.calls == 1


def test_retry_waits_for_an_open_circuit_when_told_to():
    """With rejected=True a rejection is retried, and never before its retry_after."""
    flaky = Flaky(1, CircuitOpenError("x", 0.02))
    began = time.monotonic()
    assert retry(2, backoff=SOON, rejected=True)(flaky)() == 1
    assert time.monotonic() - began >= 0.02


def test_retry_keeps_its_deadline():
    """A pause that would end after the deadline is not begun."""
    clock = ManualClock()
    slow = Backoff(1, factor=1, maximum=1, jitter=0)
    flaky = Flaky(9)
    with pytest.raises(OSError):
        retry(9, backoff=slow, deadline=1, clock=clock)(flaky)()
    assert flaky.calls == 1


def test_retry_budget_runs_dry_and_is_refunded():
    """Retries take tokens, a success gives them back, and without tokens there is no retry."""
    budget = RetryBudget(10, cost=5, timeout_cost=10)
    protect = retry(9, backoff=SOON, budget=budget)
    failing = Flaky(9)
    with pytest.raises(OSError):
        protect(failing)()
    assert (failing.calls, budget.tokens) == (3, 0)
    late = Flaky(1, TimeoutError)
    with pytest.raises(TimeoutError):
        protect(late)()
    assert late.calls == 1
    for _ in range(5):
        protect(Flaky(0))()
    assert budget.tokens == 5
    assert protect(Flaky(1))() == 1
    assert budget.tokens == 5


@pytest.mark.parametrize("function", [lambda: (yield), bulkhead])
def test_strategies_refuse_what_they_cannot_serve(function):
    """Generators are not retried, and plain functions cannot be interrupted or hedged."""
    with pytest.raises(ConfigurationError):
        pipeline(retry(), timeout(1), hedge(1))(function)


@pytest.mark.parametrize(
    "make",
    [
        lambda: retry(0),
        lambda: retry(on=3),
        lambda: retry(deadline=0),
        lambda: timeout(0),
        lambda: bulkhead(0),
        lambda: bulkhead(1, -1),
        lambda: hedge(0),
        lambda: hedge(1, 0),
        lambda: hedge(1, budget_ratio=0),
        lambda: fallback(1, on="x"),
        lambda: RetryBudget(0),
        lambda: pipeline(3),
    ],
)
def test_strategies_refuse_impossible_settings(make):
    """A setting out of its range is a ConfigurationError at construction."""
    with pytest.raises(ConfigurationError):
        make()


async def test_timeout_ends_a_coroutine():
    """A call that takes too long ends with TimeoutError; one in time is left alone."""

    @timeout(0.02)
    async def rest(seconds):
        await asyncio.sleep(seconds)
        return seconds

    assert await rest(0) == 0
    with pytest.raises(TimeoutError):
        await rest(60)


async def test_bulkhead_rejects_or_queues_in_a_task():
    """Without a wait limit a full bulkhead rejects; with one it lets the first in the queue go first."""
    release = asyncio.Event()
    order = []

    def limited(strategy):
        @strategy
        async def work(name):
            order.append(name)
            await release.wait()
            return name

        return work

    strict, patient = limited(bulkhead(1)), limited(bulkhead(1, wait=20))
    first = asyncio.create_task(strict("a"))
    await asyncio.sleep(0)
    with pytest.raises(BulkheadFullError):
        await strict("b")
    waiting = [asyncio.create_task(patient(name)) for name in "cde"]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(first, *waiting) == ["a", "c", "d", "e"]
    assert order == ["a", "c", "d", "e"]


async def test_bulkhead_gives_up_after_its_wait_limit():
    """A queued call is rejected when no place becomes free in time."""
    limit = bulkhead(1, wait=0.01, name="db")

    @limit
    async def work(event):
        await event.wait()

    release = asyncio.Event()
    holder = asyncio.create_task(work(release))
    await asyncio.sleep(0)
    with pytest.raises(BulkheadFullError) as caught:
        await work(release)
    assert caught.value.name == "db"
    release.set()
    await holder
    assert (limit.free, limit.rejected, len(limit.queue)) == (1, 1, 0)


async def test_cancelled_waiter_never_loses_a_place():
    """Whether a waiter is cancelled before or after it was given a place, the place is there afterwards."""
    limit = bulkhead(1, wait=20)

    @limit
    async def work(event):
        await event.wait()

    for given in (False, True):
        release = asyncio.Event()
        holder = asyncio.create_task(work(release))
        await asyncio.sleep(0)
        waiter = asyncio.create_task(work(release))
        await asyncio.sleep(0)
        if given:
            release.set()
            await holder
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        release.set()
        await holder
        assert (limit.free, len(limit.queue)) == (1, 0)


def test_bulkhead_holds_under_threads():
    """Eight threads never exceed the limit, and every place comes back."""
    limit = bulkhead(3, wait=20)
    inside = [0]
    most = [0]
    lock = threading.Lock()

    @limit
    def work():
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.0005)
        with lock:
            inside[0] -= 1

    threads = [threading.Thread(target=lambda: [work() for _ in range(30)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3
    assert (limit.free, len(limit.queue)) == (3, 0)
    strict = bulkhead(1)

    @strict
    def nested():
        with pytest.raises(BulkheadFullError):
            nested()
        return strict.free

    assert nested() == 0


async def test_fallback_answers_for_rejections_or_told_failures():
    """By default only rejections are answered; with on=, failures too; functions get the call's arguments."""
    with pytest.raises(OSError):
        fallback("stale")(Flaky(1))()
    assert fallback("stale")(Flaky(1, CircuitOpenError("x", 1.0)))() == "stale"
    assert fallback(lambda x: x + 1, on=OSError)(Flaky(1))(5) == 6

    async def stale(x):
        return x * 2

    assert await fallback(stale, on=OSError)(Flaky(1).later)(5) == 10


async def test_hedge_takes_the_first_answer_and_cancels_the_other():
    """A second attempt begins after the delay; the loser is cancelled before the call returns."""
    ended = []

    @hedge(0.01)
    async def ask():
        number = len(ended_calls)
        ended_calls.append(number)
        try:
            await asyncio.sleep(60 if number == 0 else 0)
        except asyncio.CancelledError:
            ended.append(number)
            raise
        return number

    ended_calls = []
    assert await ask() == 1
    assert ended == [0]


async def test_hedge_raises_only_if_every_attempt_failed():
    """An error of one attempt waits for the other; without one it is raised, and hedges are limited by the budget."""
    failing = Flaky(9)
    with pytest.raises(OSError):
        await hedge(0.01)(failing.later)()
    assert failing.calls == 1
    begun, hedged, answer = [], asyncio.Event(), asyncio.Event()
    strategy = hedge(0.0001, budget_ratio=0.001)

    @strategy
    async def ask():
        begun.append(1)
        if len(begun) == 30 + 10:
            hedged.set()
        await answer.wait()

    calls = [asyncio.create_task(ask()) for _ in range(30)]
    await asyncio.wait_for(hedged.wait(), 20)
    for _ in range(10):  # rounds of the loop, in which every other call would have been hedged as well
        await asyncio.sleep(0.001)
    answer.set()
    await asyncio.gather(*calls)
    assert strategy.hedged == 10


async def test_pipeline_fuses_strategies_in_order():
    """Each attempt of the retry is counted by the breaker inside it, and the fallback answers when it is open."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=3), clock=ManualClock())
    flaky = Flaky(99)
    call = pipeline(fallback("stale"), retry(2, backoff=SOON), breaker, timeout(1), bulkhead(2))(flaky.later)
    with pytest.raises(OSError):
        await call()
    assert await call() == "stale"
    assert (breaker.counts.failures, breaker.counts.rejected, flaky.calls) == (3, 1, 3)
    assert await call() == "stale"
    assert call.breaker is breaker


async def test_pipeline_with_two_breakers_settles_both():
    """A fallback of the inner breaker is a success to the outer one, and neither loses a permit."""
    clock = ManualClock()
    inner = CircuitBreaker("inner", CircuitConfig(failure_threshold=1, fallback="stale"), clock=clock)
    outer = CircuitBreaker("outer", CircuitConfig(failure_threshold=2), clock=clock)
    for call in (pipeline(outer, inner)(Flaky(1)), pipeline(outer, pipeline(inner))(Flaky(1).later)):
        for number in range(2):
            try:
                result = call()
                result = await result if asyncio.iscoroutine(result) else result
            except OSError:
                result = "failed"
            assert result == ("failed" if number == 0 else "stale")
        inner.reset()
    assert (outer.counts.failures, outer.counts.successes) == (2, 2)


async def test_pipeline_protects_generators_with_what_can():
    """A breaker and a bulkhead surround generators and async generators."""
    breaker = CircuitBreaker("api")
    limit = bulkhead(1)

    @pipeline(limit, breaker)
    def numbers():
        yield 1

    @pipeline(limit, breaker)
    async def more():
        yield 2

    assert list(numbers()) == [1]
    assert [item async for item in more()] == [2]
    assert (breaker.counts.successes, limit.free) == (2, 1)


def test_retry_after_reads_the_usual_shapes():
    """Numbers, header seconds and HTTP dates are understood, on the object and on its response; else no opinion."""

    class Response:
        def __init__(self, value):
            self.headers = {"Retry-After": value}

    class Failure(Exception):
        def __init__(self, value):
            self.response = Response(value)

    assert retry_after(Response("7")) == 7.0
    assert retry_after(Failure("3")) == 3.0
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after(Failure(date)) <= 60
    assert retry_after(CircuitOpenError("x", 1.5)) == 1.5
    for nothing in (OSError(), Failure("soon"), object(), 3):
        assert retry_after(nothing) is None
