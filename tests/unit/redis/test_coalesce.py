"""Concurrent GETs joined into MGETs over a recording transport: order, sharing, cancelling, refusal."""

import asyncio
from types import SimpleNamespace

import pytest
from redis.exceptions import ResponseError

from isp_perf.redis._coalesce import Collector
from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack
from isp_perf.redis._stats import LaneStats


class Transport:
    """Records what is written."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    def abort(self):
        pass

    def set_protocol(self, protocol):
        pass

    def set_write_buffer_limits(self, high):
        pass


@pytest.fixture
async def link():
    """A link that is busy, so that nothing is written through."""
    transport = Transport()
    link = Link(
        SimpleNamespace(_writer=SimpleNamespace(transport=transport), _reader=None),
        timeout=5.0,
        in_flight=1000,
        reject=False,
        stats=LaneStats(),
        on_lost=lambda _link: None,
    )
    link.send(b"").add_done_callback(lambda future: future.exception())
    transport.written.clear()
    yield link
    link.fail(None)


def receive(link, data):
    """Hand bytes to a link as its transport does."""
    while data:
        buffer = link.get_buffer(-1)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        link.buffer_updated(size)
        data = data[size:]


def commands(link):
    """Return everything written since."""
    return b"".join(link.transport.written)


async def test_keys_of_one_tick_are_asked_together_and_once(link):
    """Three callers, two keys, one MGET; an idle link asks by GET at once."""
    collector = Collector(link)
    waiting = [collector.get("a"), collector.get(b"b"), collector.get("a")]
    await asyncio.sleep(0)
    assert commands(link) == pack(("MGET", "a", "b"))
    receive(link, b"+first\r\n*2\r\n$1\r\n1\r\n$-1\r\n")
    assert await asyncio.gather(*waiting) == [b"1", None, b"1"]


async def test_an_idle_link_asks_a_single_key_at_once(link):
    """Nobody waits for a tick where nobody else does; after keys that came together, a single one waits again."""
    receive(link, b"+first\r\n")
    collector = Collector(link)
    collector.get("c").cancel()
    assert commands(link) == pack(("GET", "c"))
    both = [collector.get("d"), collector.get("e")]
    await asyncio.sleep(0)
    receive(link, b"$-1\r\n*2\r\n$-1\r\n$-1\r\n")
    assert await asyncio.gather(*both) == [None, None]
    collector.get("f").add_done_callback(lambda _: None)
    assert commands(link).endswith(pack(("MGET", "d", "e")))
    await asyncio.sleep(0)
    assert commands(link).endswith(pack(("GET", "f")))


async def test_order_is_kept_against_writes(link):
    """A GET before a write is asked before it, one after it after it."""
    collector = Collector(link)
    futures = [collector.get("a"), collector.get("b"), link.send(pack(("SET", "a", 1))), collector.get("a")]
    futures.append(link.send_many([pack(("DEL", "a"))]))
    await asyncio.sleep(0)
    expected = [("MGET", "a", "b"), ("SET", "a", 1), ("GET", "a"), ("DEL", "a")]
    assert commands(link) == b"".join(pack(args) for args in expected)
    for future in futures:
        future.cancel()


async def test_a_key_nobody_waits_for_is_not_asked(link):
    """Each waiter is cancelled alone; a key whose waiters are all gone is left out."""
    collector = Collector(link)
    gone, stays, other, twice = (collector.get(key) for key in ("a", "b", "c", "b"))
    gone.cancel()
    twice.cancel()
    await asyncio.sleep(0)
    assert commands(link) == pack(("MGET", "b", "c"))
    receive(link, b"+first\r\n*2\r\n$1\r\n2\r\n$1\r\n3\r\n")
    assert (await stays, await other) == (b"2", b"3")


async def test_where_mget_is_forbidden_keys_are_asked_singly(link):
    """NOPERM switches joining off, and nobody notices."""
    collector = Collector(link)
    waiting = [collector.get("a"), collector.get("b")]
    await asyncio.sleep(0)
    link.transport.written.clear()
    receive(link, b"+first\r\n-NOPERM no MGET for you\r\n")
    await asyncio.sleep(0)
    assert commands(link) == pack(("GET", "a")) + pack(("GET", "b"))
    receive(link, b"$1\r\n1\r\n$1\r\n2\r\n")
    assert await asyncio.gather(*waiting) == [b"1", b"2"]
    again = [collector.get("a"), collector.get("b")]
    await asyncio.sleep(0)
    assert b"MGET" not in commands(link)
    for future in again:
        future.cancel()


async def test_another_error_reaches_everybody(link):
    """An error reply or the link's end is told to each waiter."""
    collector = Collector(link)
    first = [collector.get("a"), collector.get("b")]
    await asyncio.sleep(0)
    receive(link, b"+first\r\n-ERR broken\r\n")
    assert all(isinstance(each, ResponseError) for each in await asyncio.gather(*first, return_exceptions=True))
    link.send(b"").add_done_callback(lambda future: future.exception())
    second = [collector.get("a"), collector.get("b")]
    await asyncio.sleep(0)
    link.connection_lost(None)
    lost = await asyncio.gather(*second, return_exceptions=True)
    assert all(isinstance(each, LinkLostError) and each.written for each in lost)


async def test_many_keys_are_cut_into_several_commands(link):
    """One MGET asks for at most 512 keys."""
    collector = Collector(link)
    futures = [collector.get(f"k{i}") for i in range(600)]
    await asyncio.sleep(0)
    assert commands(link).count(b"MGET") == 2
    for future in futures:
        future.cancel()
