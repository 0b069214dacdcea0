"""The cache's orders taken apart by slot: nothing is lost, nothing is asked twice, answers find their places."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AskError, MovedError, TryAgainError

from isp_perf._core.slots import SLOTS, key_slot
from isp_perf.errors import NotSentError
from isp_perf.redis._cluster_channel import perform_at, perform_blocking_at
from isp_perf.redis._config import Address
from isp_perf.redis._crew import Crew
from isp_perf.redis._errors import LostNotSentError
from isp_perf.redis._split_orders import pieces, whole_answer
from isp_perf.typing import Answer, Commit, Drop, Identity, Intent, Lease, Ping, Put, Read, Renew

KEYS = st.lists(st.text(max_size=8), max_size=12).map(tuple)
NODES = [Address("node", port) for port in (1, 2, 3)]


def slot(key):
    """Return the slot of a text, lone surrogates included."""
    return key_slot(key.encode("utf-8", "surrogatepass"))


class Stored:
    """A store in memory that carries out orders as one server does."""

    def __init__(self, values):
        self.values = values
        self.seen = []

    def one(self, order):
        """Answer one order."""
        self.seen.append(order)
        if isinstance(order, Read | Lease):
            found = [(self.values.get(key), None if key not in self.values else 1.0) for key in order.keys]
            return Answer(found, [self.values.get(key, b"") for key in order.beside])
        if isinstance(order, Drop):
            return sum(self.values.pop(key, None) is not None for key in order.keys)
        if isinstance(order, Renew):
            return sum(self.values.get(key) == token for key, token in zip(order.keys, order.tokens, strict=True))
        return None


def parts_answered(store, order):
    """Return the answer to an order that was carried out in parts."""
    parts = pieces(order)
    return whole_answer(order, parts, [store.one(part.order) for part in parts])


@given(keys=KEYS, beside=KEYS, stored=st.sets(st.text(max_size=8)))
def test_reads_are_lossless(keys, beside, stored):
    """Reading by slot finds what reading at once finds, in the same places, each key with its own value."""
    store = Stored({key: key.encode("utf-8", "surrogatepass") for key in [*stored, *keys[::2], *beside[::3]]})
    for order in (Read(keys, beside), Lease(keys, beside, b"token", 1.0, b"fresh")):
        assert parts_answered(store, order) == store.one(order)


@given(keys=KEYS.map(lambda keys: tuple(dict.fromkeys(keys))))
def test_counts_are_summed_and_tokens_stay_with_their_keys(keys):
    """Drops and renewals count as at one server, whatever slots their keys have."""
    values = {key: b"%d" % i for i, key in enumerate(keys)}
    renew = Renew(keys, tuple(values.values()), 1.0)
    assert parts_answered(Stored(values), renew) == len(keys)
    assert parts_answered(Stored(dict(values)), Drop(keys)) == len(keys)


@given(keys=KEYS)
def test_every_part_has_keys_of_one_slot(keys):
    """No part would be refused with CROSSSLOT, and together they have every key exactly once."""
    for order in (Drop(keys), Intent(keys, b"writer..", 1.0), Commit(keys, b"writer..")):
        parts = pieces(order)
        assert sorted(key for part in parts for key in part.order.keys) == sorted(keys)
        assert all({slot(key) for key in part.order.keys} == {slot(part.key)} for part in parts)
        assert len({slot(part.key) for part in parts}) == len(parts)


class Map:
    """A map of three nodes whose slots lie in turns; ``follow`` counts how often it was asked for."""

    def __init__(self):
        self.asked = 0
        self.again = 0
        self.crew = Crew()

    def known_primaries(self):
        """Return the nodes."""
        return NODES

    async def primaries(self):
        """Return the nodes."""
        return NODES

    def owner_of(self, key):
        """Return the node of a key."""
        return NODES[slot(key) % 3]

    async def refresh(self):
        """Count a question."""
        self.asked += 1

    def refresh_blocking(self):
        """Count a question."""
        self.asked += 1

    def ask_again(self):
        """Count a question in the background."""
        self.again += 1


class Node:
    """One node of a store; it answers with errors first, one for each call."""

    def __init__(self, address, errors=()):
        self.address = address
        self.errors = list(errors)
        self.calls = 0

    def answers(self, orders):
        """Answer orders, or raise the next error."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return [self.one(order) for order in orders]

    def one(self, order):
        """Answer one order with what names this node."""
        if isinstance(order, Read):
            return Answer([(key.encode(), None) for key in order.keys], [key.encode() for key in order.beside])
        if isinstance(order, Identity):
            return f"id{self.address.port}"
        return order.nonce if isinstance(order, Ping) else True


