"""The link of a circuit to its fleet, over a wire that tests hold in their hands: no server and no real clock."""

import asyncio
import logging
import threading
import time

import pytest

from isp_perf._core.breaker_fleet import View
from isp_perf.breaker import Backoff, CircuitConfig, CircuitOpenError, CircuitRegistry, _shared_open
from isp_perf.breaker._fleet import Fleet
from isp_perf.breaker._fleet_wire import view_of
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock

CONFIG = CircuitConfig(failure_threshold=1, break_duration=10)


class Wire:
    """Remembers what is told, and answers with ``view``; or fails, or lets the answer wait."""

    def __init__(self):
        self.view = View(0)
        self.told = []
        self.error = None
        self.held_up = threading.Event()
        self.held_up.set()
        self.number = 0

    def call(self, operation, circuit, worker, *values):
        self.told.append((operation, *values))
        self.held_up.wait(20)
        if self.error is not None:
            raise self.error
        return self.view

    def changes(self):
        if self.error is not None:
            raise self.error
        return self.number

    def listen(self, closing):
        yield None
        closing.wait()


class Bench:
    """One circuit of a fleet whose sender runs when the test says so."""

    def __init__(self, config=CONFIG, quorum=1):
        self.clock = ManualClock()
        self.registry = CircuitRegistry.on_clock(self.clock)
        self.breaker = self.registry.define("api", config)
        self.wire = Wire()
        self.fleet = Fleet(self.wire, quorum)
        self.fleet.join(self.breaker)
        self.fleet.connected = True
        self.send()
        self.wire.told.clear()

    def send(self):
        """Deliver every note, as the sender would."""
        while not self.fleet._notes.empty():
            self.fleet._deliver(self.fleet._notes.get())
        return self.wire.told

    def hear(self, **record):
        self.fleet._hear("api", View(by=record.pop("by", "other"), **record))

    def fail(self):
        with pytest.raises(OSError):
            self.breaker.call(fail)


def fail():
    raise OSError


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Askers wait until the answer is there, however long the machine stalls; return for how long at the most."""
    monkeypatch.setattr(_shared_open, "PATIENCE", 20.0)
    return 20.0


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def fetch(bench):
    """A coroutine function behind the circuit, whose break is over."""

    @bench.breaker
    async def fetch():
        return 7

    bench.fail()
    bench.send()
    bench.clock.advance(10)
    return fetch


def answering(bench, work):
    """Do ``work`` in a thread while this one is the sender; return what it returned or raised."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        bench.send()
        thread.join(0.001)
    return results[0]


def test_healthy_and_rejected_calls_send_nothing(bench):
    """Calls that pass and calls that are rejected tell the fleet nothing; one opening is one command."""
    for _ in range(100):
        bench.breaker.call(int)
    assert bench.send() == []
    bench.fail()
    for _ in range(100):
        with pytest.raises(CircuitOpenError):
            bench.breaker.call(int)
    assert bench.send() == [("open", 10_000, 1, 21_000, "OSError", 1)]


def test_opening_and_closing_of_others_are_followed(bench):
    """The circuit opens for as long as the record says, with its error and round, and closes with the fleet."""
    bench.hear(version=1, state="open", why="opened", left=7.0, error="TimeoutError", round=3)
    assert (bench.breaker.state, bench.breaker.retry_after, bench.breaker.round) == ("open", 7.0, 3)
    assert bench.breaker.report()["error"] == "TimeoutError"
    bench.hear(version=2, why="closed")
    assert bench.breaker.state == "closed"
    assert bench.send() == []


def test_late_news_change_nothing(bench):
    """A record that is older than the one followed last is ignored."""
    bench.hear(version=5, state="open", why="opened", left=7.0)
    bench.hear(version=4, why="closed")
    assert bench.breaker.state == "open"


def test_news_wait_for_the_answers_to_our_own(bench):
    """While a transition of ours is on its way, what others changed before it is left to its answer."""
    bench.fail()
    bench.hear(version=1, why="reset")
    assert bench.breaker.state == "open"
    bench.wire.view = View(2, state="open", why="opened", by=bench.fleet.worker, left=10.0)
    bench.send()
    assert bench.breaker.state == "open"
    bench.hear(version=3, why="reset")
    assert bench.breaker.state == "closed"


def test_opening_below_the_quorum_stays_ones_own():
    """A worker whose vote did not suffice is open by itself, and a closing of the fleet is not for it."""
    bench = Bench(quorum=2)
    bench.fail()
    bench.wire.view = View(1, why="closed", by="other")
    bench.send()
    bench.hear(version=2, why="closed")
    assert bench.breaker.state == "open"
    bench.hear(version=3, state="open", why="opened", left=20.0)
    assert bench.breaker.retry_after == 20.0
    bench.hear(version=4, why="closed")
    assert bench.breaker.state == "closed"


