"""The pairing invariant: whatever happens in whatever order, a reply reaches the caller of its own command."""

import asyncio
from types import SimpleNamespace

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.redis._coalesce import Collector
from isp_perf.redis._entry import LinkLostError
from isp_perf.redis._link import Link
from isp_perf.redis._stats import LaneStats

_INCOMPLETE = object()

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5)),
        st.tuples(st.just("many"), st.integers(1, 5)),
        st.tuples(st.just("get"), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("reply"), st.integers(1, 40)),
        st.tuples(st.just("push"), st.just(0)),
        st.tuples(st.just("pause"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
    ),
    max_size=60,
)


class EchoServer:
    """A model of the server: answers every command it was written with the command's own arguments, in order."""

    def __init__(self):
        self.reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self.answers = bytearray()
        self.pushes = b">2\r\n+invalidate\r\n*0\r\n"

    # the transport a link writes to
    def write(self, data):
        self.reader.feed(data)
        while (command := self.reader.gets()) is not _INCOMPLETE:
            name, *arguments = command
            if name == b"FAIL":
                self.answers += b"-ERR %b\r\n" % arguments[0]
            elif name == b"MGET":
                self.answers += b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))
            else:
                self.answers += bulk(arguments[0])

    def abort(self):
        pass

    def set_protocol(self, protocol):
        pass

    def set_write_buffer_limits(self, high):
        pass


def receive(link, data):
    """Hand bytes to a link as its transport does."""
    while data:
        buffer = link.get_buffer(-1)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        link.buffer_updated(size)
        data = data[size:]


def bulk(value):
    """Return a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Model:
    """A link, its server, and what each caller must get."""

    def __init__(self, limit):
        self.server = EchoServer()
        self.link = Link(
            SimpleNamespace(_writer=SimpleNamespace(transport=self.server), _reader=None),
            timeout=60.0,
            in_flight=limit,
            reject=False,
            stats=LaneStats(),
            on_lost=lambda _link: None,
        )
        self.collector = Collector(self.link)
        self.expected = []
        self.number = 0

    def word(self):
        self.number += 1
        return b"w%d" % self.number

    async def step(self, kind, n):
        await getattr(self, f"do_{kind}")(n)

    async def do_send(self, n):
        word = self.word()
        name = "FAIL" if n == 0 else "ECHO"
        self.expected.append((self.link.send(hiredis.pack_command((name, word))), n != 0, word))

    async def do_many(self, n):
        words = [self.word() for _ in range(n)]
        future = self.link.send_many([hiredis.pack_command(("ECHO", word)) for word in words])
        self.expected.append((future, True, words))

    async def do_get(self, n):
        self.expected.append((self.collector.get(f"key{n}"), True, b"key%d" % n))

    async def do_cancel(self, n):
        if self.expected:
            self.expected[n % len(self.expected)][0].cancel()

    async def do_tick(self, _n):
        await asyncio.sleep(0)

    async def do_reply(self, n):
        data = bytes(self.server.answers[:n])
        del self.server.answers[:n]
        if data:
            receive(self.link, data)

    async def do_push(self, _n):
        if not self.server.answers:  # between replies, never inside one
            self.server.answers += self.server.pushes

    async def do_pause(self, _n):
        self.link.pause_writing()

    async def do_resume(self, _n):
        self.link.resume_writing()

    async def drain(self):
        self.link.resume_writing()
        for _ in range(1_000):
            await asyncio.sleep(0)
            await self.do_reply(1 << 20)
            if all(future.done() for future, _, _ in self.expected):
                return
        raise AssertionError("somebody was forgotten")

    def check(self):
        for future, good, word in self.expected:
            if future.cancelled():
                continue
            error = future.exception()
            if good:
                assert error is None
                assert future.result() == word
            else:
                assert word.decode() in str(error)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 8))
def test_every_reply_reaches_its_own_caller(steps, limit):
    """Sends, batches, joined reads, cancellations, pauses and replies in any fragments never shift a reply."""

    async def run():
        model = Model(limit)
        for kind, n in steps:
            await model.step(kind, n)
        await model.drain()
        model.check()
        model.link.fail(None)

    asyncio.run(run())


@settings(max_examples=75, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 8))
def test_when_the_link_ends_everybody_is_told(steps, limit):
    """No caller is left waiting, and whoever had a complete reply keeps it."""

    async def run():
        model = Model(limit)
        for kind, n in steps:
            await model.step(kind, n)
        model.link.connection_lost(None)
        for future, good, word in model.expected:
            assert future.done()
            if future.cancelled():
                continue
            error = future.exception()
            if error is None:
                got = (
                    [reply for reply in future.result() if not isinstance(reply, LinkLostError)]
                    if isinstance(word, list)
                    else future.result()
                )
                assert got == (word[: len(got)] if isinstance(word, list) else word)
            else:
                assert isinstance(error, LinkLostError) or not good

    asyncio.run(run())
