"""The script that changes a shared circuit inside Redis, one rule at a time."""

import contextlib
import threading
from functools import partial
from itertools import islice

import pytest

import shared_circuits
from isp_perf.breaker._fleet_wire import RedisWire

LONG = 60_000


@pytest.fixture
def wire(redis_url):
    """A wire to the empty server."""
    pool = shared_circuits.patient(redis_url)
    yield RedisWire(pool, "test")
    pool.sync().disconnect()


@pytest.fixture
def age(redis_url):
    """Makes every record so many seconds older."""
    return partial(shared_circuits.age, redis_url)


def opened(wire, worker="a", *, length=LONG, quorum=1, vote=LONG):
    return wire.call("open", "api", worker, length, quorum, vote, "OSError", 1)


def test_circuit_that_nobody_changed_is_unknown(wire):
    """A record that does not exist is version 0 and closed."""
    view = wire.call("read", "api", "a")
    assert (view.version, view.mode, view.state, view.held, view.wait) == (0, "auto", "closed", {}, 0.0)


def test_circuit_opens_at_the_quorum(wire):
    """The vote that reaches the quorum opens the circuit for as long as it says; the same worker counts once."""
    assert opened(wire, "a", quorum=2).version == 0
    assert opened(wire, "a", quorum=2).version == 0
    view = opened(wire, "b", quorum=2)
    assert (view.state, view.why, view.by, view.error, view.round) == ("open", "opened", "b", "OSError", 1)
    assert 59 < view.left <= 60


def test_votes_expire_and_are_taken_back(wire, age):
    """A vote counts while its worker is open: not after its time, nor after the worker has closed."""
    opened(wire, "a", quorum=2, vote=1000)
    age(1)
    assert opened(wire, "b", quorum=2).state == "closed"
    wire.call("close", "api", "b", 0, "closed")
    assert opened(wire, "c", quorum=2).state == "closed"
    assert opened(wire, "d", quorum=2).state == "open"


def test_open_circuit_is_not_opened_again(wire):
    """A vote for a circuit that is open already changes neither its end nor its version."""
    first = opened(wire, "a", length=30_000)
    second = opened(wire, "b", length=LONG)
    assert second.version == first.version
    assert second.left <= 30


def test_one_worker_at_a_time_may_probe(wire, age):
    """Nobody may before the break is over; then one, who may ask again, until its time is over or it gives it back."""
    opened(wire, length=30_000)
    early = wire.call("lease", "api", "a", LONG, 1)
    assert 0 < early.wait <= 30
    age(30)
    assert wire.call("lease", "api", "a", LONG, 1).wait == 0
    assert wire.call("lease", "api", "a", 50_000, 1).wait == 0
    assert 0 < wire.call("lease", "api", "b", LONG, 1).wait <= 50
    age(50)
    assert wire.call("lease", "api", "b", LONG, 1).wait == 0
    assert wire.call("give", "api", "a").why == "opened"
    assert wire.call("give", "api", "b").why == "returned"
    assert wire.call("lease", "api", "c", LONG, 1).wait == 0


def test_worker_of_its_own_opening_needs_no_leave(wire):
    """While the fleet's circuit is closed everybody may probe for itself."""
    opened(wire, "a", quorum=2)
    assert wire.call("lease", "api", "a", LONG, 2).wait == 0
    assert wire.call("lease", "api", "b", LONG, 2).wait == 0


def test_closing_needs_the_right_or_the_newest_version(wire, age):
    """Who neither has the right to probe nor knows the present version closes nothing."""
    version = opened(wire).version
    age(60)
    assert wire.call("close", "api", "b", version - 1, "closed").state == "open"
    wire.call("lease", "api", "a", LONG, 1)
    view = wire.call("close", "api", "a", 0, "ramp")
    assert (view.state, view.why, view.error) == ("closed", "ramp", None)
    version = opened(wire).version
    assert wire.call("close", "api", "c", version, "closed").state == "closed"


def test_failed_probe_opens_again_without_a_quorum(wire, age):
    """The worker with the right re-opens alone; with a quorum it then lets the others probe first."""
    for worker in "ab":
        opened(wire, worker, length=1000, quorum=2)
    age(1)
    assert wire.call("lease", "api", "a", LONG, 2).wait == 0
    before = wire.call("read", "api", "a").version
    assert opened(wire, "a", length=30_000, quorum=2).version > before
    age(30)
    assert 0 < wire.call("lease", "api", "a", LONG, 2).wait <= 30
    assert wire.call("lease", "api", "b", LONG, 2).wait == 0


def test_isolations_add_up_by_worker(wire):
    """The circuit is isolated until the last worker has let go, or its time is over."""
    wire.call("hold", "api", "a", -1, "deploy")
    view = wire.call("hold", "api", "b", LONG, "half an hour | or so")
    assert view.mode == "isolated"
    assert view.held["a"] == (None, "deploy")
    assert 59 < view.held["b"][0] <= 60
    assert view.held["b"][1] == "half an hour | or so"
    assert opened(wire, "c").state == "closed"
    assert set(wire.call("drop", "api", "a").held) == {"b"}
    version = wire.call("drop", "api", "c").version
    view = wire.call("drop", "api", "b")
    assert (view.mode, view.why, view.held) == ("auto", "released", {})
    assert view.version > version


def test_isolation_ends_by_itself(wire, age):
    """An isolation whose time is over isolates nobody."""
    wire.call("hold", "api", "a", 10_000, "short")
    age(10)
    assert wire.call("read", "api", "b").mode == "auto"
    assert opened(wire, "b").state == "open"


def test_modes_and_reset_end_everything_else(wire):
    """Disabling ends breaks and isolations; a reset ends that, and every vote."""
    opened(wire)
    wire.call("hold", "api", "a", -1, "deploy")
    view = wire.call("set", "api", "a", "disabled")
    assert (view.mode, view.state, view.held) == ("disabled", "closed", {})
    assert opened(wire, "b").mode == "disabled"
    assert wire.call("set", "api", "a", "metrics_only").mode == "metrics_only"
    assert wire.call("lease", "api", "a", LONG, 1).wait == 0
    opened(wire, "b", quorum=2)
    view = wire.call("reset", "api", "a")
    assert (view.mode, view.state, view.why) == ("auto", "closed", "reset")
    assert opened(wire, "c", quorum=2).state == "closed"


def test_versions_grow_over_an_empty_server(wire):
    """A server that lost its data gives a newer version than before."""
    before = opened(wire).version
    wire._client.flushall()
    assert opened(wire).version > before


def test_every_change_is_counted_and_published(wire):
    """A change, and nothing else, moves the number that polls compare, and reaches listeners with its record."""
    heard, subscribed, closing = [], threading.Event(), threading.Event()

    def listen():
        with contextlib.closing(wire.listen(closing)) as changes:
            for change in islice(changes, 2):
                heard.append(change)
                subscribed.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert subscribed.wait(20)
    assert wire.changes() is None
    wire.call("read", "api", "a")
    assert wire.changes() is None
    view = opened(wire)
    assert wire.changes() == b"1"
    listener.join(20)
    closing.set()
    assert heard[0] is None
    name, published = heard[1]
    assert (name, published.version, published.state) == ("api", view.version, "open")


@pytest.mark.parametrize("name", ["{a}b", "a\u00e7\u00e3o", "tenants[a%2Fb]", 'quo"te'])
def test_names_keep_apart_and_come_back(wire, name):
    """Whatever characters a name has, its record is its own."""
    wire.call("set", name, "a", "disabled")
    assert wire.call("read", name, "a").mode == "disabled"
    assert wire.call("read", name + "x", "a").mode == "auto"
