"""One sampler for all viewers: shared bytes, changed figures only, and nothing left running."""

import asyncio
import gc
import json
import threading

import pytest

from isp_perf.metrics import MetricRegistry
from isp_perf.metrics._http import HttpMetrics
from isp_perf.ops import _live, _viewer
from isp_perf.ops._live import Live
from isp_perf.ops._viewer import stream


class Service:
    """A registry that counts how often it is read."""

    def __init__(self):
        self.registry = MetricRegistry()
        self.metrics = HttpMetrics(self.registry)
        self.reads = 0
        self.fails = False
        self.read = threading.Semaphore(0)

    def collect(self):
        self.reads += 1
        self.read.release()
        if self.fails:
            raise OSError("secret")
        return self.registry.collect("worker")

    def request(self, route="/"):
        cells = self.metrics.cells("GET", route, 200)
        cells.requests.n += 1
        cells.duration.observe(0.01)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def live(service):
    return Live(service.collect, lambda: {"total_conversations": 3})


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(_live, "_FASTEST", 0.01)
    monkeypatch.setattr(_live, "_SHARE", 1.0)


async def test_all_who_ask_at_once_share_one_reading(service, live):
    """A hundred requests within a second cost one reading, and get the same bytes."""
    frames = await asyncio.gather(*(live.frame() for _ in range(100)))
    assert service.reads == 1
    assert {id(frame.page) for frame in frames} == {id(frames[0].page)}
    assert b"1,500" not in frames[0].page


async def test_a_viewer_gets_what_changed_since_its_last_frame(service, live, monkeypatch):
    """Who has the frame gets nothing, who has the one before gets the changed figures, everybody else all cards."""
    monkeypatch.setattr(_live, "_FRESH", 0.0)
    service.request()
    first = await live.frame()
    service.request()
    second = await live.frame()
    assert second.event(second.ident) == b""
    delta = json.loads(second.event(first.ident).split(b"data: ")[1])
    assert delta["cells"]["ro0-4"] == "2"
    assert "cards" not in delta
    full = json.loads(second.event("other.7").split(b"data: ")[1])
    assert set(full) == {"cards"}
    assert len(second.event(first.ident)) < len(second.event(None)) / 5
    service.request("/new")
    third = await live.frame()
    assert set(json.loads(third.event(second.ident).split(b"data: ")[1])["cards"]) == {"routes"}


async def test_viewers_get_frames_and_nothing_runs_when_they_left(service, live, fast):
    """While somebody watches frames come by themselves; without a start, sampling ends with the last viewer."""
    with live.watched(), live.watched():
        assert live.viewers == 2
        before = service.reads
        for _ in range(3):
            await asyncio.wait_for(live.tick(), 5)
        assert service.reads >= before + 3
    assert live.viewers == 0
    await asyncio.sleep(0.05)
    reads = service.reads
    await asyncio.sleep(0.05)
    assert service.reads <= reads + 1
    assert live._task is None or live._task.done()


async def test_started_it_remembers_also_unwatched(service, live, monkeypatch):
    """After a start samples are taken though nobody looks, until it is closed."""
    monkeypatch.setattr(_live, "_UNWATCHED", 0.01)
    live.start()
    for _ in range(3):
        assert await asyncio.to_thread(service.read.acquire, timeout=5)
    await live.aclose()
    reads = service.reads
    await asyncio.sleep(0.03)
    assert service.reads == reads


async def test_who_asks_for_the_latest_never_waits(service, live, monkeypatch):
    """Once started, the latest frame is answered at once, and an old one is drawn anew behind the answer's back."""
    monkeypatch.setattr(_live, "_FRESH", 0.0)
    assert (await live.recent()).number == 0
    live.start()
    await live.tick()
    before = service.reads
    latest = await live.recent()
    assert service.reads == before
    while (await live.tick()).number <= latest.number:
        pass
    assert service.reads > before
    await live.aclose()


async def test_a_reading_that_fails_is_logged_and_tried_again(service, live, fast, caplog):
    """Sampling survives an error, says its kind but not its text, and goes on when reading works again."""
    await live.frame()
    service.fails = True
    with live.watched():
        while service.reads < 3:
            await asyncio.wait_for(live.tick(), 5)
        assert "OSError" in caplog.text
        assert "secret" not in caplog.text
        service.fails = False
        frame = await asyncio.wait_for(live.tick(), 5)
        while frame.number == 0:
            frame = await asyncio.wait_for(live.tick(), 5)


