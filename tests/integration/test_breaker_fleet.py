"""Shared circuits over a real server: several processes, a server that stops, dies and comes back."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import pytest

from isp_perf.breaker import CircuitConfig, CircuitOpenError, CircuitRegistry
from isp_perf.redis import RedisPool
from isp_perf.testing import FaultProxy, start_redis

CONFIG = CircuitConfig(failure_threshold=2, break_duration=0.5, probe_timeout=0.3)
WORKER = """
import json, sys, threading, time
from isp_perf.breaker import CircuitConfig, CircuitOpenError, CircuitRegistry
from isp_perf.redis import RedisPool

url, quorum, length, lease = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
registry = CircuitRegistry()
breaker = registry.define("api", CircuitConfig(failure_threshold=2, break_duration=length, probe_timeout=lease))
pool = RedisPool(url)
fleet = registry.share(pool, quorum)
seen = {}
breaker.on("transition", lambda event: seen.setdefault(event.after, time.monotonic()))

def fail():
    raise OSError

def outcome(work):
    try:
        return breaker.call(work)
    except CircuitOpenError:
        return "rejected"
    except OSError:
        return "failed"

def reach():
    pool.sync().incr("reached")
    time.sleep(0.6)
    return "made"

def stampede(at, threads=10):
    outcomes = []
    def arrive():
        time.sleep(max(0.0, at - time.monotonic()))
        outcomes.append(outcome(reach))
    arrivals = [threading.Thread(target=arrive) for _ in range(threads)]
    [arrival.start() for arrival in arrivals]
    [arrival.join() for arrival in arrivals]
    return outcomes

