"""Counting, timing, scraping, side by side with prometheus-client: `python benchmarks/test_metrics.py [rounds]`.

All cases of a table run interleaved in one process with the collector off; the cost of the bare loop is subtracted. Of
each case the lower quartile is taken: what a busy machine adds, it adds to the slower rounds. Ratios are what counts.
"""

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from isp_perf._core.eviction import Entry
from isp_perf.metrics import MetricRegistry, MetricsApp, MetricsMiddleware, timed
from isp_perf.metrics._formats import Format
from isp_perf.metrics._render import Renderer
from isp_perf.metrics._segment import SegmentWriter
from isp_perf.metrics._workers import WorkerExchange

COUNT = 2000
SERIES = 10_000
WORKERS = 4


def race(cases, rounds):
    """Return the lower quartile of the nanoseconds that each case takes, run in turns."""
    spent = {name: [] for name in cases}
    for run in cases.values():
        run()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in cases.items():
                started = time.perf_counter_ns()
                run()
                spent[name].append(time.perf_counter_ns() - started)
    finally:
        gc.enable()
    return {name: statistics.quantiles(values, n=4)[0] for name, values in spent.items()}


def show(title, rows):
    print(f"\n{title}")
    for name, figure, limit in rows:
        print(f"  {name:58} {figure:>12}   {limit}")


def looping(body, **names):
    """Return a function that runs the source ``body`` COUNT times."""
    scope = {**names, "range": range, "COUNT": COUNT}
    exec(f"def run():\n    for _ in range(COUNT):\n        {body}\n", scope)
    return scope["run"]


class Plain:
    __slots__ = ("n",)

    def __init__(self):
        self.n = 0


def counting(rounds):
    own, peers = MetricRegistry(), CollectorRegistry()
    labelled = own.counter("labelled", "N.", ["queue"])
    their = prometheus_client.Counter("theirs", "N.", ["queue"], registry=peers)
    took = own.histogram("took_seconds", "Took.")
    summed = prometheus_client.Histogram("summed", "Took.", registry=peers)
    nothing = looping("pass")

    @timed(took)
    def ours():
        pass

    @summed.time()
    def theirs():
        pass

    cases = {
        "loop": nothing,
        "inline += on a slot": looping("plain.n += 1", plain=Plain()),
        "counter.n += 1": looping("counter.n += 1", counter=labelled.labels("a")),
        "counter.inc()": looping("inc()", inc=labelled.labels("a").inc),
        "family.labels(queue).inc()": looping("labels(queue='a').inc()", labels=labelled.labels),
        "prometheus children, count and latency": looping(
            "start = clock(); inc(); observe(clock() - start)",
            inc=their.labels("a").inc,
            observe=summed.observe,
            clock=time.perf_counter,
        ),
        "prometheus child.inc()": looping("inc()", inc=their.labels("a").inc),
        "prometheus labels(queue).inc()": looping("labels(queue='a').inc()", labels=their.labels),
        "the count of a cache hit": looping("entry.hits += 1", entry=Entry.make(1, "slot", 0.0)),
        "two clock reads": looping("clock(); clock()", clock=time.perf_counter_ns),
        "with timed(histogram)": looping("with timed(took): pass", timed=timed, took=took),
        "with one timer, entered again": looping("with timer: pass", timer=timed(took)),
        "prometheus with .time()": looping("with took.time(): pass", took=summed),
        "call": looping("call()", call=ours.__wrapped__),
        "@timed call": looping("call()", call=ours),
        "prometheus @.time() call": looping("call()", call=theirs),
    }
    if (add := opentelemetry_add()) is not None:
        cases["OpenTelemetry counter.add"] = looping("add(1, labels)", add=add, labels={"queue": "a"})
    found = race(cases, rounds)
    loop = found.pop("loop")
    net = {name: (value - loop) / COUNT for name, value in found.items()}
    show("counting and timing", [(name, f"{value:.0f} ns", "") for name, value in net.items()])
    inline, call = net["inline += on a slot"], net["call"]
    peer = net["prometheus with .time()"]
    decorated = net["prometheus @.time() call"] - call
    show(
        "ratios",
        [
            ("counter.n += 1 / inline", f"{net['counter.n += 1'] / inline:.2f}x", "limit 1.2x"),
            (
                "a cache hit, its latency being sampled beside it",
                f"{net['the count of a cache hit']:.0f} ns",
                "limit 70 ns",
            ),
            (
                "prometheus children, count and latency / it",
                f"{net['prometheus children, count and latency'] / net['the count of a cache hit']:.0f}x",
                "bar 30x",
            ),
            (
                "prometheus child, count alone / it",
                f"{net['prometheus child.inc()'] / net['the count of a cache hit']:.0f}x",
                "",
            ),
            (
                "OpenTelemetry add / it",
                f"{net.get('OpenTelemetry counter.add', 0) / net['the count of a cache hit']:.0f}x",
                "bar 150x",
            ),
            ("prometheus child / counter.n += 1", f"{net['prometheus child.inc()'] / net['counter.n += 1']:.0f}x", ""),
            (
                "prometheus labels() / ours",
                f"{net['prometheus labels(queue).inc()'] / net['family.labels(queue).inc()']:.1f}x",
                "",
            ),
            ("prometheus with / ours", f"{peer / net['with timed(histogram)']:.1f}x", ""),
            ("the same, one timer entered again", f"{peer / net['with one timer, entered again']:.1f}x", "bar 3.5x"),
            ("prometheus decorator / ours", f"{decorated / (net['@timed call'] - call):.1f}x", "bar 5x"),
            ("@timed / two clock reads", f"{(net['@timed call'] - call) / net['two clock reads']:.1f}x", "limit 2.6x"),
        ],
    )


