"""The link alone, over a transport that records: pairing, cancelling, deadlines, limits."""

import asyncio
from types import SimpleNamespace

import pytest
from redis.exceptions import ResponseError

from isp_perf.errors import BulkheadFullError, PoolBusyError
from isp_perf.redis._entry import LinkLostError, VetoedError
from isp_perf.redis._link import Link
from isp_perf.redis._stats import LaneStats
from isp_perf.testing import ManualClock


class Transport:
    """Records what is written; never answers by itself."""

    def __init__(self):
        self.written = []
        self.aborted = False

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high):
        self.high = high


def receive(link, data):
    """Hand bytes to a link as its transport does."""
    while data:
        buffer = link.get_buffer(-1)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        link.buffer_updated(size)
        data = data[size:]


def make(**options):
    """Return a link and its transport."""
    transport = Transport()
    lost = []
    link = Link(
        SimpleNamespace(_writer=SimpleNamespace(transport=transport), _reader=None),
        timeout=options.pop("timeout", 5.0),
        in_flight=options.pop("in_flight", 1000),
        reject=options.pop("reject", False),
        stats=LaneStats(),
        on_lost=lost.append,
        **options,
    )
    return link, transport, lost


@pytest.fixture
async def clock(monkeypatch):
    """The clock of the event loop, which stands still until it is advanced."""
    clock = ManualClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


async def ticks():
    """Let the loop do everything that is due, and what follows from it."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_idle_link_writes_at_once_and_a_busy_one_once_per_tick():
    """One caller waits for no tick; many callers share one write."""
    link, transport, _ = make()
    first = link.send(b"1")
    assert transport.written == [b"1"]
    rest = [link.send(b"%d" % i) for i in range(2, 5)]
    await asyncio.sleep(0)
    assert transport.written == [b"1", b"234"]
    receive(link, b"+1\r\n+2\r\n+3\r\n+4\r\n")
    assert await asyncio.gather(first, *rest) == [b"1", b"2", b"3", b"4"]


async def test_replies_in_single_bytes_are_paired_in_order():
    """Every border between two reads may fall inside a reply."""
    link, _, _ = make()
    waiting = [link.send(b"x") for _ in range(3)]
    await asyncio.sleep(0)
    for byte in b"$3\r\nabc\r\n*2\r\n:1\r\n$-1\r\n-ERR no\r\n":
        receive(link, bytes([byte]))
    assert await waiting[0] == b"abc"
    assert await waiting[1] == [1, None]
    with pytest.raises(ResponseError):
        await waiting[2]


async def test_a_caller_cancelled_before_the_write_sends_nothing():
    """Its bytes are dropped, and nobody else's reply shifts."""
    link, transport, _ = make()
    first, second, third = link.send(b"1"), link.send(b"2"), link.send(b"3")
    second.cancel()
    await asyncio.sleep(0)
    assert transport.written == [b"1", b"3"]
    receive(link, b"+1\r\n+3\r\n")
    assert (await first, await third) == (b"1", b"3")


async def test_a_caller_cancelled_after_the_write_costs_no_connection():
    """Its reply is read and dropped in order."""
    link, transport, lost = make()
    first = link.send(b"1")
    second = link.send(b"2")
    await asyncio.sleep(0)
    first.cancel()
    receive(link, b"+1\r\n+2\r\n")
    assert await second == b"2"
    assert not transport.aborted
    assert not lost


async def test_a_push_takes_nobodys_reply():
    """RESP3 pushes are read past."""
    link, _, _ = make()
    reply = link.send(b"1")
    receive(link, b">2\r\n+invalidate\r\n*0\r\n+1\r\n")
    assert await reply == b"1"


@pytest.mark.parametrize("noise", [b"+unasked\r\n", b"?garbage\r\n"])
async def test_what_cannot_be_paired_ends_the_link(noise):
    """An unasked or malformed reply must never reach a caller."""
    link, transport, lost = make()
    receive(link, noise)
    assert transport.aborted
    assert lost == [link]


async def test_the_end_tells_written_from_unwritten():
    """Every entry learns whether its command was handed to the transport."""
    link, _, _ = make()
    written = link.send(b"1")
    unwritten = link.send(b"2")
    link.connection_lost(None)
    for entry, expected in ((written, True), (unwritten, False)):
        with pytest.raises(LinkLostError) as caught:
            await entry
        assert caught.value.written is expected


async def test_a_silent_link_is_ended_by_its_timer(clock):
    """When nothing is heard for the timeout, every entry fails and the link is dead."""
    link, transport, lost = make(timeout=2.0)
    reply = link.send(b"1")
    clock.advance(1.9)
    await ticks()
    assert not reply.done()
    clock.advance(0.1)
    await ticks()
    with pytest.raises(LinkLostError) as caught:
        reply.result()
    assert caught.value.written
    assert caught.value.timeout == "server"
    assert transport.aborted
    assert lost == [link]


