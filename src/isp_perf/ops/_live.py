"""One sampler for everybody who looks: it draws at most four times a second, and all viewers share the same bytes.

While nobody looks it takes a sample every ten seconds, so that the first look shows the last minutes. While somebody
looks it takes as many as cost about one percent of a core: four a second, down to one in two seconds.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from time import monotonic, thread_time
from typing import Any, Final

from isp_perf._runtime.background import end
from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._history import Checkpoints, History, Today
from isp_perf.ops._page import html_page
from isp_perf.ops._picture import picture
from isp_perf.ops._sections import Draft, draw
from isp_perf.typing import Clock

__all__ = ["Frame", "Live"]

_FRESH: Final = 1.0  # seconds a frame is good for those who do not watch
_FASTEST: Final = 0.25  # seconds between frames while somebody watches
_SLOWEST: Final = 2.0
_UNWATCHED: Final = 10.0  # seconds between frames while nobody does
_SHARE: Final = 0.009  # of one core for what is measured; with what is not it stays near one percent
_log = logging.getLogger("isp_perf.ops")


class Frame:
    """The service at one moment, drawn once.

    Args:
        picture: the figures.
        draft: what was drawn of them.
        before: the frame before.
        token: names the sampler, as frames of different workers must not be mixed.
        one_worker: the figures are of one worker.
    """

    picture: Mapping[str, Any]
    draft: Draft
    ident: str

    def __init__(
        self, picture: Mapping[str, Any], draft: Draft, *, before: "Frame | None", token: str, one_worker: bool
    ) -> None:
        self.picture = picture
        self.draft = draft
        self.number: int = 0 if before is None else before.number + 1
        self.ident = f"{token}.{self.number}"
        self._one_worker = one_worker
        self._previous = None if before is None else before.ident
        self._delta = b"" if before is None else self._event(_changes(before.draft, draft))

    @cached_property
    def page(self) -> bytes:
        """The whole page."""
        return html_page(self.draft.cards, ident=self.ident, one_worker=self._one_worker)

    @cached_property
    def _full(self) -> bytes:
        return self._event({"cards": self.draft.cards})

    def event(self, since: str | None) -> bytes:
        """Return the server-sent event that brings a viewer who has ``since`` up to date; empty if it is."""
        if since == self.ident:
            return b""
        return self._delta if since is not None and since == self._previous else self._full

    def _event(self, news: Mapping[str, Any]) -> bytes:
        return f"id: {self.ident}\ndata: {json.dumps(news)}\n\n".encode() if news else b""


def _changes(old: Draft, new: Draft) -> dict[str, Any]:
    """Return cards whose rows changed, and the figures that changed in the others."""
    cards = {name: html for name, html in new.cards.items() if new.shapes[name] != old.shapes.get(name, ...)}
    news = {"cards": cards, "cells": _newer(old.cells, new.cells), "paths": _newer(old.paths, new.paths)}
    return {name: changed for name, changed in news.items() if changed}


def _newer(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in new.items() if old.get(name) != text}


class Live:
    """Samples a service and keeps the last minutes.

    Args:
        collect: reads all figures; called in a thread.
        own: returns the application's own figures.
        since: unix time from which the figures count; ``None``: unknown.
        one_worker: the figures are of one worker.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        collect: Callable[[], Snapshot],
        own: Callable[[], Mapping[str, Any]],
        *,
        since: float | None = None,
        one_worker: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._collect = collect
        self._own = own
        self._one_worker = one_worker
        self._clock = clock
        self._checkpoints, self._history, self._today = Checkpoints(), History(), Today(since)
        self._token = secrets.token_hex(4)
        self._frame: Frame | None = None
        self._taken = float("-inf")
        self._drawing_cost = self._sending_cost = 0.0
        self._kept = False
        self._viewers = 0
        self._drawing: asyncio.Task[Frame] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ticked = asyncio.Event()
        self._woken = asyncio.Event()

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return self._viewers

    def start(self) -> None:
        """Go on sampling while nobody watches."""
        self._kept = True
        self._run()

    async def aclose(self) -> None:
        """Stop."""
        self._kept = False
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        drawing, self._drawing = self._drawing, None
        if drawing is not None and drawing.get_loop() is asyncio.get_running_loop():
            await asyncio.gather(drawing, return_exceptions=True)
        self._tell()

    async def frame(self) -> Frame:
        """Return a frame that is at most a second old; all who ask at one time share one drawing."""
        if self._frame is not None and self._clock() - self._taken < _FRESH:
            return self._frame
        return await self._draw_once()

    async def recent(self) -> Frame:
        """Return the latest frame without waiting for a reading, and have a new one drawn if it is over a second old.

        Where sampling was never started there is nothing recent, and a frame is drawn as ``frame`` does.
        """
        if self._frame is None or not self._kept:
            return await self.frame()
        if self._clock() - self._taken >= _FRESH:
            self._woken.set()
        return self._frame

    @contextmanager
    def watched(self) -> Generator[None]:
        """Count as a viewer within the block: frames come fast."""
        self._viewers += 1
        self._run()
        self._woken.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not (self._viewers or self._kept):
                self._woken.set()

    async def tick(self) -> Frame:
        """Wait for the next frame."""
        await self._ticked.wait()
        return await self.frame() if self._frame is None else self._frame

    def _run(self) -> None:
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._ticked, self._woken, self._drawing = asyncio.Event(), asyncio.Event(), None
            self._task = asyncio.create_task(self._sample(), name="isp_perf live figures")

    async def _sample(self) -> None:
        while self._kept or self._viewers:
            self._woken.clear()
            [drawn] = await asyncio.gather(self._draw_once(), return_exceptions=True)
            if isinstance(drawn, Exception):
                _log.warning("the live figures cannot be read: %s", type(drawn).__name__)
                self._tell()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._pause())

    def _pause(self) -> float:
        """Return the seconds until the next frame."""
        if not self._viewers:
            return _UNWATCHED
        return min(max((self._drawing_cost + self._sending_cost) / _SHARE, _FASTEST), _SLOWEST)

    async def _draw_once(self) -> Frame:
        running = self._drawing
        if running is None or running.done() or running.get_loop() is not asyncio.get_running_loop():
            running = self._drawing = asyncio.create_task(self._draw())
        return await asyncio.shield(running)

    async def _draw(self) -> Frame:
        frame = self._frame = await asyncio.to_thread(self._drawn)
        self._taken = self._clock()
        began = thread_time()
        self._tell()
        await asyncio.sleep(0)  # in this turn of the loop all who watch send the frame
        self._sending_cost = thread_time() - began
        return frame

    def _tell(self) -> None:
        """Wake all who wait for a frame."""
        ticked, self._ticked = self._ticked, asyncio.Event()
        ticked.set()

    def _drawn(self) -> Frame:
        """Read and draw; runs in a thread."""
        began = thread_time()
        now, at = self._collect(), self._clock()
        earlier, before = self._checkpoints.before(at, now)
        shown = picture(now, before, at - earlier)
        shown |= {"saved": self._today.saved(now, shown["at"]), "own": self._own()}
        draft = draw(shown, self._history.add(at, shown))
        frame = Frame(shown, draft, before=self._frame, token=self._token, one_worker=self._one_worker)
        self._drawing_cost = thread_time() - began
        return frame
