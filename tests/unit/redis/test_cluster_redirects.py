"""Redirections answered with a fake cluster: once, elsewhere, later, and never for longer than the timeout."""

import asyncio
from types import SimpleNamespace

import pytest
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from isp_perf._core.slots import SLOTS, key_slot
from isp_perf._runtime.drive import drive
from isp_perf.errors import ConfigurationError, MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis import RedisSettings, _redirects
from isp_perf.redis._cluster import Cluster, owners_in
from isp_perf.redis._config import Address
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._redirects import Call, Ways, again, groups, joined, one_key

SETTINGS = RedisSettings(nodes="a:1,b:2,c:3")
A, B, C = SETTINGS.target.addresses
INCR = ("INCR", "k")
SLOT = key_slot(b"k")


class Fake:
    """Nodes that answer from a script, a clock that only pauses move, and a record of what happened."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        self.now = 0.0
        self.log = []
        self.cluster = Cluster(SETTINGS, SETTINGS.target, make=lambda _: None)
        self.cluster.owners = [A] * SLOTS
        self.then = None
        monkeypatch.setattr(_redirects, "monotonic", lambda: self.now)

    def next(self):
        """Return the next answer; the last one is repeated for ever."""
        self.now += 0.001
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RemoteError):
            raise answer
        return answer

    def send(self, address, args):
        """Send one command."""
        self.log.append((address, args))
        return [self.next()]

    def unit(self, address, commands):
        """Send commands in one piece."""
        self.log.append((address, *commands))
        return [b"OK", self.next()]

    def pause(self, seconds):
        """Let time pass."""
        self.now += seconds

    def refresh(self):
        """Learn the map."""
        self.log.append("map")
        if self.then is not None:
            self.cluster.owners = [self.then] * SLOTS

    def outcome(self, error, *, harmless=False):
        """Return what becomes of INCR after an error."""
        ways = Ways(self.send, self.unit, self.pause, self.refresh)
        return drive(again(self.cluster, ways, Call(INCR, "k", 0.0, harmless), error=error))


def moved(address):
    """Return MOVED to a node."""
    return MovedError(f"{SLOT} {address.host}:{address.port}")


def test_moved_is_followed_and_remembered(monkeypatch):
    """The command goes to the node that was named, once, and the slot is known there from then on."""
    fake = Fake(monkeypatch, 7)
    assert fake.outcome(moved(B)) == 7
    assert fake.log == [(B, INCR)]
    assert fake.cluster.owner_of("k") == B
    assert fake.cluster.owner_of("other") == A


def test_nodes_that_send_each_other_the_command_end_in_time(monkeypatch):
    """A loop of MOVED answers ends with the timeout, and the answer is the server's own error."""
    fake = Fake(monkeypatch, moved(B), moved(C), moved(B))
    assert isinstance(fake.outcome(moved(C)), MovedError)
    assert SETTINGS.timeout <= fake.now < SETTINGS.timeout + 0.01


def test_ask_is_for_one_command_only(monkeypatch):
    """ASKING and the command go out in one piece, and the slot's owner stays who it was."""
    fake = Fake(monkeypatch, 7)
    assert fake.outcome(AskError(f"{SLOT} {B.host}:{B.port}")) == 7
    assert fake.log == [(B, ("ASKING",), INCR)]
    assert fake.cluster.owner_of("k") == A


def test_a_slot_between_two_nodes_is_tried_again(monkeypatch):
    """TRYAGAIN waits and asks the same node, without asking for the map."""
    fake = Fake(monkeypatch, TryAgainError(), 7)
    assert fake.outcome(TryAgainError()) == 7
    assert fake.log == [(A, INCR), (A, INCR)]
    assert fake.now > 0.02


def test_a_cluster_that_is_down_is_asked_for_its_map(monkeypatch):
    """CLUSTERDOWN waits, learns the map and goes to the new owner."""
    fake = Fake(monkeypatch, 7)
    fake.then = C
    assert fake.outcome(ClusterDownError("down")) == 7
    assert fake.log == ["map", (C, INCR)]


def test_a_dead_node_is_replaced_by_its_successor(monkeypatch):
    """What was not sent is sent to whoever serves the slot by then."""
    fake = Fake(monkeypatch, LostNotSentError("gone", 0.0), 7)
    fake.then = B
    assert fake.outcome(LostNotSentError("gone", 0.0)) == 7
    assert fake.log == ["map", (B, INCR), "map", (B, INCR)]


def test_a_dead_node_without_successor_is_not_sent(monkeypatch):
    """It ends with the timeout, and says that nothing was executed."""
    fake = Fake(monkeypatch, LostNotSentError("gone", 0.0))
    with pytest.raises(NotSentError, match="gone"):
        fake.outcome(LostNotSentError("gone", 0.0))
    assert fake.now < SETTINGS.timeout + 0.05


