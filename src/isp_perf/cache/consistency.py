"""Whether cached values are still true: an auditor that asks the loaders, in the background and seldom."""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from isp_perf._core.ranges import Seconds, seconds, share
from isp_perf._runtime.background import end
from isp_perf._runtime.drive import adrive, drive
from isp_perf.cache._audit import OVERTAKEN, STALE, TRUE, Audit, Comparison
from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.cache._manager import CacheManager

__all__ = ["AuditReport", "Auditor", "StaleRead", "auditors"]

auditors: "WeakSet[Auditor]" = WeakSet()
"""Every auditor alive, for metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRead:
    """A cached value that was still served although its loader had been returning another one.

    Attributes:
        template: key template of the function, which holds no argument.
        seconds: for how long at least: since an audit first saw the difference.
        key: the logical key, which may hold personal data; ``None`` unless it was asked for.
    """

    template: str
    seconds: float
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an auditor has found so far; holds no value and, unless asked for, no key.

    Attributes:
        results: sampled hits by what was found. ``"true"``: the loader returns the same. ``"stale"``: it returned
            another value twice, and between the two this one was still served. ``"overtaken"``: it returned another
            value, and soon this one was gone from the cache. ``"unsteady"``: it returned a third value, or values that
            are never equal. ``"failed"``: it raised, took too long, or the comparison raised. ``"opaque"``: the key
            does not tell the arguments (``{hash}`` of lists and objects, attributes, methods, keys of the user's own),
            so it was not called.
        stale_by: sampled hits that were stale, by key template.
        loads: loader calls made.
        age_seconds: sum of the ages of the stale hits.
        age_cells: stale hits by their age in nanoseconds, per cell of ``isp_perf._core.histogram``.
        latest: the stale hits found last, 20 at most.
    """

    results: Mapping[str, int] = field(default_factory=dict[str, int])
    stale_by: Mapping[str, int] = field(default_factory=dict[str, int])
    loads: int = 0
    age_seconds: float = 0.0
    age_cells: tuple[int, ...] = ()
    latest: tuple[StaleRead, ...] = ()

    @property
    def stale_ratio(self) -> float:
        """Share of the hits that were stale, 0 to 1, of those that could be judged; 0.0 without any."""
        stale = self.results.get(STALE, 0)
        judged = stale + self.results.get(TRUE, 0) + self.results.get(OVERTAKEN, 0)
        return stale / judged if judged else 0.0


class Auditor:
    """Samples the hits of a cache and calls their loaders again, to see whether what was served is true.

    It finds what no protocol can: the write that nobody told the cache of. Use it around the life of a service::

        async with Auditor(cache_manager, sample=0.01) as auditor:
            ...

    or with ``with`` where no event loop runs: a thread then audits plain functions. Hits cost nothing more. Loaders are
    called one at a time, at most once every ``pause`` seconds, in the context of the decoration, and not while the
    remote level is down; what they return is stored nowhere and counts in no statistics but the report. Each process
    audits its own hits, so a database sees so many calls of each.

    Args:
        manager: whose hits; it may have one running auditor.
        sample: how many of the hits are looked at, above 0 and up to 1; default 0.001. More than ``pause`` allows are
            thinned out evenly.
        pause: seconds from one loader call to the next at least, > 0; default 1.
        recheck_after: seconds, besides the function's ``max_stale``, until a value that differs is looked at again: the
            time between a write and the removal of what was cached. Default 1, range >= 0.
        timeout: seconds a loader may take, > 0; default 10. A thread's auditor waits for ever.
        same: tells whether what was served and what the loader returned mean the same; for values with a field that is
            always new. Default: by ``==``, or as the codec writes them.

    Raises:
        ConfigurationError: a setting out of range.
    """

    def __init__(
        self,
        manager: "CacheManager",
        *,
        sample: float = 0.001,
        pause: Seconds = 1.0,
        recheck_after: Seconds = 1.0,
        timeout: Seconds = 10.0,
        same: Comparison | None = None,
    ) -> None:
        self._engine, keys = manager.internals()
        self._manager = manager
        self._timeout = seconds("timeout", timeout)
        self._pause = seconds("pause", pause)
        self._audit = Audit(
            self._engine,
            keys,
            share=share("sample", sample),
            pause=self._pause,
            recheck_after=seconds("recheck_after", recheck_after, zero=True),
            patience=self._timeout,
            same=same,
        )
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        auditors.add(self)

    @property
    def name(self) -> str:
        """The manager's name."""
        return self._manager.name

    @property
    def running(self) -> bool:
        """Whether it was started and not yet closed."""
        return self._task is not None or self._thread is not None

    async def start(self) -> None:
        """Begin, in a task of the running event loop; what was served before is not looked at.

        Raises:
            ConfigurationError: the manager has a running auditor.
        """
        self._begin()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="isp_perf auditor")

    async def aclose(self) -> None:
        """End; a loader call in progress is cancelled. The report stays. May be started again."""
        task, self._task = self._task, None
        if task is not None:
            self._audit.end()
            await end(task)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._begin()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run_here, name="isp_perf auditor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(self._timeout)
            self._audit.end()

    def report(self, *, keys: bool = False) -> AuditReport:
        """Return what was found so far.

        Args:
            keys: tell the keys of the latest stale hits, which may hold personal data; default: their templates only.
        """
        audit = self._audit
        return AuditReport(
            results=dict(audit.results),
            stale_by=dict(audit.stale),
            loads=audit.loads,
            age_seconds=audit.age_seconds,
            age_cells=tuple(audit.ages),
            latest=tuple(
                StaleRead(template=seen.template, seconds=seen.seconds, key=seen.key if keys else None)
                for seen in audit.sightings.copy()
            ),
        )

    def __repr__(self) -> str:
        return f"Auditor({self.name!r}, running={self.running})"

    def _begin(self) -> None:
        if self._engine.sampler is not None:
            raise ConfigurationError(
                "Auditor", self.name, "a manager has one running auditor", "close the other one first"
            )
        self._audit.begin()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            await adrive(self._audit.turn(tasks=True))

    def _run_here(self) -> None:
        while not self._stop.wait(self._pause):
            drive(self._audit.turn(tasks=False))
