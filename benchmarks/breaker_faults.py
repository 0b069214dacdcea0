"""What breakers get wrong, as experiments: `python benchmarks/breaker_faults.py [--write]` makes the docs' table.

Each experiment has the name and number of a fault, is run on every library that is installed, and answers whether the
fault was seen. Breaks are a few hundredths of a second of real time, since most libraries have no clock to hand in.
`tests/foreign/test_breaker_faults.py` runs the experiments on isp_perf alone, with a clock that only they move, except
where real time is what an experiment is about.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

BREAK = 0.06
THRESHOLD = 3
STALLED = 20.0  # no experiment takes so long, unless something hangs
PATIENCE = 5.0  # what a store that hangs may cost; the peers that wait for theirs take half a minute
STALLED = 20.0  # no experiment takes so long, unless something hangs
PATIENCE = 5.0  # what a store that hangs may cost; the peers that wait for theirs take half a minute
STARTED: list[Callable[[], object]] = []  # what ends the threads that shared breakers of ours have begun
ANSWERS = {True: "fault", False: "-", None: "n/a"}


class Library:
    """One library: `sync` and `later` protect a plain and a coroutine function with a new breaker.

    `shared` makes, for a module and the URL of a Redis server, what protects a plain function with a shared breaker;
    `limit` makes a coroutine function that waits for an event, one call at a time while others queue up; `clock` is
    what its breakers read, if it is one that stands still between experiments' rests.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        make: Callable[[Any], Callable[..., Any]],
        only: str = "both",
        shared: Callable[[Any, str], Callable[..., Any]] | None = None,
        limit: Callable[[Any], Callable[[Any], Any]] | None = None,
        clock: Any = None,
    ):
        self.name, self.module, self.make, self.only = name, module, make, only
        self._shared, self._limit, self._clock = shared, limit, clock

    async def rest(self, seconds):
        """Let so much time pass, for its breakers at least."""
        if self._clock is None:
            await asyncio.sleep(seconds)
        else:
            self._clock.advance(seconds)
            await asyncio.sleep(0)

    def shared(self, url):
        if self._shared is None:
            raise NotImplementedError
        return self._shared(importlib.import_module(self.module), url)

    def limit(self):
        if self._limit is None:
            raise NotImplementedError
        return self._limit(importlib.import_module(self.module))

    def sync(self, function):
        if self.only == "async":
            raise NotImplementedError
        return self.make(importlib.import_module(self.module))(function)

    def later(self, function):
        if self.only == "sync":
            raise NotImplementedError
        return self.make(importlib.import_module(self.module))(function)


def ours(module, clock=time.monotonic):
    config = module.CircuitConfig(
        failure_threshold=THRESHOLD, break_duration=BREAK, slow_call=module.SlowCall(0.02, 1.0)
    )
    return module.CircuitBreaker("faults", config, clock=clock)


def unhurried():
    """Return isp_perf with a clock that moves only when an experiment rests, however long the machine stalls."""
    clock = importlib.import_module("isp_perf.testing").ManualClock()
    return Library("isp_perf", "isp_perf.breaker", make=lambda m: ours(m, clock), limit=ours_limit, clock=clock)


def ours_shared(module, url):
    redis = importlib.import_module("isp_perf.redis")
    pool = redis.RedisPool(redis.RedisSettings(url=url, timeout=STALLED, connect_timeout=STALLED))
    registry = module.CircuitRegistry()
    breaker = registry.define("faults", module.CircuitConfig(failure_threshold=THRESHOLD, break_duration=BREAK))
    fleet = registry.share(pool)
    while not fleet.connected:
        time.sleep(0.01)

    def leave():
        fleet.close()
        for thread in threading.enumerate():
            if thread.name.startswith("isp_perf fleet"):
                thread.join(STALLED)
        pool.sync().disconnect()

    STARTED.append(leave)
    return breaker


def ours_limit(module):
    @module.bulkhead(1, STALLED)
    async def hold(wait):
        await wait.wait()

    return hold


def hyx_limit(module):
    queue = importlib.import_module("hyx.bulkhead").bulkhead(1, 2)

    async def hold(wait):
        async with queue:
            await wait.wait()

    return hold


def client(url):
    return importlib.import_module("redis").Redis.from_url(url)