for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Worker:
    """A process that evaluates expressions."""

    def __init__(self, url, quorum=1, length=0.5, lease=0.3):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(quorum), str(length), str(lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def end(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, expression):
        self.begin(expression)
        return self.end()

    def until(self, expression, expected, limit=5.0):
        end = time.monotonic() + limit
        while (found := self.ask(expression)) != expected:
            assert time.monotonic() < end, f"{expression} is still {found}"
            time.sleep(0.005)

    def stop(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workers(redis_url):
    """Make connected worker processes."""
    made = []

    def make(number, **settings):
        fresh = [Worker(redis_url, **settings) for _ in range(number)]
        made.extend(fresh)
        for worker in fresh:
            worker.until("fleet.connected", expected=True, limit=20)
        return fresh

    yield make
    for worker in made:
        worker.stop()


class Local:
    """A worker inside the test's process."""

    def __init__(self, url, config=CONFIG, quorum=1):
        self.registry = CircuitRegistry()
        self.breaker = self.registry.define("api", config)
        self.pool = RedisPool(url)
        self.fleet = self.registry.share(self.pool, quorum)
        wait_for(lambda: self.fleet.connected)
        wait_for(lambda: subscribers(self.pool) > 0)

    def trip(self):
        for _ in range(2):
            with pytest.raises(OSError):
                self.breaker.call(fail)

    def close(self):
        self.fleet.close()
        asyncio.run(self.pool.aclose())


def subscribers(pool):
    return pool.sync().execute_command("PUBSUB", "NUMSUB", "isp:circuits")[0][1]


def fail():
    raise OSError


def wait_for(condition, limit=5.0):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def local():
    """Make workers inside this process."""
    made = []

    def make(*arguments, **settings):
        made.append(Local(*arguments, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def test_trip_is_seen_by_other_processes_at_once(workers):
    """The circuits of other processes are open within 50 ms of the failure that opened the first one."""
    one, *others = workers(3, length=30)
    delays = []
    for _ in range(5):
        one.ask("[outcome(fail), outcome(fail)]")
        tripped = one.ask("seen['open']")
        for other in others:
            other.until("breaker.state", "open")
            delays.append(other.ask("seen['open']") - tripped)
        one.ask("breaker.reset()")
        for other in others:
            other.until("breaker.state", "closed")
            other.ask("seen.clear()")
        one.ask("seen.clear()")
    assert statistics.median(delays) <= 0.05


def test_one_call_of_the_whole_fleet_probes(workers):
    """Of forty calls in four processes that arrive at the end of the break exactly one reaches the service."""
    fleet = workers(4, lease=5)
    fleet[0].ask("[outcome(fail), outcome(fail)]")
    for worker in fleet:
        worker.until("breaker.state", "open")
    at = time.monotonic() + 0.7
    for worker in fleet:
        worker.begin(f"stampede({at})")
    outcomes = [outcome for worker in fleet for outcome in worker.end()]
    assert outcomes.count("made") == 1
    assert outcomes.count("rejected") == 39
    assert fleet[0].ask("int(pool.sync().get('reached'))") == 1
    for worker in fleet:
        worker.until("breaker.state", "closed")


def test_one_poisoned_worker_opens_only_itself(workers):
    """Below the quorum only the worker that fails is open; at the quorum all are."""
    one, two, three = workers(3, quorum=2, length=30)
    one.ask("[outcome(fail), outcome(fail)]")
    one.until("pool.sync().zcard('isp:circuit:{api}:votes')", 1)
    time.sleep(0.1)
    assert [worker.ask("breaker.state") for worker in (one, two, three)] == ["open", "closed", "closed"]
    two.ask("[outcome(fail), outcome(fail)]")
    three.until("breaker.state", "open")


def test_poisoned_worker_does_not_hold_the_fleet_open(workers):
    """With a quorum, the worker whose probe failed last lets the others probe first."""
    one, two = workers(2, quorum=2)
    for worker in (one, two):
        worker.ask("[outcome(fail), outcome(fail)]")
    for worker in (one, two):
        worker.until("fleet.report()['heard'] > 0 or breaker.state == 'open'", expected=True)
    time.sleep(0.6)
    assert one.ask("outcome(fail)") == "failed"
    time.sleep(0.6)
    assert one.ask("outcome(fail)") == "rejected"
    assert two.ask("outcome(int)") == 0
    one.until("breaker.state", "closed")


def test_manual_control_holds_for_every_process(workers):
    """Isolating, disabling, watching and resetting one process's circuit does so in all of them."""
    one, two = workers(2)
    for action, state in [
        ("disable()", "disabled"),
        ("metrics_only()", "metrics_only"),
        ("reset()", "closed"),
        ("isolate('deploy', 60) and None", "isolated"),
        ("reset()", "closed"),
    ]:
        one.ask(f"breaker.{action}")
        two.until("breaker.state", state)
    two.ask("seen.setdefault('handle', 0) or globals().update(handle=breaker.isolate('by two'))")
    one.until("breaker.report()['reasons']", ["by two"])
    two.ask("handle.release()")
    one.until("breaker.state", "closed")


def test_dead_worker_loses_the_right_to_probe(workers):
    """When the process that probes is killed, another one may probe after its lease."""
    one, two = workers(2)
    one.ask("[outcome(fail), outcome(fail)]")
    two.until("breaker.state", "open")
    time.sleep(0.6)
    one.begin("globals().update(permit=breaker.permit()) or breaker.state")
    assert one.end() == "half_open"
    assert two.ask("outcome(int)") == "rejected"
    one.stop()
    two.until("outcome(int)", 0)


def test_calls_send_no_commands(local, redis_url):
    """Thousands of healthy and of rejected calls send nothing; an opening is one script call."""
    worker = local(redis_url, CircuitConfig(failure_threshold=2, break_duration=60))

    def evals():
        return worker.pool.sync().info("commandstats").get("cmdstat_eval", {}).get("calls", 0)

    def commands():
        return worker.pool.sync().info("stats")["total_commands_processed"]

    time.sleep(0.1)
    before, told = commands(), evals()
    for _ in range(2000):
        worker.breaker.call(int)
    worker.trip()
    for _ in range(2000):
        with pytest.raises(CircuitOpenError):
            worker.breaker.call(int)
    wait_for(lambda: evals() == told + 1)
    assert commands() - before < 100  # those inside the script, those that ask here, and at most a poll


def test_frozen_server_harms_no_call():
    """While the server is stopped calls are as fast as before, circuits open and recover; then all agree again."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    one, two = Local(engine.url), Local(engine.url)
    server = one.pool.sync().info("server")["process_id"]
    try:
        os.kill(server, signal.SIGSTOP)
        assert slowest(one.breaker) < 0.1
        one.trip()
        time.sleep(0.55)
        began = time.monotonic()
        assert one.breaker.call(int) == 0
        assert time.monotonic() - began < 0.5
        assert (one.breaker.state, two.breaker.state) == ("closed", "closed")
        wait_for(lambda: not one.fleet.connected)
        one.trip()
        time.sleep(0.55)
        began = time.monotonic()
        assert one.breaker.call(int) == 0
        assert time.monotonic() - began < 0.1
        os.kill(server, signal.SIGCONT)
        wait_for(lambda: one.fleet.connected and two.fleet.connected)
        one.trip()
        wait_for(lambda: two.breaker.state == "open")
    finally:
        os.kill(server, signal.SIGCONT)
        one.close()
        two.close()
        engine.stop()


def slowest(breaker):
    spent = []
    for _ in range(2000):
        began = time.perf_counter()
        breaker.call(int)
        spent.append(time.perf_counter() - began)
    return sorted(spent)[-20]


def test_transitions_of_an_outage_are_told_afterwards(local, redis_url):
    """What one worker decided, and a person, while it could not reach the server holds for all when it can again."""
    host, port = redis_url.removeprefix("redis://").removesuffix("/0").split(":")
    with FaultProxy(host, int(port)) as proxy:
        config = CircuitConfig(failure_threshold=2, break_duration=30)
        far = local(f"redis://{proxy.host}:{proxy.port}/0", config)
        near = local(redis_url, config)
        proxy.drop(refuse=True)
        far.trip()
        wait_for(lambda: not far.fleet.connected)
        assert near.breaker.state == "closed"
        proxy.heal()
        wait_for(lambda: near.breaker.state == "open")
        near.breaker.reset()
        wait_for(lambda: far.breaker.state == "closed")
        proxy.drop(refuse=True)
        far.breaker.disable()
        wait_for(lambda: not far.fleet.connected)
        proxy.heal()
        wait_for(lambda: near.breaker.state == "disabled")


def test_server_that_lost_its_data_learns_again(local, redis_url):
    """After the server came back empty an isolation holds, for workers that begin later too."""
    one = local(redis_url)
    one.breaker.isolate("deploy")
    two = local(redis_url)
    wait_for(lambda: two.breaker.state == "isolated")
    one.pool.sync().flushall()
    one.fleet._missed()
    three = local(redis_url)
    wait_for(lambda: three.breaker.state == "isolated")


async def test_coroutines_share_circuits_too(local, redis_url):
    """Coroutines of several workers probe once, and their loop runs while one of them asks."""
    one, two = await asyncio.gather(asyncio.to_thread(local, redis_url), asyncio.to_thread(local, redis_url))
    reached = []

    async def work():
        reached.append(1)
        await asyncio.sleep(0.1)

    calls = [worker.breaker(work) for worker in (one, two)]
    one.trip()
    await asyncio.to_thread(wait_for, lambda: two.breaker.state == "open")
    await asyncio.sleep(0.55)
    results = await asyncio.gather(*(call() for call in calls for _ in range(50)), return_exceptions=True)
    assert len(reached) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 99
    await asyncio.to_thread(wait_for, lambda: one.breaker.state == two.breaker.state == "closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_is_a_worker_of_its_own(local, redis_url):
    """A child of a preloading server joins the fleet by itself, and its parent hears of what it does."""
    parent = local(redis_url, CircuitConfig(failure_threshold=2, break_duration=30))
    worker = parent.fleet.worker
    child = os.fork()
    if child == 0:
        code = 1
        try:
            wait_for(lambda: parent.fleet.connected)
            parent.trip()
            parent.fleet.close()
            code = 0 if parent.fleet.worker != worker else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parent.fleet.worker == worker
    wait_for(lambda: parent.breaker.state == "open")


def test_threads_end_with_the_fleet(redis_url):
    """Leaving the fleet ends its threads, and the registry can be shared again."""
    worker = Local(redis_url)
    worker.close()
    wait_for(lambda: not any("isp_perf fleet" in thread.name for thread in threading.enumerate()))
    again = worker.registry.share(worker.pool)
    wait_for(lambda: again.connected)
    assert again.report()["circuits"] == 1
    worker.fleet = again
    worker.close()


def test_registry_is_shared_once(local, redis_url):
    """A second share() of one registry is a configuration error."""
    worker = local(redis_url)
    with pytest.raises(ValueError, match="shared already"):
        worker.registry.share(worker.pool)