async def test_a_loop_that_was_blocked_looks_again_before_it_blames(clock):
    """What came while our own loop was late is read first; what did not come is the client's timeout then."""
    link, _, _ = make(timeout=2.0)
    first = link.send(b"1")
    clock.advance(5.0)
    await ticks()
    assert not first.done()
    receive(link, b"+1\r\n")
    assert await first == b"1"
    second = link.send(b"2")
    clock.advance(5.0)
    await ticks()
    clock.advance(0.001)
    await ticks()
    with pytest.raises(LinkLostError) as caught:
        second.result()
    assert caught.value.timeout == "client"


async def test_a_slow_answer_ends_its_caller_and_not_the_link(clock):
    """While bytes arrive the link is alive; only the overdue caller's wait ends, and its reply is dropped later."""
    link, transport, _ = make(timeout=2.0)
    slow = link.send(b"1")
    clock.advance(1.5)
    receive(link, b"$5\r\nab")
    clock.advance(0.5)
    await ticks()
    with pytest.raises(LinkLostError):
        slow.result()
    assert not transport.aborted
    neighbour = link.send(b"2")
    await asyncio.sleep(0)
    receive(link, b"cde\r\n+2\r\n")
    assert await neighbour == b"2"
    assert link.stats.discarded_replies == 1


async def test_above_the_limit_commands_wait_in_order():
    """At most in_flight commands are unanswered; the next one is written when one is answered."""
    link, transport, _ = make(in_flight=2)
    waiting = [link.send(b"%d" % i) for i in range(4)]
    await asyncio.sleep(0)
    assert b"".join(transport.written) == b"01"
    assert link.busy
    waiting[2].cancel()
    receive(link, b"+0\r\n+1\r\n")
    assert b"".join(transport.written) == b"013"
    receive(link, b"+3\r\n")
    assert await waiting[3] == b"3"


async def test_a_command_that_waited_too_long_was_surely_not_sent(clock):
    """An entry whose deadline ends in the queue is dropped from it."""
    link, transport, _ = make(in_flight=1, timeout=2.0)
    first = link.send(b"1")
    second = link.send(b"2")
    await ticks()
    clock.advance(1.5)
    receive(link, b"$4\r\nab")
    clock.advance(0.5)
    await ticks()
    with pytest.raises(LinkLostError) as caught:
        second.result()
    assert not caught.value.written
    assert caught.value.timeout == "queue"
    first.exception()
    receive(link, b"cd\r\n")
    assert transport.written == [b"1"]


async def test_overflow_error_refuses_at_once():
    """With reject the caller above the limit is told immediately."""
    link, _, _ = make(in_flight=1, reject=True)
    link.send(b"1").add_done_callback(lambda _: None)
    with pytest.raises(PoolBusyError):
        link.send(b"2")


async def test_a_full_transport_holds_commands_back():
    """While the transport is full nothing more is written; afterwards everything is, in order."""
    link, transport, _ = make()
    first = link.send(b"1")
    link.pause_writing()
    second = link.send(b"2")
    await asyncio.sleep(0)
    assert transport.written == [b"1"]
    link.resume_writing()
    assert transport.written == [b"1", b"2"]
    receive(link, b"+1\r\n+2\r\n")
    assert (await first, await second) == (b"1", b"2")


async def test_a_batch_collects_values_and_errors_in_order():
    """Many commands are one wait; an error stands in its place."""
    link, transport, _ = make()
    batch = link.send_many([b"%d" % i for i in range(3)])
    assert transport.written == [b"012"]
    receive(link, b"+a\r\n-ERR b\r\n+c\r\n")
    first, second, third = await batch
    assert (first, third) == (b"a", b"c")
    assert isinstance(second, ResponseError)
    assert await link.send_many([]) == []


async def test_a_large_batch_is_written_in_chunks():
    """The server starts on the first commands while the rest is on its way."""
    link, transport, _ = make(in_flight=10_000)
    batch = link.send_many([b"x"] * 600)
    assert [len(data) for data in transport.written] == [256, 256, 88]
    receive(link, b"+\r\n" * 600)
    assert len(await batch) == 600


async def test_a_half_sent_batch_tells_its_parts_apart():
    """When the link ends, the sent part may have been executed and the rest surely was not."""
    link, _, _ = make(in_flight=2)
    batch = link.send_many([b"x"] * 5)
    receive(link, b"+1\r\n")
    link.connection_lost(None)
    replies = await batch
    assert replies[0] == b"1"
    assert [reply.written for reply in replies[1:]] == [True, True, False, False]