async def test_drawing_never_takes_more_than_its_share(live):
    """The dearer drawing and sending were, the longer the pause; from four a second to one in two seconds."""
    live._viewers, live._drawing_cost, live._sending_cost = 1, 0.0009, 0.0
    assert live._pause() == 0.25
    live._sending_cost = 0.0036
    assert live._pause() == pytest.approx(0.5)
    live._drawing_cost = 1.0
    assert live._pause() == 2.0


async def test_what_sending_costs_is_measured(live, fast):
    """What viewers do with a frame in the same turn of the event loop counts as the price of sending it."""

    async def watch():
        with live.watched():
            for _ in range(3):
                await live.tick()
                sum(range(100_000))

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)  # it watches from now on: there are frames to wait for
    while not live._sending_cost > 100e-6:
        await asyncio.wait_for(live.tick(), 20)
    await watching
    await live.aclose()


async def test_a_caller_who_is_cancelled_while_it_closes_the_figures_stays_cancelled(live):
    """Closing swallows the end of the sampling task, not a cancellation of whoever closes it."""
    live.start()
    await live.frame()
    closing = asyncio.create_task(live.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await live.aclose()


def a_scope(**more):
    return {"type": "http", "method": "GET", "headers": [], "query_string": b"", **more}


class Client:
    """One viewer's end of the connection."""

    def __init__(self):
        self.sent = []
        self.left, self.fed = asyncio.Event(), asyncio.Event()

    async def send(self, message):
        self.sent.append(message)
        if len(self.sent) > 1:
            self.fed.set()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_a_stream_ends_by_itself_and_asks_to_be_asked_again(live, fast, monkeypatch):
    """Where the server does not tell its end a stream lasts some seconds, so that it can; then it says `again`."""
    monkeypatch.setattr(_viewer, "server_ending", lambda: None)
    monkeypatch.setattr(_viewer, "_LASTS_UNTOLD", 0.1)
    client = Client()
    await asyncio.wait_for(stream(live, a_scope(), client.receive, send=client.send), 5)
    assert client.sent[0]["status"] == 200
    assert client.body.startswith(b"retry: 2000\nid: ")
    assert client.body.endswith(b"event: again\ndata: {}\n\n")
    assert client.sent[-1].get("more_body", False) is False
    headers = dict(client.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"no-transform" in headers[b"cache-control"]


async def test_a_stream_ends_with_its_server(live, fast, monkeypatch):
    """A server that tells its end is not kept: the stream says `again` with the next frame."""
    ending = []
    monkeypatch.setattr(_viewer, "server_ending", lambda: lambda: bool(ending))
    client = Client()
    running = asyncio.create_task(stream(live, a_scope(), client.receive, send=client.send))
    await asyncio.wait_for(client.fed.wait(), 20)
    assert not running.done()
    ending.append(True)
    await asyncio.wait_for(running, 20)
    assert client.body.endswith(b"event: again\ndata: {}\n\n")


async def test_a_viewer_that_leaves_is_let_go(live, fast):
    """A disconnect ends the stream with the next frame, and no task of it is left."""
    client = Client()
    running = asyncio.create_task(stream(live, a_scope(), client.receive, send=client.send))
    await asyncio.wait_for(client.fed.wait(), 5)
    client.left.set()
    await asyncio.wait_for(running, 5)
    assert live.viewers == 0
    await live.aclose()
    gc.collect()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_who_comes_back_gets_what_is_missing(live, fast):
    """A viewer that names its last frame, by header or in the query, is not sent what it has."""
    frame = await live.frame()
    for asked in (
        a_scope(headers=[(b"last-event-id", frame.ident.encode())]),
        a_scope(query_string=f"since={frame.ident}".encode()),
    ):
        client = Client()
        client.left.set()
        await asyncio.wait_for(stream(live, asked, client.receive, send=client.send), 5)
        assert b"cards" not in client.body


async def test_there_is_a_limit_to_viewers(live, monkeypatch):
    """Beyond the limit the answer is 503 with a Retry-After."""
    monkeypatch.setattr(_viewer, "_MOST_VIEWERS", 0)
    client = Client()
    await stream(live, a_scope(), client.receive, send=client.send)
    assert client.sent[0]["status"] == 503
    assert dict(client.sent[0]["headers"])[b"retry-after"] == b"30"


async def test_a_head_request_gets_no_stream(live):
    """HEAD is answered with the headers of the stream and ends."""
    client = Client()
    await asyncio.wait_for(stream(live, a_scope(method="HEAD"), client.receive, send=client.send), 5)
    assert client.body == b""
