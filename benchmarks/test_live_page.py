"""What viewers of the live page cost a service: `python benchmarks/test_live_page.py [seconds]`.

One worker under a light load, without a viewer and with fifty, in turns; told is the processor time of the worker,
from the kernel's own account (Linux), and how many events each viewer got. The page lowers its rate so that viewers
cost one percent of a core at most: on a busy machine, where everything costs more, it shows fewer than four a second.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from services import SQUARES, Service

VIEWERS = 50
ROUNDS = 5
REQUESTS_PER_SECOND = 20


def spent(pid):
    """Return the seconds of processor time that a process's threads have had."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Viewer:
    """One open page: streams that follow one another, and what came through them."""

    def __init__(self):
        self.events = self.bytes = 0

    async def watch(self, port):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(
                    b"GET /performance/dashboard HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
                )
                event = b""
                while b"event: again" not in event:
                    event = await reader.readuntil(b"\n\n")
                    self.events += b"id: " in event
                    self.bytes += len(event)


async def use(service):
    """Ask the service for pages, so that figures change."""
    for number in range(1_000_000):
        await asyncio.to_thread(service.get, f"/squares/{number % 6}")
        await asyncio.sleep(1 / REQUESTS_PER_SECOND)


async def watched(service, viewers, seconds):
    """Return the share of a core that the worker takes, events per second and viewer, and bytes per event."""
    pages = [Viewer() for _ in range(viewers)]
    tasks = [asyncio.create_task(page.watch(service.port)) for page in pages]
    await asyncio.sleep(2)
    began, before, seen = time.monotonic(), spent(service.process.pid), sum(page.events for page in pages)
    await asyncio.sleep(seconds)
    lasted = time.monotonic() - began
    share = (spent(service.process.pid) - before) / lasted
    events = sum(page.events for page in pages) - seen
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    total = sum(page.events for page in pages)
    return share, events / lasted / max(viewers, 1), sum(page.bytes for page in pages) / max(total, 1)


async def compare(service, seconds):
    """Return per round what viewers added to the share of a core, and what they got."""
    load = asyncio.create_task(use(service))
    rounds = []
    for _ in range(ROUNDS):
        alone, _, _ = await watched(service, 0, seconds)
        together, rate, size = await watched(service, VIEWERS, seconds)
        rounds.append((together - alone, rate, size))
    load.cancel()
    return [statistics.median(figures) for figures in zip(*rounds, strict=True)]


def main(seconds):
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), SQUARES, workers=1)
        try:
            share, rate, size = asyncio.run(compare(service, seconds))
        finally:
            service.stop()
    print(f"{VIEWERS} viewers cost        {100 * share:6.2f} % of a core   limit 1 %")
    print(f"each got               {rate:6.2f} events/s      limit 4 (on an idle machine)")
    print(f"an event is            {size:6.0f} bytes")
    return int(share > 0.01)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