class Awaited(Node):
    """The same for tasks."""

    async def perform(self, orders, *, within):
        """Answer orders after a turn of the loop."""
        assert within == 1.0
        await asyncio.sleep(0)
        return self.answers(orders)


class Called(Node):
    """The same for threads."""

    def perform(self, orders, *, within):
        """Answer orders."""
        assert within == 1.0
        return self.answers(orders)


ORDERS = [
    Read(tuple(f"k{n}" for n in range(40)), ("v1", "v2", "v3")),
    Identity(),
    Ping(b"nonce"),
    Put("single", b"data", 1.0),
]
WHOLE = [
    Answer([(f"k{n}".encode(), None) for n in range(40)], [b"v1", b"v2", b"v3"]),
    "id1|id2|id3",
    b"nonce",
    True,
]
BETWEEN = LostNotSentError("refused", 0.0)
BETWEEN.__cause__ = TryAgainError()
ERRORS = {
    "moved": MovedError("3999 127.0.0.1:6381"),
    "ask": AskError("3999 127.0.0.1:6381"),
    "between": BETWEEN,
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_orders_of_a_moved_slot_are_carried_out_again(kind):
    """After a redirection the map is asked for, only that node's part is repeated, and the answers are whole."""
    cluster, nodes = Map(), {address: Awaited(address) for address in NODES}
    nodes[NODES[1]].errors = [ERRORS[kind]]
    assert await perform_at(cluster, ORDERS, within=1.0, target=nodes.get) == WHOLE
    assert cluster.asked == 1
    assert nodes[NODES[1]].calls == 2


def test_threads_have_the_same_orders():
    """The twin for threads answers the same, after a redirection too."""
    cluster, nodes = Map(), {address: Called(address) for address in NODES}
    nodes[NODES[0]].errors = [ERRORS["moved"]]
    assert perform_blocking_at(cluster, ORDERS, within=1.0, target=nodes.get) == WHOLE
    assert cluster.asked == 1


async def test_a_slot_that_keeps_moving_is_an_error_in_the_end():
    """After eight attempts the failure says that nothing was sent, and the map is asked for in the background."""
    cluster, nodes = Map(), {address: Awaited(address) for address in NODES}
    nodes[NODES[2]].errors = [ERRORS["ask"]] * 20
    with pytest.raises(NotSentError, match="on their way"):
        await perform_at(cluster, ORDERS, within=1.0, target=nodes.get)
    assert (nodes[NODES[2]].calls, cluster.again) == (8, 1)


async def test_a_node_that_fails_is_told_after_all_others_answered():
    """The error of one node is raised, and no other node's answer is left unread."""
    cluster, nodes = Map(), {address: Awaited(address) for address in NODES}
    nodes[NODES[0]].errors = [LostNotSentError("gone", 0.0)]
    with pytest.raises(NotSentError, match="gone"):
        await perform_at(cluster, ORDERS, within=1.0, target=nodes.get)
    assert [node.calls for node in nodes.values()] == [1, 1, 1]
    assert cluster.again == 1


def test_slots_are_those_of_the_wire():
    """A key with a lone surrogate is taken apart like any other."""
    (piece,) = pieces(Drop(("\ud800",)))
    assert 0 <= slot(piece.key) < SLOTS
