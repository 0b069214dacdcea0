"""Hedging: a second attempt beside a first one that takes long; the first answer wins and the other is cancelled."""

from asyncio import FIRST_COMPLETED, CancelledError, Task, create_task, gather, wait
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from isp_perf._core.ranges import Seconds, seconds, share, whole
from isp_perf.breaker._wrapping import Site, build, indented, refuse_kinds

__all__ = ["Hedge", "hedge"]

F = TypeVar("F", bound=Callable[..., Any])

_BURST = 10.0


class Hedge:
    """The strategy that ``hedge`` returns, with its ``delay`` (seconds), ``max_attempts`` and ``budget_ratio``."""

    credit: float
    hedged: int

    def __init__(self, delay: float, max_attempts: int, budget_ratio: float) -> None:
        self.delay = delay
        self.max_attempts = max_attempts
        self.budget_ratio = budget_ratio
        self.credit = _BURST
        self.hedged = 0

    def __call__(self, function: F, /) -> F:
        """Decorate ``function`` with this strategy alone."""
        return build(function, (self,))

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        for kind in ("function", "generator", "async generator"):
            refuse_kinds("hedge", site, kind, why="only coroutines can run beside one another and be cancelled")
        once = site.local("once")
        return [
            f"async def {once}():",
            *indented(inner),
            "    return $result",
            f"$result = await {site.bind('hedge', self)}.race({once})",
        ]

    def _pays(self) -> bool:
        """Take one credit for another attempt, if there is one."""
        if self.credit < 1.0:
            return False
        self.credit -= 1.0
        self.hedged += 1
        return True

    async def race(self, once: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return the first answer of attempts made by ``once``; an error only if all that were begun have failed."""
        self.credit = min(_BURST, self.credit + self.budget_ratio)
        attempts = _Attempts(once)
        attempts.begin()
        begun = 1
        try:
            while attempts.winner is None and attempts.running:
                if not await attempts.any_done(self.delay if begun < self.max_attempts else None):
                    begun += 1
                    if self._pays():
                        attempts.begin()
            return attempts.result()
        finally:
            await attempts.end()


class _Attempts:
    """The attempts of one call, side by side."""

    __slots__ = ("errors", "once", "running", "winner")

    def __init__(self, once: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.once = once
        self.running: set[Task[Any]] = set()
        self.errors: list[BaseException] = []
        self.winner: Task[Any] | None = None

    def begin(self) -> None:
        """Begin one more."""
        self.running.add(create_task(self.once()))

    async def any_done(self, patience: float | None) -> bool:
        """Wait until one has ended; false if none did within ``patience`` seconds."""
        done, self.running = await wait(self.running, timeout=patience, return_when=FIRST_COMPLETED)
        for task in done:
            error = _error_of(task)
            if error is None:
                self.winner = task
            else:
                self.errors.append(error)
        return bool(done)

    def result(self) -> Any:
        """Return the winner's answer, or raise the first error."""
        if self.winner is None:
            raise self.errors[0]
        return self.winner.result()

    async def end(self) -> None:
        """Cancel those that lost, and wait until they have ended."""
        for task in self.running:
            task.cancel()
        await gather(*self.running, return_exceptions=True)
        self.errors.clear()


def _error_of(task: Task[Any]) -> BaseException | None:
    """Return why ``task`` has no result; ``None``: it has one."""
    return CancelledError() if task.cancelled() else task.exception()


def hedge(delay: Seconds, max_attempts: int = 2, *, budget_ratio: float = 0.1) -> Hedge:
    """Begin another attempt beside one that has not answered after ``delay``; the first answer wins.

    For idempotent coroutine functions only: the attempts that lose are cancelled, which a server may not notice in
    time. At most ``budget_ratio`` of the calls are hedged (after a burst of ten), so that a service that has become
    slow as a whole is not asked twice as much.

    Args:
        delay: seconds (> 0), best about the 95th percentile of the answer time.
        max_attempts: attempts at most, the first one included; >= 1, default 2.
        budget_ratio: share of calls that may be hedged; above 0 up to 1, default 0.1.

    Raises:
        ConfigurationError: a value is out of its range; when decorating: the function is no coroutine function.
    """
    return Hedge(seconds("delay", delay), whole("max_attempts", max_attempts), share("budget_ratio", budget_ratio))