async def test_a_push_handler_hears_pushes_in_the_order_of_the_wire():
    """A push that came before a reply is handed over before the reply, and takes nobody's place."""
    heard = []
    link, _, _ = make(on_push=heard.append)
    reply = link.send(b"1")
    reply.add_done_callback(lambda done: heard.append(done.result()))
    receive(link, b">2\r\n+invalidate\r\n*1\r\n+k\r\n+1\r\n>2\r\n+invalidate\r\n*-1\r\n")
    assert heard == [[b"invalidate", [b"k"]], [b"invalidate", None]]
    await asyncio.sleep(0)
    assert heard[2:] == [b"1"]


async def test_a_push_handler_that_raises_ends_the_link():
    """A push that was not dealt with is as good as lost, so nothing after it may be trusted."""

    def fail(_push):
        raise RuntimeError("no")

    link, transport, lost = make(on_push=fail)
    reply = link.send(b"1")
    receive(link, b">2\r\n+invalidate\r\n*0\r\n+1\r\n")
    with pytest.raises(LinkLostError):
        await reply
    assert transport.aborted
    assert lost == [link]


async def test_after_commands_that_came_together_the_next_one_waits_for_its_tick():
    """The first of the next burst is not written alone; after three lone commands they are written at once again."""
    link, transport, _ = make()
    waiting = [link.send(b"%d" % i) for i in range(3)]
    await asyncio.sleep(0)
    receive(link, b"+0\r\n+1\r\n+2\r\n")
    await asyncio.gather(*waiting)
    transport.written.clear()
    for number in range(3):
        reply = link.send(b"a")
        assert len(transport.written) == number
        await asyncio.sleep(0)
        receive(link, b"+a\r\n")
        await reply
    link.send(b"b").cancel()
    assert transport.written[-1] == b"b"


async def test_a_reply_that_takes_more_than_one_read_is_large():
    """Who gets it may see so; the next read resets the mark."""
    link, _, _ = make()
    big, small = link.send(b"1"), link.send(b"2")
    await asyncio.sleep(0)
    receive(link, b"$200000\r\n" + b"x" * 200_000 + b"\r\n")
    assert link.large
    assert len(await big) == 200_000
    receive(link, b"+2\r\n")
    assert not link.large
    assert await small == b"2"
    assert link.stats.large_replies == 1


class Guard:
    """Records what it hears; rejects while shut."""

    def __init__(self):
        self.heard = []
        self.shut = False

    def before(self):
        if self.shut:
            raise BulkheadFullError("test", 7.0)
        self.heard.append("before")

    def success(self):
        self.heard.append("success")

    def failure(self, error):
        self.heard.append(type(error).__name__)


async def test_a_guard_is_asked_once_per_write_and_hears_how_it_ended():
    """Commands of one tick are one write for it; an error reply is a success, a lost link a failure."""
    guard = Guard()
    link, _, _ = make(guard=guard)
    first = link.send(b"1")
    rest = [link.send(b"2") for _ in range(5)]
    await asyncio.sleep(0)
    receive(link, b"+1\r\n+2\r\n")
    assert guard.heard == ["before", "before", "success"]
    receive(link, b"-ERR no\r\n" + b"+2\r\n" * 3)
    assert guard.heard[3:] == ["success"]
    await asyncio.gather(first, *rest, return_exceptions=True)
    last = link.send(b"3")
    await asyncio.sleep(0)
    link.connection_lost(None)
    assert guard.heard[4:] == ["before", "ConnectionResetError"]
    with pytest.raises(LinkLostError):
        await last


async def test_a_guard_hears_of_overdue_answers(clock):
    """A caller whose time is over on a living link is a failure, too."""
    guard = Guard()
    link, _, _ = make(guard=guard, timeout=2.0)
    slow = link.send(b"1")
    clock.advance(1.5)
    receive(link, b"$5\r\nab")
    clock.advance(0.5)
    await ticks()
    with pytest.raises(LinkLostError):
        slow.result()
    assert guard.heard == ["before", "TimeoutError"]


async def test_what_a_guard_rejects_is_not_written():
    """Everybody of the write is told, nothing was sent, and the link goes on."""
    guard = Guard()
    link, transport, _ = make(guard=guard)
    guard.shut = True
    waiting = [link.send(b"1"), link.send(b"2"), link.send_many([b"3", b"4"])]
    outcomes = await asyncio.gather(*waiting[:2], return_exceptions=True)
    assert all(isinstance(outcome, VetoedError) and not outcome.written for outcome in outcomes)
    assert all(isinstance(reply, VetoedError) for reply in await waiting[2])
    assert transport.written == []
    guard.shut = False
    reply = link.send(b"5")
    await asyncio.sleep(0)
    receive(link, b"+5\r\n")
    assert await reply == b"5"
