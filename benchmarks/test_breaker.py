"""The breaker and its neighbours beside hand-written code and the peers: `python benchmarks/test_breaker.py [rounds]`.

Thread CPU time, cases interleaved, medians, collector off; overhead is the median minus that of the plain call. Every
case runs in a loop of its own, so that the interpreter specialises it for one callee. Peers that are not installed are
left out. Compare ratios within one run; figures of different runs differ with the machine.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import statistics
import sys
import threading
import time
import tracemalloc
from datetime import timedelta

from isp_perf.breaker import (
    CircuitBreaker,
    CircuitConfig,
    CircuitRegistry,
    CountWindow,
    RejectedError,
    SlowCall,
    TimeWindow,
    bulkhead,
    pipeline,
    retry,
    timeout,
)
from isp_perf.redis import RedisPool
from isp_perf.testing import start_redis

NEVER = CircuitConfig(failure_threshold=10**9)
CALLS = 5_000
LOOP = """
{a}def run(function, calls, clock):
    repeat = range(calls)
    began = clock()
    for _ in repeat:
        {body}
    return (clock() - began) / calls
"""
BODIES = {
    "ok": "{w}function(1)",
    "failing": "try: {w}function(1)\n        except OSError: pass",
    "rejected": "try: {w}function(1)\n        except Exception: pass",
}


def runner(kind, asynchronous):
    scope = {}
    a, w = ("async ", "await ") if asynchronous else ("", "")
    exec(LOOP.format(a=a, body=BODIES[kind].format(w=w)), scope)
    return scope["run"]


def fine(x, y=2):
    return x


def typed(x: int, y: int = 2) -> int:
    return x


def failing(x, y=2):
    raise OSError


async def afine(x, y=2):
    return x


async def afailing(x, y=2):
    raise OSError


def passthrough(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    async def later(*args, **kwargs):
        return await function(*args, **kwargs)

    return later if asyncio.iscoroutinefunction(function) else wrapper


class Minimal:
    """What a careful engineer writes by hand: a flag, a counter, a lock nowhere."""

    def __init__(self):
        self.open = False
        self.failures = 0

    def __call__(self, function):
        def wrapper(*args, **kwargs):
            if self.open:
                raise RejectedError("minimal", 1.0)
            try:
                result = function(*args, **kwargs)
            except Exception:
                self.failures += 1
                if self.failures >= 10**9:
                    self.open = True
                raise
            self.failures = 0
            return result

        async def later(*args, **kwargs):
            if self.open:
                raise RejectedError("minimal", 1.0)
            try:
                result = await function(*args, **kwargs)
            except Exception:
                self.failures += 1
                if self.failures >= 10**9:
                    self.open = True
                raise
            self.failures = 0
            return result

        return later if asyncio.iscoroutinefunction(function) else wrapper


def bare_raise(function):
    def wrapper(*args, **kwargs):
        raise RejectedError("bare", 1.0)

    async def later(*args, **kwargs):
        raise RejectedError("bare", 1.0)

    return later if asyncio.iscoroutinefunction(function) else wrapper


def peers(threshold):
    """Return `{name: decorate}` of the peers that are installed."""

    def purgatory(module):
        def protect(function):
            kind = "Async" if asyncio.iscoroutinefunction(function) else "Sync"
            return getattr(module, f"{kind}CircuitBreakerFactory")(threshold, 3600)("bench")(function)

        return protect

    def interlock(module):
        size = min(threshold, 100)
        settings = {"failure_rate_threshold": 1.0, "minimum_number_of_calls": size, "window_size": 100}
        return module.CircuitBreaker(name="bench", config=module.Config(**settings))

    makers = {
        "circuitbreaker": lambda m: m.circuit(threshold, 3600),
        "pybreaker": lambda m: m.CircuitBreaker(fail_max=threshold, reset_timeout=3600),
        "aiobreaker": lambda m: m.CircuitBreaker(fail_max=threshold, timeout_duration=timedelta(hours=1)),
        "purgatory": purgatory,
        "interlock": interlock,
    }
    found = {}
    for name, make in makers.items():
        with contextlib.suppress(ImportError):
            found[name] = make(importlib.import_module(name))
    return found


def tripped(decorate, function):
    """Return `function` behind an open circuit."""
    protected = decorate(function)

    async def trip():
        for _ in range(4):
            with contextlib.suppress(Exception):
                await protected(1)

    if asyncio.iscoroutinefunction(function):
        asyncio.run(trip())
    else:
        for _ in range(4):
            with contextlib.suppress(Exception):
                protected(1)
    return protected


def measure(cases, kind, rounds):
    """Return the overhead of each case in nanoseconds; the first case is the plain call."""
    asynchronous = asyncio.iscoroutinefunction(next(iter(cases.values())))
    runs = {name: runner(kind, asynchronous) for name in cases}
    spent = {name: [] for name in cases}

    async def later():
        for _ in range(rounds):
            for name, function in cases.items():
                spent[name].append(await runs[name](function, CALLS, time.thread_time_ns))

    gc.collect()
    gc.disable()
    try:
        if asynchronous:
            asyncio.run(later())
        else:
            for _ in range(rounds):
                for name, function in cases.items():
                    spent[name].append(runs[name](function, CALLS, time.thread_time_ns))
    finally:
        gc.enable()
    medians = {name: statistics.median(values) for name, values in spent.items()}
    plain = medians.pop("plain", 0.0)
    return {name: value - plain for name, value in medians.items()}


def show(title, costs, *, base, bars):
    """Print the costs as nanoseconds and as a multiple of `base`, with the bar where there is one."""
    print(f"\n{title} (ns overhead, x {base})")
    for name, cost in costs.items():
        bar = f"   bar {bars[name]}" if name in bars else ""
        print(f"  {name:<28}{cost:>9.0f}{cost / costs[base]:>9.2f}{bar}")


def success(rounds):
    everything = CircuitConfig(
        window=CountWindow(100), slow_call=SlowCall(60.0), bad_result=lambda result: result is None
    )
    heard = CircuitBreaker("all", everything)
    heard.on("transition", print)
    for label, function in (("sync", fine), ("async", afine)):
        cases = {
            "plain": function,
            "passthrough": passthrough(function),
            "minimal": Minimal()(function),
            "isp_perf": CircuitBreaker("bench", NEVER)(function),
        }
        if function is fine:
            cases["isp_perf, typed result"] = CircuitBreaker("bench", NEVER)(typed)
        cases["count window 100"] = CircuitBreaker("c", CircuitConfig(window=CountWindow(100)))(function)
        cases["time window 10 s"] = CircuitBreaker("t", CircuitConfig(window=TimeWindow(10.0)))(function)
        cases["everything on"] = heard(function)
        for name, decorate in peers(10**9).items():
            if function is fine or name != "pybreaker":
                cases[name] = decorate(function)
        costs = measure(cases, "ok", rounds)
        limit = 0.80 if function is fine else 0.90
        show(
            f"closed, {label}, success",
            costs,
            base="passthrough",
            bars={"isp_perf": limit, "isp_perf, typed result": limit},
        )
        ours = costs["isp_perf"]
        bars = {"count window 100": 1.2, "time window 10 s": 3.0, "everything on": 5.2}
        print("  against isp_perf:", {n: f"{costs[n] / ours:.2f} (bar {bar})" for n, bar in bars.items()})
        print("  peers against isp_perf:", {n: f"{costs[n] / ours:.1f}" for n in peers(1) if n in costs})


def failure(rounds):
    for label, function in (("sync", failing), ("async", afailing)):
        cases = {
            "plain": function,
            "minimal": Minimal()(function),
            "isp_perf": CircuitBreaker("bench", NEVER)(function),
            **{n: d(function) for n, d in peers(10**9).items() if function is failing or n != "pybreaker"},
        }
        cases.pop("interlock", None)  # it cannot be told to stay closed
        show(f"closed, {label}, failure", measure(cases, "failing", rounds), base="minimal", bars={"isp_perf": 2.0})


def rejection(rounds):
    for label, function in (("sync", failing), ("async", afailing)):
        strict = CircuitConfig(failure_threshold=3, break_duration=3600)
        cases = {
            "bare raise": bare_raise(function),
            "isp_perf": tripped(CircuitBreaker("bench", strict), function),
            **{n: tripped(d, function) for n, d in peers(3).items() if function is failing or n != "pybreaker"},
            "isp_perf, fallback": tripped(CircuitBreaker("f", strict.replace(fallback=7)), function),
        }
        show(
            f"open, {label}, rejected, full cost",
            measure(cases, "rejected", rounds),
            base="bare raise",
            bars={"isp_perf": 1.5},
        )


def neighbours(rounds):
    async def limited(x, y=2):
        async with asyncio.timeout(5):
            return await afine(x)

    cases = {
        "plain": afine,
        "asyncio.timeout": limited,
        "timeout": timeout(5)(afine),
        "bulkhead": bulkhead(10)(afine),
        "retry": retry(3)(afine),
        "retry, breaker, timeout, bulkhead": pipeline(
            retry(3), CircuitBreaker("pipe", NEVER), timeout(5), bulkhead(10)
        )(afine),
    }
    bars = {"timeout": 0.30, "retry, breaker, timeout, bulkhead": 0.30}
    show("neighbours, async, success", measure(cases, "ok", rounds), base="asyncio.timeout", bars=bars)


def threads(rounds):
    """Calls per second of four threads on one breaker."""
    cases = {"plain": fine, "isp_perf": CircuitBreaker("bench", NEVER)(fine)}
    cases |= {name: decorate(fine) for name, decorate in peers(10**9).items()}
    rates = {name: [] for name in cases}
    for _ in range(rounds):
        for name, function in cases.items():
            run = runner("ok", asynchronous=False)
            workers = [threading.Thread(target=run, args=(function, CALLS, time.thread_time_ns)) for _ in range(4)]
            began = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rates[name].append(4 * CALLS / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print("\nfour threads on one breaker (calls/s; bar: >= 0.33 x plain, >= 7 x the best peer)")
    for name, rate in medians.items():
        print(f"  {name:<28}{rate:>12.0f}{rate / medians['plain']:>9.2f}")


def memory():
    """Bytes per breaker and protected function, for a thousand of them."""
    functions = []
    for number in range(1000):
        scope = {}
        exec(f"def f{number}(x, y=2): return x", scope)
        functions.append(scope[f"f{number}"])
    CircuitBreaker("warm", NEVER)(functions[0])
    kept = [None] * 1000
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number, function in enumerate(functions):
        kept[number] = CircuitBreaker("bench", NEVER)(function)
    each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    tracemalloc.stop()
    print(f"\nmemory: {each:.0f} bytes per breaker and function (bar 1,100)")


def probes(rounds=300, number=200):
    """How many of the threads that arrive together at the end of the break are let through, at most."""
    breaker = CircuitBreaker("probes", CircuitConfig(failure_threshold=1, break_duration=0.001, probe_timeout=60))
    begin, over = threading.Barrier(number + 1), threading.Barrier(number + 1)
    admitted = []

    def arrive():
        for _ in range(rounds):
            begin.wait()
            with contextlib.suppress(RejectedError):
                admitted.append(breaker.permit())
            over.wait()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    workers = [threading.Thread(target=arrive) for _ in range(number)]
    for worker in workers:
        worker.start()
    found = []
    for _ in range(rounds):
        breaker.permit().failed(OSError())
        time.sleep(0.002)
        begin.wait()
        over.wait()
        found.append(len(admitted))
        breaker.reset()
        while admitted:
            admitted.pop().ok()
    for worker in workers:
        worker.join()
    sys.setswitchinterval(before)
    print(f"\nprobes: {min(found)} to {max(found)} of {number} threads in each of {rounds} rounds (bar: exactly 1)")


def growth():
    """Bytes that stay after a million rejections and a hundred thousand transitions."""
    breaker = CircuitBreaker("growth", CircuitConfig(failure_threshold=1, break_duration=3600))

    def reject(times):
        for _ in range(times):
            with contextlib.suppress(RejectedError):
                breaker.call(int)

    def move(times):
        for _ in range(times):
            breaker.isolate("bench").release()

    def kept(work, times):
        work(1000)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        work(times)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return grown

    moved = kept(move, 50_000)
    breaker.permit().failed(OSError())
    print(f"growth: {kept(reject, 1_000_000)} bytes after 10^6 rejections, {moved} after 10^5 transitions (bar 0)")


def spent_calling(protected, number=100_000):
    """Return the 99th percentile of a call, in nanoseconds."""
    clock, spent = time.perf_counter_ns, []
    for _ in range(number):
        began = clock()
        protected(1)
        spent.append(clock() - began)
    return statistics.quantiles(spent, n=100)[98]


def fleet(rounds):
    """How soon another worker sees a trip, and what a stopped server costs a healthy call."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        print(f"\nfleet: no Redis ({engine.reason})")
        return
    registries = [CircuitRegistry() for _ in range(2)]
    one, two = (registry.define("bench", CircuitConfig(failure_threshold=1)) for registry in registries)
    pools = [RedisPool(engine.url) for _ in registries]
    shared = [registry.share(pool) for registry, pool in zip(registries, pools, strict=True)]
    while not all(each.connected for each in shared):
        time.sleep(0.01)
    time.sleep(0.2)
    delays = []
    for _ in range(rounds):
        began = time.perf_counter()
        one.permit().failed(OSError())
        while two.state != "open":
            time.sleep(0.0001)
        delays.append(time.perf_counter() - began)
        one.reset()
        while two.state != "closed":
            time.sleep(0.0001)
    median, worst = statistics.median(delays) * 1000, max(delays) * 1000
    print(f"\nfleet: trip seen by another worker after {median:.1f} ms, at worst {worst:.1f} ms (bar 50)")
    protected, server = one(fine), pools[0].sync().info("server")["process_id"]
    up, down = [], []
    for _ in range(max(3, rounds // 3)):
        up.append(spent_calling(protected))
        os.kill(server, signal.SIGSTOP)
        down.append(spent_calling(protected))
        os.kill(server, signal.SIGCONT)
    ratio = statistics.median(down) / statistics.median(up)
    print(f"fleet: p99 of a healthy call with Redis stopped: {ratio:.2f} x (bar 1.5)")
    for each in shared:
        each.close()
    engine.stop()


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    success(number)
    failure(number)
    rejection(number)
    neighbours(number)
    threads(min(number, 7))
    memory()
    growth()
    probes()
    fleet(number)