def test_what_may_have_run_is_repeated_only_if_that_does_no_harm(monkeypatch):
    """A read whose answer was lost is repeated at the new owner; a write is not."""
    lost = MaybeExecutedError("lost")
    fake = Fake(monkeypatch, lost, 7)
    fake.then = B
    assert fake.outcome(LostNotSentError("gone", 0.0), harmless=True) == 7
    fake = Fake(monkeypatch, lost, 7)
    with pytest.raises(MaybeExecutedError):
        fake.outcome(LostNotSentError("gone", 0.0))
    assert len(fake.log) == 2
    with pytest.raises(MaybeExecutedError):
        fake.outcome(lost)


def test_an_error_of_the_command_itself_is_its_answer(monkeypatch):
    """WRONGTYPE and its like are not repeated."""
    fake = Fake(monkeypatch, ResponseError("WRONGTYPE"))
    assert isinstance(fake.outcome(moved(B)), ResponseError)
    assert len(fake.log) == 1


def test_a_call_whose_time_is_over_is_not_repeated(monkeypatch):
    """The time counts from the beginning of the call."""
    fake = Fake(monkeypatch, 7)
    fake.now = SETTINGS.timeout
    assert isinstance(fake.outcome(moved(B)), MovedError)
    assert fake.log == []


def test_commands_are_grouped_by_node_and_units_need_one_slot():
    """Commands without a key go to the first node; a transaction over several slots is refused."""
    cluster = Cluster(SETTINGS, SETTINGS.target, make=lambda _: None)
    cluster.owners = [A] * 8192 + [B] * 8192
    keys = ["a", None, "b", "c"]
    found = groups(cluster, keys)
    assert sorted(i for group in found.values() for i in group) == [0, 1, 2, 3]
    assert 1 in found[A]
    assert one_key([("INCR", "{x}1"), ("PING",), ("INCR", "{x}2")], lambda name: (name,)) in {"{x}1", "{x}2"}
    assert one_key([("PING",)], lambda name: (name,)) is None
    with pytest.raises(ConfigurationError):
        one_key([("INCR", "a"), ("INCR", "b")], lambda name: (name,))
    cluster.owners = [None] * SLOTS
    with pytest.raises(NotSentError):
        groups(cluster, ["a"])


def test_replies_of_all_nodes_become_one():
    """Counts are added, keys are put together, and an error of one node is the answer."""
    assert joined("DBSIZE", [1, 2, 3]) == 6
    assert joined("KEYS", [[b"a"], [], [b"b"]]) == [b"a", b"b"]
    assert joined("FLUSHALL", [b"OK", b"OK"]) == b"OK"
    assert isinstance(joined("DBSIZE", [1, ResponseError("no")]), ResponseError)


MAP = [[0, 8191, [b"", 1, b"id"]], [8192, 16383, [b"b", 2, b"id"], [b"r", 4, b"id"]]]


def test_a_node_that_does_not_know_its_name_has_the_one_it_was_asked_by():
    """Every slot gets its primary; replicas are not taken for it."""
    owners = owners_in(MAP, A)
    assert (owners[0], owners[8191], owners[8192], owners[-1]) == (A, A, B, B)


class Asked:
    """Pools whose nodes tell the map after a moment."""

    def __init__(self, reply):
        self.reply = reply
        self.questions = 0
        self.states = SimpleNamespace(present=lambda: None)

    def client(self):
        """Return the client."""
        return self

    async def run_raw(self, commands, *, within):
        """Answer the question for the map."""
        assert (commands, within > 0) == ([("CLUSTER SLOTS",)], True)
        self.questions += 1
        await asyncio.sleep(0)
        return [self.reply]


async def test_callers_of_one_moment_share_the_question_for_the_map():
    """A hundred callers ask once, and a cancelled one takes the answer from nobody."""
    pool = Asked(MAP)
    cluster = Cluster(SETTINGS, SETTINGS.target, make=lambda _: pool)
    tasks = [asyncio.create_task(cluster.owner("k")) for _ in range(100)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    owners = await asyncio.gather(*tasks[1:])
    assert set(owners) == {A if SLOT < 8192 else B}
    assert pool.questions == 1
    assert tasks[0].cancelled()


async def test_the_next_node_is_asked_where_one_does_not_tell():
    """An error of the first seed leads to the second; when none tells, nothing was sent."""
    pools = {1: Asked(ResponseError("no cluster")), 2: Asked(MAP), 3: Asked(MAP)}

    def make(settings):
        return pools[settings.target.addresses[0].port]

    cluster = Cluster(SETTINGS, SETTINGS.target, make=make)
    assert await cluster.primaries() == [Address("b", 1), B]
    assert [pool.questions for pool in pools.values()] == [1, 1, 0]
    broken = Cluster(SETTINGS, SETTINGS.target, make=lambda _: Asked(LostNotSentError("gone", 0.0)))
    with pytest.raises(NotSentError, match="no node tells"):
        await broken.refresh()