def pybreaker_shared(module, url):
    storage = module.CircuitRedisStorage(module.STATE_CLOSED, client(url))
    return module.CircuitBreaker(fail_max=THRESHOLD, reset_timeout=BREAK, state_storage=storage)


def aiobreaker_shared(module, url):
    states = importlib.import_module("aiobreaker.state").CircuitBreakerState
    storage = importlib.import_module("aiobreaker.storage.redis").CircuitRedisStorage(states.CLOSED, client(url))
    breaker = module.CircuitBreaker(
        fail_max=THRESHOLD, timeout_duration=timedelta(seconds=BREAK), state_storage=storage
    )

    def protect(function):
        def plain():
            return function()

        return breaker(plain)

    return protect


def purgatory_shared(module, url):
    factory = module.SyncCircuitBreakerFactory(THRESHOLD, BREAK, uow=module.SyncRedisUnitOfWork(url))
    factory.initialize()
    return factory("faults")


def interlock_shared(module, url):
    storage = importlib.import_module("interlock.integrations.redis").RedisStorage(client(url))
    return module.CircuitBreaker(name="faults", storage=storage)


def interlock(module):
    config = module.Config(
        failure_rate_threshold=1.0,
        minimum_number_of_calls=THRESHOLD,
        window_size=THRESHOLD,
        permitted_calls_in_half_open=1,
        wait_duration_in_open=BREAK,
    )
    return module.CircuitBreaker(name="faults", config=config)


def aiobreaker(module):
    breaker = module.CircuitBreaker(fail_max=THRESHOLD, timeout_duration=timedelta(seconds=BREAK))

    def protect(function):
        async def later(*arguments):
            return await function(*arguments)

        def now(*arguments):
            return function(*arguments)

        # It takes nothing but plain functions, no bound methods.
        return breaker(later if asyncio.iscoroutinefunction(function) else now)

    return protect


def purgatory(module):
    def protect(function):
        kind = "Async" if asyncio.iscoroutinefunction(function) else "Sync"
        return getattr(module, f"{kind}CircuitBreakerFactory")(THRESHOLD, BREAK)("faults")(function)

    return protect


LIBRARIES = [
    Library("isp_perf", "isp_perf.breaker", make=ours, shared=ours_shared, limit=ours_limit),
    # What pybreaker does to a coroutine function is experiment 3; the others would only repeat it.
    Library(
        "pybreaker",
        "pybreaker",
        make=lambda m: m.CircuitBreaker(fail_max=THRESHOLD, reset_timeout=BREAK),
        only="sync",
        shared=pybreaker_shared,
    ),
    Library("aiobreaker", "aiobreaker", make=aiobreaker, shared=aiobreaker_shared),
    Library("circuitbreaker", "circuitbreaker", make=lambda m: m.circuit(THRESHOLD, BREAK)),
    Library("purgatory", "purgatory", make=purgatory, shared=purgatory_shared),
    Library(
        "hyx",
        "hyx.circuitbreaker",
        make=lambda m: m.consecutive_breaker(Exception, THRESHOLD, BREAK, 1),
        only="async",
        limit=hyx_limit,
    ),
    Library(
        "grelmicro",
        "grelmicro.resilience",
        make=lambda m: m.CircuitBreaker("faults", error_threshold=THRESHOLD, reset_timeout=BREAK, success_threshold=1),
        only="async",
    ),
    Library("interlock-cb", "interlock", make=interlock, shared=interlock_shared),
]


class Service:
    """Counts what reaches it and answers as told: an exception, a value, or an event to wait for first."""

    def __init__(self):
        self.reached = 0
        self.answer = "fine"

    def now(self, *answer):
        self.reached += 1
        answer = answer[0] if answer else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def later(self, wait=None, *answer):
        self.reached += 1
        if wait is not None:
            await wait.wait()
        answer = answer[0] if answer else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def attempts(protected, number=THRESHOLD, *arguments):
    for _ in range(number):
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await protected(*arguments)


async def opened(library):
    """Return a service, its protected method, and the breaker open since just now."""
    service = Service()
    protected = library.later(service.later)
    await attempts(protected, THRESHOLD, None, OSError())
    return service, protected


async def admits(service, protected, *arguments):
    """Tell whether a call reaches the service."""
    before = service.reached
    await attempts(protected, 1, *arguments)
    return service.reached > before


