"""Shared circuits over a real server: several processes, a server that stops, dies and comes back."""

import asyncio
import os
import signal
import statistics
import threading
import time

import pytest

from isp_perf.breaker import CircuitOpenError, _shared_open
from isp_perf.testing import FaultProxy, start_redis
from shared_circuits import BREAK, PROBE, RECORD, Member, Worker, age, wait_for


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Who asks for the right to probe waits until the answer is there, however long the machine stalls."""
    monkeypatch.setattr(_shared_open, "PATIENCE", 20.0)


@pytest.fixture(scope="module")
def crew():
    """The worker processes, which serve one test after the other."""
    running = []
    yield running
    for worker in running:
        worker.stop()


class Processes:
    """The workers of one test."""

    def __init__(self, url, workers, quorum):
        self.url, self.workers = url, workers
        for worker in workers:
            worker.begin(f"globals().update(me=Member({url!r}, {quorum}))")
        for worker in workers:
            worker.end()

    def pass_time(self, seconds):
        """Move the clocks of all, and of the server, when all have said what they had to say and know the record."""
        for worker in self.workers:
            worker.ask("me.flush()")
        version = self.workers[0].ask("me.newest()")
        for worker in self.workers:
            worker.until("me.known()", version)
            worker.ask(f"me.clock.advance({seconds})")
        age(self.url, seconds)


@pytest.fixture
def processes(redis_url, crew):
    """Have so many processes join the fleet."""
    joined = []

    def join(number, quorum=1):
        crew.extend(Worker() for _ in range(number - len(crew)))
        joined.extend(crew[:number])
        return Processes(redis_url, crew[:number], quorum)

    yield join
    for worker in joined:
        if worker in crew:
            worker.ask("me.leave()")


@pytest.fixture
def local():
    """Make members of the fleet inside this process."""
    made = []

    def make(url):
        made.append(Member(url))
        return made[-1]

    yield make
    for member in made:
        member.leave()


def test_trip_is_seen_by_other_processes_at_once(processes):
    """The circuits of other processes are open far sooner than a poll would tell them."""
    one, *others = processes(3).workers
    delays = []
    for _ in range(5):
        one.ask("me.trip()")
        tripped = one.ask("me.seen['open']")
        for other in others:
            other.until("me.breaker.state", "open")
            delays.append(other.ask("me.seen['open']") - tripped)
        one.ask("me.breaker.reset()")
        for other in others:
            other.until("me.breaker.state", "closed")
            other.ask("me.seen.clear()")
        one.ask("me.seen.clear()")
    assert statistics.median(delays) < 2.5


def test_one_call_of_the_whole_fleet_probes(processes, local, redis_url):
    """Of forty calls in four processes that arrive after the break exactly one reaches the service."""
    fleet = processes(4)
    client = local(redis_url).pool.sync()
    fleet.workers[0].ask("me.trip()")
    for worker in fleet.workers:
        worker.until("me.breaker.state", "open")
    fleet.pass_time(BREAK + 1)
    for worker in fleet.workers:
        worker.ask("me.stampede()")
    wait_for(lambda: sum(worker.ask("me.outcomes.count('rejected')") for worker in fleet.workers) >= 39)
    client.set("answer", 1)
    wait_for(lambda: sum(worker.ask("len(me.outcomes)") for worker in fleet.workers) == 40)
    assert sum(worker.ask("me.outcomes.count('made')") for worker in fleet.workers) == 1
    assert client.get("reached") == b"1"
    for worker in fleet.workers:
        worker.until("me.breaker.state", "closed")


def test_one_poisoned_worker_opens_only_itself(processes, redis_url):
    """Below the quorum only the worker that fails is open; at the quorum all are."""
    one, two, three = processes(3, quorum=2).workers
    assert one.ask("me.trip()") == ["failed", "failed"]
    one.ask("me.flush()")
    assert one.ask(f"me.pool.sync().zcard('{RECORD}:votes')") == 1
    assert [worker.ask("me.breaker.state") for worker in (one, two, three)] == ["open", "closed", "closed"]
    two.ask("me.trip()")
    three.until("me.breaker.state", "open")


def test_poisoned_worker_does_not_hold_the_fleet_open(processes):
    """With a quorum, the worker whose probe failed last lets the others probe first."""
    fleet = processes(2, quorum=2)
    one, two = fleet.workers
    for worker in (one, two):
        worker.ask("me.trip()")
    fleet.pass_time(BREAK + 1)
    assert one.ask("me.call(fail)") == "failed"
    fleet.pass_time(BREAK + 1)
    assert one.ask("me.call()") == "rejected"
    assert two.ask("me.call()") == 0
    one.until("me.breaker.state", "closed")


def test_manual_control_holds_for_every_process(processes):
    """Isolating, disabling, watching and resetting one process's circuit does so in all of them."""
    one, two = processes(2).workers
    for action, state in [
        ("disable()", "disabled"),
        ("metrics_only()", "metrics_only"),
        ("reset()", "closed"),
        ("isolate('deploy', 60) and None", "isolated"),
        ("reset()", "closed"),
    ]:
        one.ask(f"me.breaker.{action}")
        two.until("me.breaker.state", state)
    two.ask("globals().update(handle=me.breaker.isolate('by two'))")
    one.until("me.breaker.report()['reasons']", ["by two"])
    two.ask("handle.release()")
    one.until("me.breaker.state", "closed")