def test_one_caller_asks_and_the_others_are_rejected_meanwhile(bench, patience):
    """When the break is over one caller of the process asks; until the answer is there nobody else is let through."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    bench.wire.held_up.clear()
    rejected = []

    def first():
        return bench.breaker.permit()

    def others():
        while bench.wire.told[-1][0] != "lease":
            time.sleep(0)
        for _ in range(3):
            with pytest.raises(CircuitOpenError) as caught:
                bench.breaker.permit()
            rejected.append(caught.value.retry_after)
        bench.wire.held_up.set()

    other = threading.Thread(target=others)
    other.start()
    permit = answering(bench, first)
    other.join()
    assert rejected == [patience] * 3
    assert bench.breaker.state == "half_open"
    permit.ok()
    assert bench.breaker.state == "closed"
    assert [told[0] for told in bench.send()] == ["open", "lease", "close"]


def test_worker_that_may_not_probe_waits_as_told(bench):
    """While another worker probes, arrivals are rejected, with no further question, for as long as the answer says."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    bench.wire.view = View(1, state="open", why="opened", by=bench.fleet.worker, wait=4.0)
    error = answering(bench, bench.breaker.permit)
    assert isinstance(error, CircuitOpenError)
    assert error.retry_after == 4.0
    with pytest.raises(CircuitOpenError):
        bench.breaker.permit()
    assert [told[0] for told in bench.send()] == ["open", "lease"]
    bench.hear(version=2, why="closed")
    assert bench.breaker.state == "closed"


def test_news_that_overtake_the_answer_to_our_own_are_followed(bench):
    """What others changed after our note, but heard before its answer, holds once the answer is there."""
    bench.fail()
    bench.hear(version=2, state="open", why="opened", left=40.0)
    bench.hear(version=1, why="reset")
    assert bench.breaker.retry_after == 10.0
    bench.send()
    assert (bench.breaker.state, bench.breaker.retry_after) == ("open", 40.0)


async def test_coroutines_ask_without_blocking_their_loop(bench, fetch):
    """A coroutine waits for the answer while others of its loop run and are rejected."""
    first = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        await fetch()
    bench.send()
    assert await first == 7
    assert bench.breaker.state == "closed"


async def test_answer_to_a_cancelled_asker_serves_the_next_caller(bench, fetch):
    """When the call that asked is cancelled, the right it got is used by the next arrival, without another question."""
    first = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    bench.send()
    assert await fetch() == 7
    assert [told[0] for told in bench.send()] == ["open", "lease", "close"]


def test_store_that_does_not_answer_has_no_say(bench, monkeypatch):
    """After some time without an answer the process probes for itself; its late answer changes nothing."""
    monkeypatch.setattr(_shared_open, "PATIENCE", 0.01)
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    permit = bench.breaker.permit()
    assert bench.breaker.state == "half_open"
    assert not bench.fleet.connected
    bench.wire.view = View(1, state="open", wait=9.0, by=bench.fleet.worker)
    bench.send()
    permit.ok()
    assert bench.breaker.state == "closed"


def test_store_that_is_away_is_not_asked(bench):
    """While the store is known to be away nothing is asked or waited for, and notes are dropped."""
    bench.fleet.connected = False
    bench.fail()
    bench.clock.advance(10)
    assert bench.breaker.call(int) == 0
    assert bench.breaker.state == "closed"
    assert bench.send() == []


def test_failing_store_is_logged_once_and_reaches_nobody(bench, caplog):
    """Errors of the store end in one line of the log per outage."""
    bench.wire.error = OSError("down")
    with caplog.at_level(logging.WARNING, "isp_perf.breaker"):
        for _ in range(3):
            bench.fail()
            bench.send()
            bench.breaker.reset()
            bench.send()
    assert len(caplog.records) == 1
    assert bench.fleet.report()["failed"] == 1


def test_asker_is_answered_when_the_store_fails(bench):
    """An error of the store in answer to the question lets the process probe for itself, at once."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    bench.wire.error = OSError("down")
    permit = answering(bench, bench.breaker.permit)
    permit.ok()
    assert bench.breaker.state == "closed"


def test_question_whose_asker_is_gone_is_asked_again(bench):
    """A question without an answer, as a forked child inherits it, blocks nobody for longer than two seconds."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    bench.breaker.era._elected()
    with pytest.raises(CircuitOpenError):
        bench.breaker.permit()
    bench.clock.advance(2)
    answering(bench, bench.breaker.permit).ok()
    assert bench.breaker.state == "closed"