async def settle(task):
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await task


async def half_open_stampede(library):
    service, protected = await opened(library)
    await library.rest(BREAK * 1.3)
    before, release = service.reached, asyncio.Event()
    calls = [asyncio.create_task(protected(release)) for _ in range(50)]
    await asyncio.sleep(0.01)
    admitted = service.reached - before
    release.set()
    for call in calls:
        await settle(call)
    return admitted > 1


async def lock_around_call(library):
    meeting = threading.Barrier(4)

    def meet():
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(PATIENCE)

    protected = library.sync(meet)
    threads = [threading.Thread(target=protected) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return meeting.broken


async def async_unprotected(library):
    service = Service()
    protected = library.make(importlib.import_module(library.module))(service.later)
    await attempts(protected, THRESHOLD, None, OSError())
    return await admits(service, protected)


async def late_success_closes_open(library):
    service, release = Service(), asyncio.Event()
    protected = library.later(service.later)
    old = asyncio.create_task(protected(release))
    await asyncio.sleep(0)
    await attempts(protected, THRESHOLD, None, OSError())
    release.set()
    await settle(old)
    return await admits(service, protected)


async def late_success_closes_half_open(library):
    service, release, hang = Service(), asyncio.Event(), asyncio.Event()
    protected = library.later(service.later)
    old = asyncio.create_task(protected(release))
    await asyncio.sleep(0)
    await attempts(protected, THRESHOLD, None, OSError())
    await library.rest(BREAK * 1.3)
    probe = asyncio.create_task(protected(hang))
    await asyncio.sleep(0.001)
    release.set()
    await settle(old)
    seen = await admits(service, protected)
    hang.set()
    await settle(probe)
    return seen


async def late_failure_extends_open(library):
    service, release = Service(), asyncio.Event()
    protected = library.later(service.later)
    old = asyncio.create_task(protected(release, OSError()))
    await asyncio.sleep(0)
    await attempts(protected, THRESHOLD, None, OSError())
    await library.rest(BREAK * 0.8)
    release.set()
    await settle(old)
    await library.rest(BREAK * 0.5)
    return not await admits(service, protected)


async def cancelled(protected, number):
    for _ in range(number):
        call = asyncio.create_task(protected(asyncio.Event()))
        await asyncio.sleep(0)
        call.cancel()
        await settle(call)


async def cancel_is_failure(library):
    service = Service()
    protected = library.later(service.later)
    await cancelled(protected, THRESHOLD + 1)
    return not await admits(service, protected)


async def cancel_is_success(library):
    service = Service()
    protected = library.later(service.later)
    await attempts(protected, THRESHOLD - 1, None, OSError())
    await cancelled(protected, 1)
    await attempts(protected, 1, None, OSError())
    return await admits(service, protected)


async def cancelled_probe(library):
    service, protected = await opened(library)
    await library.rest(BREAK * 1.3)
    await cancelled(protected, 1)
    before, release = service.reached, asyncio.Event()
    calls = [asyncio.create_task(protected(release)) for _ in range(3)]
    await asyncio.sleep(0.005)
    admitted = service.reached - before
    release.set()
    for call in calls:
        await settle(call)
    return admitted != 1


async def hung_probe(library):
    service, protected = await opened(library)
    await library.rest(BREAK * 1.3)
    hung = asyncio.create_task(protected(asyncio.Event()))
    await asyncio.sleep(0)
    seen = False
    for _ in range(10):
        await library.rest(BREAK / 2)
        seen = seen or await admits(service, protected)
    hung.cancel()
    await settle(hung)
    return not seen


async def hung_old_call(library):
    service = Service()
    protected = library.later(service.later)
    old = asyncio.create_task(protected(asyncio.Event()))
    await asyncio.sleep(0)
    await attempts(protected, THRESHOLD, None, OSError())
    await library.rest(BREAK * 1.3)
    await attempts(protected, 2)
    seen = await admits(service, protected)
    old.cancel()
    await settle(old)
    return not seen


async def reopen_needs_threshold(library):
    service, protected = await opened(library)
    await library.rest(BREAK * 1.3)
    await attempts(protected, 1, None, OSError())
    return await admits(service, protected)


async def caller_deadline_blind(library):
    service = Service()
    protected = library.later(service.later)
    for _ in range(THRESHOLD + 1):
        call = asyncio.create_task(protected(asyncio.Event()))
        await asyncio.sleep(0)
        await library.rest(0.025)
        call.cancel()
        await settle(call)
    return await admits(service, protected)


async def caller_mistake(library):
    service = Service()

    def no_parameters():
        return service.now()

    protected = library.sync(no_parameters)
    for _ in range(THRESHOLD + 1):
        with contextlib.suppress(Exception):
            protected("one", "too many")
    before = service.reached
    with contextlib.suppress(Exception):
        protected()
    return service.reached == before


async def generators(library):
    reached = []

    def items():
        reached.append(1)
        yield 1
        raise OSError

    protected = library.sync(items)
    for _ in range(THRESHOLD + 2):
        with contextlib.suppress(Exception):
            list(protected())
    return len(reached) != THRESHOLD


async def generator_closed_early(library):
    def items():
        yield 1
        yield 2

    protected = library.sync(items)
    for _ in range(THRESHOLD + 1):
        running = protected()
        next(running)
        running.close()
    received = None
    with contextlib.suppress(Exception):
        received = list(protected())
    return received != [1, 2]


async def exit_signals(library):
    service = Service()
    protected = library.sync(service.now)
    for _ in range(THRESHOLD + 1):
        with contextlib.suppress(BaseException):
            protected(KeyboardInterrupt())
    before = service.reached
    with contextlib.suppress(Exception):
        protected()
    return service.reached == before


async def shared_exception(library):
    _, protected = await opened(library)
    first, second = await asyncio.gather(protected(), protected(), return_exceptions=True)
    return first is second


async def wall_clock(library):
    service, protected = await opened(library)
    real = time.time
    with mock.patch("time.time", side_effect=lambda: real() - 3600):
        await library.rest(BREAK * 1.3)
        return not await admits(service, protected)


async def hidden_async(library):
    service = Service()
    protected = library.sync(lambda answer=None: service.later(None, answer))
    await attempts(protected, THRESHOLD, OSError())
    return await admits(service, protected)


@contextlib.contextmanager
def zone(name):
    """Live in another time zone."""
    with mock.patch.dict(os.environ, TZ=name):
        time.tzset()
        try:
            yield
        finally:
            os.environ.pop("TZ")
            time.tzset()


def told(error):
    """Return the seconds to wait that a rejection tells; `None` if it does not."""
    for name in ("retry_after", "time_remaining"):
        with contextlib.suppress(Exception):
            wait = getattr(error, name)
            return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
    return None


async def time_zone(library):
    if not hasattr(time, "tzset"):
        raise NotImplementedError
    for name in ("Etc/GMT+5", "Etc/GMT-5"):
        with zone(name):
            service, protected = await opened(library)
            (error,) = await asyncio.gather(protected(), return_exceptions=True)
            wait = told(error)
            await library.rest(BREAK * 1.3)
            if not await admits(service, protected) or (wait is not None and not 0 <= wait <= 2 * BREAK):
                return True
    return False


async def bulkhead_leak(library):
    hold, release = library.limit(), asyncio.Event()
    first = asyncio.create_task(hold(release))
    await asyncio.sleep(0)
    waiter = asyncio.create_task(hold(release))
    await asyncio.sleep(0.001)
    waiter.cancel()
    await settle(waiter)
    release.set()
    await settle(first)
    release.clear()
    both = asyncio.gather(hold(release), hold(release), return_exceptions=True)
    await asyncio.sleep(0.001)
    release.set()
    return await asyncio.wait_for(both, PATIENCE) != [None, None]


def with_store(library, harm):
    """Return what calls answer, one after the other, while the store of a shared breaker is harmed; and the slowest."""
    testing = importlib.import_module("isp_perf.testing")
    engine = testing.start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        raise NotImplementedError
    port = int(engine.url.rsplit(":", 1)[1].removesuffix("/0"))
    answers, spent = [], [0.0]

    def calls(protected):
        for _ in range(THRESHOLD):
            began, answer = time.monotonic(), "an error"
            with contextlib.suppress(Exception):
                answer = protected()
            answers.append(answer)
            spent.append(time.monotonic() - began)

    try:
        with testing.FaultProxy("127.0.0.1", port) as proxy:
            protected = library.shared(f"redis://127.0.0.1:{proxy.port}/0")(lambda: "fine")
            calls(protected)
            answers.clear()
            harm(proxy)
            worker = threading.Thread(target=calls, args=(protected,), daemon=True)
            worker.start()
            worker.join(2 * PATIENCE)
            proxy.drop(refuse=True)  # what still waits for the store ends with an error
            while STARTED:
                STARTED.pop()()
            return answers, 2 * PATIENCE if worker.is_alive() else max(spent)
    finally:
        engine.stop()


async def storage_error_thrown(library):
    answers, _ = with_store(library, lambda proxy: proxy.drop(refuse=True))
    return any(answer != "fine" for answer in answers)


async def storage_hangs(library):
    _, slowest = with_store(library, lambda proxy: proxy.blackhole())
    return slowest > PATIENCE


NEED_REDIS = {23, 24}
REAL_TIME = {19, 20} | NEED_REDIS
REAL_TIME = {19, 20} | NEED_REDIS
FAULTS = {
    1: (half_open_stampede, "every waiting call becomes a probe"),
    2: (lock_around_call, "protected calls are serialised"),
    3: (async_unprotected, "`async def` is silently not protected"),
    4: (late_success_closes_open, "a late success closes an open circuit"),
    5: (late_success_closes_half_open, "a late success closes with no probe answered"),
    6: (late_failure_extends_open, "a late failure prolongs the break"),
    7: (cancel_is_failure, "cancelled calls open the circuit"),
    8: (cancel_is_success, "a cancellation resets the streak"),
    9: (cancelled_probe, "a cancelled probe re-opens, or lets everyone in"),
    10: (hung_probe, "a hung probe locks everyone out for ever"),
    11: (hung_old_call, "a hung call from before blocks recovery"),
    12: (reopen_needs_threshold, "one failed probe does not re-open"),
    13: (caller_deadline_blind, "a dead service behind the caller's timeout never opens it"),
    14: (caller_mistake, "wrong arguments open the circuit"),
    15: (generators, "generators are not protected"),
    16: (generator_closed_early, "a generator closed early is a failure, or crashes"),
    17: (exit_signals, "KeyboardInterrupt opens the circuit"),
    18: (shared_exception, "one exception object is raised again and again"),
    19: (wall_clock, "a wall clock set back prolongs the break"),
    20: (time_zone, "the wait depends on the time zone"),
    21: (hidden_async, "failures of a coroutine from a plain callable go unnoticed"),
    22: (bulkhead_leak, "a cancelled waiter of the bulkhead loses a place for ever"),
    23: (storage_error_thrown, "an unreachable Redis fails the protected call"),
    24: (storage_hangs, "a Redis that does not answer stalls the call"),
}


async def outcome_of(experiment, library):
    (outcome,) = await asyncio.gather(experiment(library), return_exceptions=True)
    return outcome


def seen(experiment, library) -> bool | BaseException | None:
    """Run one experiment on one library: was the fault seen? `None`: no such form, or not installed."""
    logging.disable(logging.CRITICAL)
    try:
        outcome = asyncio.run(outcome_of(experiment, library))
    finally:
        logging.disable(logging.NOTSET)
    return None if isinstance(outcome, ImportError | NotImplementedError) else outcome


def table() -> str:
    """Return the comparison as a Markdown table."""
    lines = ["| # | fault | " + " | ".join(library.name for library in LIBRARIES) + " |"]
    lines.append("|---|---|" + "---|" * len(LIBRARIES))
    for number, (experiment, text) in FAULTS.items():
        outcomes = [seen(experiment, library) for library in LIBRARIES]
        # A crash of a library in an experiment is a finding, too.
        answers = [type(o).__name__ if isinstance(o, BaseException) else ANSWERS[o] for o in outcomes]
        lines.append(f"| {number} | {text} | " + " | ".join(answers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    text = table()
    print(text)
    if "--write" in sys.argv:
        page = Path(__file__).parents[1] / "docs" / "breaker.md"
        start, end = "<!-- faults: begin -->\n", "<!-- faults: end -->"
        before, rest = page.read_text(encoding="utf-8").split(start)
        page.write_text(before + start + text + "\n" + end + rest.split(end)[1], encoding="utf-8")