def opentelemetry_add():
    """Return OpenTelemetry's way of counting, if it is installed."""
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    except ImportError:
        print("OpenTelemetry is not installed: left out")
        return None
    return MeterProvider([InMemoryMetricReader()]).get_meter("bench").create_counter("n").add


def requests(rounds):
    class Route:
        path_format = "/users/{id}"

    async def application(scope, receive, send):
        scope["route"] = Route
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100})

    async def send(message):
        pass

    measured = MetricsMiddleware(application, target=MetricRegistry())
    loop = asyncio.new_event_loop()

    def runs(app):
        async def many():
            for _ in range(COUNT):
                await app({"type": "http", "method": "GET", "path": "/users/1"}, None, send)

        return lambda: loop.run_until_complete(many())

    found = race({"bare": runs(application), "measured": runs(measured)}, rounds)
    loop.close()
    added = (found["measured"] - found["bare"]) / COUNT / 1000
    show("HTTP middleware", [("added to a request", f"{added:.2f} us", "limit 2 us")])


def scrapes(rounds):
    own, peers = MetricRegistry(limit=SERIES + 1), CollectorRegistry()
    ours = own.counter("n", "N.", ["series"])
    theirs = prometheus_client.Counter("n", "N.", ["series"], registry=peers)
    for series in range(SERIES):
        ours.labels(series).n = series
        theirs.labels(series).inc(series)
    renderer = Renderer()
    with tempfile.TemporaryDirectory() as folder:
        writer = SegmentWriter(Path(folder) / "a-b.m", "00" * 16)
        cases = {
            "ours": lambda: renderer.render(own.collect(), Format()),
            "anew": lambda: Renderer().render(own.collect(), Format()),
            "prometheus-client": lambda: generate_latest(peers),
            "publish": lambda: writer.publish(own.local(), 1),
        }
        found = race(cases, max(3, rounds // 20))
        writer.close()
    ratio = found["prometheus-client"] / found["ours"]
    show(
        f"a scrape of {SERIES} series",
        [
            ("ours", f"{found['ours'] / 1e6:.1f} ms", "limit 10 ms"),
            ("the same with nothing kept of the last one", f"{found['anew'] / 1e6:.1f} ms", ""),
            ("prometheus-client", f"{found['prometheus-client'] / 1e6:.0f} ms", ""),
            ("ratio", f"{ratio:.0f}x", "bar 25x"),
            ("publishing them to the siblings", f"{found['publish'] / 1e6:.2f} ms", "target 0.2 ms"),
        ],
    )


def exchange(rounds):
    """Time a scrape over WORKERS processes with all series each, beside prometheus-client's multi-process mode."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as theirs:
        member, siblings, counted = meet(folder, SERIES)
        renderer = Renderer()
        write_their_files(theirs)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=theirs)

        def changed():
            for one in counted:
                one.n += 1
            return renderer.render(member.gather(), Format())

        cases = {
            "ours": lambda: renderer.render(member.gather(), Format()),
            "changed": changed,
            "prometheus-client": lambda: generate_latest(registry),
        }
        found = race(cases, max(5, rounds // 10))
        part(member, siblings)
    show(
        f"a scrape over {WORKERS} workers, {SERIES} series each",
        [
            ("ours (asked, answered, merged, written)", f"{found['ours'] / 1e6:.1f} ms", ""),
            ("the same, and every total has changed", f"{found['changed'] / 1e6:.1f} ms", ""),
            ("prometheus-client, multi-process mode", f"{found['prometheus-client'] / 1e6:.0f} ms", ""),
            ("ratio", f"{found['prometheus-client'] / found['ours']:.0f}x", "bar 80x"),
            ("ratio, every total changed", f"{found['prometheus-client'] / found['changed']:.0f}x", ""),
        ],
    )


SIBLING = """
import sys
from isp_perf.metrics import MetricRegistry
from isp_perf.metrics._workers import WorkerExchange
from pathlib import Path
own = MetricRegistry(limit=1_000_000)
n = own.counter("n", "N.", ["series"])
for series in range(int(sys.argv[2])): n.labels(series).n = series
exchange = WorkerExchange(own.local, Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
exchange.close()
"""


def meet(folder, series):
    """Return a member of a group of WORKERS processes with so many series each, the other processes, its series."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SIBLING, folder, str(series)]
    siblings = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(WORKERS - 1)]
    for sibling in siblings:
        sibling.stdout.readline()
    own = MetricRegistry(limit=SERIES + 1)
    family = own.counter("n", "N.", ["series"])
    counted = [family.labels(number) for number in range(series)]
    for number, one in enumerate(counted):
        one.n = number
    return WorkerExchange(own.local, Path(folder)), siblings, counted


def part(member, siblings):
    member.close()
    for sibling in siblings:
        sibling.communicate()


def idle(rounds):
    """Time a scrape over WORKERS processes that have nothing else to do, and what it does to an event loop."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        member, siblings, _ = meet(folder, 100)
        renderer = Renderer()
        found = race({"scrape": lambda: renderer.render(member.gather(), Format())}, rounds)
        part(member, siblings)
    own = MetricRegistry(limit=SERIES + 1)
    family = own.counter("n", "N.", ["series"])
    for series in range(SERIES):
        family.labels(series).n = series
    held, alone = asyncio.run(stalls(MetricsApp(own)))
    show(
        f"{WORKERS} idle processes; an event loop beside scrapes of {SERIES} series",
        [
            ("a scrape of all, 100 series each", f"{found['scrape'] / 1e6:.2f} ms", "limit 3 ms"),
            ("longest turn of the loop per scrape, median", f"{held / 1e6:.2f} ms", "limit 1 ms"),
            ("the same without a scrape", f"{alone / 1e6:.2f} ms", ""),
        ],
    )


async def stalls(page, rounds=40):
    """Return the median of the longest time a busy loop was kept waiting, per scrape in a thread and without one."""
    loop = asyncio.get_running_loop()
    longest, running = 0, True

    def tick(last):
        nonlocal longest
        now = time.perf_counter_ns()
        longest = max(longest, now - last)
        if running:
            loop.call_soon(tick, time.perf_counter_ns())

    async def worst(work):
        nonlocal longest
        found = []
        for _ in range(rounds):
            longest = 0
            await asyncio.to_thread(work)
            found.append(longest)
        return statistics.median(found)

    page.body(Format())
    loop.call_soon(tick, time.perf_counter_ns())
    results = await worst(lambda: page.body(Format())), await worst(lambda: time.sleep(0.005))
    running = False
    return results


def write_their_files(folder):
    """Have WORKERS processes write the files of prometheus-client's multi-process mode."""
    program = (
        "from prometheus_client import Counter\n"
        "n = Counter('n', 'N.', ['series'])\n"
        f"for s in range({SERIES}): n.labels(s).inc(s)\n"
    )
    for _ in range(WORKERS):
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        if os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", program], environ):
            raise SystemExit("prometheus-client's worker failed")


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for table in (counting, requests, scrapes, exchange, idle):
        table(chosen)