def test_neutral_probe_gives_the_right_back(bench):
    """A probe without an outcome opens the circuit with its break over and gives the right to probe back."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    answering(bench, bench.breaker.permit).release()
    bench.send()
    assert (bench.breaker.state, bench.breaker.retry_after) == ("open", 0.0)
    assert bench.wire.told[-1] == ("give",)
    answering(bench, bench.breaker.permit).ok()
    assert bench.breaker.state == "closed"


def test_further_probes_keep_the_right():
    """With several probes each one after the first prolongs the right, and the round ends here."""
    bench = Bench(CONFIG.replace(probes=3))
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    permits = [answering(bench, bench.breaker.permit), bench.breaker.permit(), bench.breaker.permit()]
    assert [told[0] for told in bench.send()] == ["open", "lease", "lease", "lease"]
    permits.pop().release()
    bench.send()
    assert bench.breaker.state == "half_open"
    for permit in permits:
        permit.ok()
    bench.breaker.call(int)
    assert bench.breaker.state == "closed"


def test_probe_that_fails_tells_the_longer_break():
    """A failed probe opens again, and the fleet hears the break of that round."""
    bench = Bench(CONFIG.replace(break_duration=Backoff(10, 2.0, 100, 0.0)))
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    answering(bench, bench.breaker.permit).failed(OSError())
    assert bench.send()[-1] == ("open", 20_000, 1, 41_000, "OSError", 2)


def test_guards_probe_without_asking(bench):
    """A caller that can neither block nor wait probes for its process alone."""
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    bench.breaker.before()
    bench.breaker.success()
    assert bench.breaker.state == "closed"
    assert [told[0] for told in bench.send()] == ["open", "close"]


def test_ramp_is_shared():
    """Workers with a ramp begin it when the probe of another one has passed; the fleet hears of it at its begin."""
    bench = Bench(CONFIG.replace(ramp=10))
    bench.hear(version=1, state="open", why="opened", left=5.0)
    bench.hear(version=2, why="ramp")
    assert bench.breaker.state == "half_open"
    bench.clock.advance(10)
    bench.breaker.call(int)
    assert bench.breaker.state == "closed"
    bench.fail()
    bench.send()
    bench.clock.advance(10)
    answering(bench, bench.breaker.permit).ok()
    assert bench.send()[-1] == ("close", 2, "ramp")


def test_manual_control_is_told_and_followed(bench):
    """What a person does here is told, the last word only; what one does elsewhere is followed and not told again."""
    bench.breaker.disable()
    assert bench.send() == [("set", "disabled")]
    bench.breaker.metrics_only()
    bench.breaker.reset()
    assert bench.send() == [("set", "disabled"), ("reset",)]
    bench.wire.told.clear()
    bench.hear(version=1, mode="disabled", why="disabled")
    assert bench.breaker.state == "disabled"
    bench.hear(version=2, mode="metrics_only", why="metrics_only")
    assert bench.breaker.state == "metrics_only"
    bench.hear(version=3, why="reset")
    assert bench.breaker.state == "closed"
    assert bench.send() == []


def test_isolations_of_all_workers_count(bench):
    """The circuit stays isolated until the last isolation, here or elsewhere, has ended."""
    mine = bench.breaker.isolate("mine", 30)
    assert bench.send() == [("hold", 30_000, "mine")]
    other = {"other": (None, "deploy"), bench.fleet.worker: (30.0, "mine")}
    bench.hear(version=1, mode="isolated", why="isolated", held=other)
    assert sorted(bench.breaker.report()["reasons"]) == ["deploy", "mine"]
    assert bench.breaker.retry_after is None
    mine.release()
    assert bench.send()[-1] == ("drop",)
    assert bench.breaker.state == "isolated"
    bench.hear(version=2, why="released")
    assert bench.breaker.state == "closed"


def test_isolation_of_another_worker_ends_by_itself(bench):
    """An isolation with a duration ends here at the same time as there."""
    bench.hear(version=1, mode="isolated", why="isolated", held={"other": (5.0, "deploy")})
    with pytest.raises(CircuitOpenError):
        bench.breaker.call(int)
    bench.clock.advance(5)
    assert bench.breaker.call(int) == 0


def test_isolation_that_only_others_held_ends_with_theirs(bench):
    """When the record holds no isolation of another worker any more, only our own go on."""
    bench.hear(version=1, mode="isolated", why="isolated", held={"other": (None, "deploy")})
    bench.hear(version=2, mode="isolated", why="isolated", held={bench.fleet.worker: (None, "ghost")})
    assert bench.breaker.state == "closed"


@pytest.mark.parametrize(
    ("before", "view", "expected"),
    [
        ("own opening", View(0), "open"),
        ("isolation", View(0), "hold"),
        ("disabled", View(0), "set"),
        ("reset", View(0), "reset"),
        ("probe passed", View(3, state="open", by="other", why="opened"), "close"),
        ("nothing", View(0), None),
    ],
)
def test_after_an_outage_the_record_is_told_what_it_lacks(bench, before, view, expected):
    """What happened while the store was away is told when it is back, and nothing else is."""
    if before == "probe passed":
        bench.hear(version=3, state="open", why="opened", left=0.0)
    bench.fleet.connected = False
    {
        "own opening": bench.fail,
        "isolation": lambda: bench.breaker.isolate("x"),
        "disabled": bench.breaker.disable,
        "reset": bench.breaker.reset,
        "probe passed": lambda: bench.breaker.call(int),
        "nothing": lambda: None,
    }[before]()
    bench.send()
    bench.wire.view = view
    bench.fleet._try(bench.fleet._poll)
    assert [told[0] for told in bench.wire.told] == ["read"] + ([expected] if expected else [])


def test_store_that_lost_its_data_is_told_again(bench):
    """After a restart without data the openings and modes that the fleet knew are in the record again."""
    bench.hear(version=5, state="open", why="opened", left=8.0)
    bench.fleet.connected = False
    bench.fleet._try(bench.fleet._poll)
    assert bench.wire.told[-1][0] == "open"
    bench.hear(version=6, mode="disabled", why="disabled")
    bench.fleet.connected = False
    bench.fleet._try(bench.fleet._poll)
    assert bench.wire.told[-1] == ("set", "disabled")


def test_poll_reads_circuits_only_after_changes(bench):
    """A poll without a change asks for one number; with one, or when news may have been missed, it reads."""
    bench.fleet._try(bench.fleet._poll)
    bench.wire.told.clear()
    bench.fleet._try(bench.fleet._poll)
    assert bench.wire.told == []
    bench.wire.number += 1
    bench.fleet._try(bench.fleet._poll)
    bench.fleet._missed()
    assert bench.send() == [("read",), ("read",)]


def test_late_definitions_and_families_join():
    """Circuits defined after share(), and members of families, are shared as well."""
    bench = Bench()
    bench.registry._fleet = bench.fleet
    later = bench.registry.define("later", CONFIG)
    family = bench.registry.define_keyed("tenants", CONFIG)
    member = family.of("a/b")
    assert later.report()["shared"]
    assert member.report()["shared"]
    bench.fleet._hear("tenants[a%2Fb]", View(9, state="open", why="opened", by="other", left=3.0))
    bench.fleet._hear("nobody", View(9, state="open", why="opened", by="other", left=3.0))
    assert member.state == "open"


def test_circuit_that_is_open_already_joins_and_asks(bench):
    """A circuit that opened before it was shared asks for the right to probe like any other."""
    late = bench.registry.define("late", CONFIG)
    with pytest.raises(OSError):
        late.call(fail)
    bench.fleet.join(late)
    bench.send()
    bench.clock.advance(10)
    answering(bench, late.permit).ok()
    assert [told[0] for told in bench.send()] == ["read", "lease", "close"]


def test_reconfigured_circuit_stays_shared(bench):
    """Reconfiguring an open or half-open circuit of a fleet keeps its link."""
    bench.fail()
    bench.breaker.reconfigure(CONFIG.replace(probes=2))
    bench.send()
    bench.clock.advance(10)
    first = answering(bench, bench.breaker.permit)
    bench.breaker.reconfigure(CONFIG)
    assert bench.breaker.era.leased
    first.ok()
    assert bench.breaker.counts.late == 1


@pytest.mark.parametrize(
    ("quorum", "namespace", "setting"), [(0, "isp", "quorum"), (1.5, "isp", "quorum"), (1, "", "namespace")]
)
def test_impossible_settings_are_refused(quorum, namespace, setting):
    """A quorum below 1 and an empty namespace are configuration errors."""
    with pytest.raises(ConfigurationError) as caught:
        CircuitRegistry().share(None, quorum, namespace=namespace)
    assert caught.value.setting == setting


def test_record_is_read_as_the_script_tells_it():
    """Milliseconds become seconds, -1 becomes no end, and an empty error none."""
    told = (
        b'{"name": "api", "version": "1795405012976292", "mode": "isolated", "state": "closed", "why": "isolated",'
        b'"by": "w", "left": 1500, "round": 2, "error": "", "held": {"w": [-1, "a"], "v": [2500, "b"]}, "wait": 250}'
    )
    name, view = view_of(told)
    assert name == "api"
    assert view == View(
        1795405012976292, "isolated", "closed", "isolated", "w", 1.5, 2, None, {"w": (None, "a"), "v": (2.5, "b")}, 0.25
    )


def test_closed_fleet_leaves_its_circuits_alone(bench):
    """After close() the circuit goes on by itself, tells nothing, and asks nobody."""
    bench.fleet.start()
    bench.fleet.close()
    bench.fleet.close()
    bench.wire.told.clear()
    bench.fail()
    bench.clock.advance(10)
    assert bench.breaker.call(int) == 0
    assert bench.wire.told == []