def test_dead_worker_loses_the_right_to_probe(processes, crew):
    """When the process that probes is killed, another one may probe after its lease."""
    fleet = processes(2)
    one, two = fleet.workers
    one.ask("me.trip()")
    two.until("me.breaker.state", "open")
    fleet.pass_time(BREAK + 1)
    one.ask("globals().update(permit=me.breaker.permit())")
    assert one.ask("me.breaker.state") == "half_open"
    assert two.ask("me.call()") == "rejected"
    crew.remove(one)
    one.stop()
    fleet.workers.remove(one)
    fleet.pass_time(PROBE + 2)
    assert two.ask("me.call()") == 0


def test_calls_send_no_commands(local, redis_url):
    """Thousands of healthy and of rejected calls send nothing; an opening is one script call."""
    member = local(redis_url)
    wire, told = member.fleet.wire, []
    told_by, wire.call = wire.call, lambda operation, *rest: told.append(operation) or told_by(operation, *rest)

    def commands():
        return member.pool.sync().info("stats")["total_commands_processed"]

    before = commands()
    for _ in range(2000):
        member.breaker.call(int)
    member.trip()
    for _ in range(2000):
        with pytest.raises(CircuitOpenError):
            member.breaker.call(int)
    member.flush()
    assert [operation for operation in told if operation != "read"] == ["open"]
    assert commands() - before < 200  # those inside the scripts, a poll's, and the two that ask here


def test_frozen_server_harms_no_call(monkeypatch):
    """While the server is stopped calls go on as before, circuits open and recover; then all agree again."""
    engine = start_redis({"PATH": os.environ.get("PATH", "")})
    if engine.url is None:
        pytest.skip(f"no Redis: {engine.reason}")
    one, two = Member(engine.url), Member(engine.url)
    server = one.pool.sync().info("server")["process_id"]

    def recover(patience):
        monkeypatch.setattr(_shared_open, "PATIENCE", patience)
        one.trip()
        one.clock.advance(BREAK + 1)
        assert one.call() == 0

    try:
        os.kill(server, signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(2000):
            one.breaker.call(int)
        recover(0.1)
        assert (one.breaker.state, two.breaker.state) == ("closed", "closed")
        assert not one.fleet.connected
        recover(20)  # for which nobody has to wait: a store that is known to be away is not asked
        assert time.monotonic() - began < 10  # the first call that waited for the server would take twice as long
        os.kill(server, signal.SIGCONT)
        wait_for(lambda: one.fleet.connected and two.fleet.connected)
        one.trip()
        wait_for(lambda: two.breaker.state == "open")
    finally:
        os.kill(server, signal.SIGCONT)
        one.leave()
        two.leave()
        engine.stop()


def test_transitions_of_an_outage_are_told_afterwards(local, redis_url):
    """What one worker decided, and a person, while it could not reach the server holds for all when it can again."""
    host, port = redis_url.removeprefix("redis://").removesuffix("/0").split(":")
    with FaultProxy(host, int(port)) as proxy:
        far = local(f"redis://{proxy.host}:{proxy.port}/0")
        near = local(redis_url)
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
        far.leave()


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
    members = await asyncio.gather(asyncio.to_thread(local, redis_url), asyncio.to_thread(local, redis_url))
    one, two = members
    reached, answer = [], asyncio.Event()

    async def work():
        reached.append(1)
        await answer.wait()

    one.trip()
    await asyncio.to_thread(wait_for, lambda: two.breaker.state == "open")
    for member in members:
        member.clock.advance(BREAK + 1)
    age(redis_url, BREAK + 1)
    calls = [asyncio.create_task(member.breaker(work)()) for member in members for _ in range(50)]
    await asyncio.to_thread(wait_for, lambda: sum(call.done() for call in calls) >= 99)
    answer.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert len(reached) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 99
    await asyncio.to_thread(wait_for, lambda: one.breaker.state == two.breaker.state == "closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_is_a_worker_of_its_own(local, redis_url):
    """A child of a preloading server joins the fleet by itself, and its parent hears of what it does."""
    parent = local(redis_url)
    worker = parent.fleet.worker
    child = os.fork()
    if child == 0:
        code = 1
        try:
            wait_for(lambda: parent.fleet.connected)
            parent.trip()
            wait_for(lambda: parent.pool.sync().hget(RECORD, "state") == b"open")
            parent.fleet.close()
            code = 0 if parent.fleet.worker != worker else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parent.fleet.worker == worker
    wait_for(lambda: parent.breaker.state == "open")


def test_threads_end_with_the_fleet(redis_url):
    """Leaving the fleet ends its threads, and the registry can be shared again."""
    member = Member(redis_url)
    member.leave()
    wait_for(lambda: not any("isp_perf fleet" in thread.name for thread in threading.enumerate()))
    member.fleet = member.registry.share(member.pool)
    wait_for(lambda: member.fleet.connected)
    assert member.fleet.report()["circuits"] == 1
    member.leave()


def test_registry_is_shared_once(local, redis_url):
    """A second share() of one registry is a configuration error."""
    member = local(redis_url)
    with pytest.raises(ValueError, match="shared already"):
        member.registry.share(member.pool)
