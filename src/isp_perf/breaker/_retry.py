"""Retry: attempts, pauses with full jitter, one deadline over all, and a budget that a broken service uses up."""

from asyncio import sleep as asleep
from collections.abc import Callable
from random import SystemRandom
from threading import Lock
from time import monotonic
from time import sleep as block
from typing import Any, TypeVar

from isp_perf._core.ranges import Seconds, seconds, whole
from isp_perf.breaker._config import Backoff
from isp_perf.breaker._outcomes import ErrorSpec, check_spec, matches
from isp_perf.breaker._wrapping import Site, build, indented, refuse_kinds
from isp_perf.errors import RejectedError
from isp_perf.typing import Clock

__all__ = ["Retry", "RetryBudget", "retry"]

F = TypeVar("F", bound=Callable[..., Any])

_draw = SystemRandom().random
FULL_JITTER = Backoff(0.1, 2.0, 20.0, 1.0)


class RetryBudget:
    """Tokens that retries cost and successes give back, so that a broken service is not hit by retries as well.

    Share one budget among all calls of a service. The rule and its numbers are those of the AWS SDKs' standard mode.

    Args:
        capacity: tokens at the start and at most; >= 1, default 500.
        cost: tokens that a retry takes; >= 1, default 5. They come back if the retry succeeds.
        timeout_cost: tokens that a retry after a ``TimeoutError`` takes; >= 1, default 10.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    __slots__ = ("_lock", "capacity", "cost", "timeout_cost", "tokens")

    capacity: int
    cost: int
    timeout_cost: int
    tokens: int

    def __init__(self, capacity: int = 500, *, cost: int = 5, timeout_cost: int = 10) -> None:
        self.capacity = self.tokens = whole("capacity", capacity)
        self.cost = whole("cost", cost)
        self.timeout_cost = whole("timeout_cost", timeout_cost)
        self._lock = Lock()

    def take(self, error: BaseException) -> int:
        """Return the tokens taken for a retry after ``error``; 0 if there are too few."""
        cost = self.timeout_cost if isinstance(error, TimeoutError) else self.cost
        with self._lock:
            if self.tokens < cost:
                return 0
            self.tokens -= cost
        return cost

    def refund(self, tokens: int) -> None:
        """Give ``tokens`` back; a success without a retry gives back 1."""
        if self.tokens < self.capacity:
            with self._lock:
                self.tokens = min(self.capacity, self.tokens + tokens)


class Attempts:
    """The attempts of one call, from its first failure on."""

    __slots__ = ("_made", "_retry", "_until", "paid")

    paid: int

    def __init__(self, retry_: "Retry", began: float) -> None:
        self._retry = retry_
        self._made = 0
        self.paid = 0
        self._until = None if retry_.deadline is None else began + retry_.deadline

    def pause(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the next attempt; ``None``: give up."""
        rules = self._retry
        self._made += 1
        if self._made >= rules.attempts or not rules.retries(error):
            return None
        wait = rules.backoff.duration(self._made - 1, _draw())
        if isinstance(error, RejectedError):
            wait = max(wait, error.retry_after or 0.0)
        in_time = self._until is None or rules.clock() + wait < self._until
        return wait if in_time and self._affordable(error) else None

    def _affordable(self, error: BaseException) -> bool:
        budget = self._retry.budget
        if budget is None:
            return True
        self.paid = budget.take(error)
        return self.paid > 0


class Retry:
    """The strategy that ``retry`` returns, with its ``attempts``, ``backoff``, ``on`` and ``budget``."""

    attempts: int

    def __init__(self, *, attempts: int, backoff: Backoff, on: ErrorSpec, budget: RetryBudget | None) -> None:
        self.attempts = whole("attempts", attempts)
        self.backoff = backoff
        check_spec("on", on)
        self.on = on
        self.budget = budget
        self.deadline: float | None = None
        self.rejected = False
        self.clock: Clock = monotonic

    def __call__(self, function: F, /) -> F:
        """Decorate ``function`` with this strategy alone."""
        return build(function, (self,))

    def retries(self, error: BaseException) -> bool:
        """Tell whether ``error`` is worth another attempt."""
        if isinstance(error, RejectedError):
            return self.rejected
        return isinstance(error, Exception) and matches("on", self.on, error)

    def begin(self, began: float) -> Attempts:
        """Return the record of a call that began at ``began`` and has just failed for the first time."""
        return Attempts(self, began)

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        refuse_kinds("retry", site, "generator", "async generator", why="what was yielded cannot be taken back")
        rules, flow = site.bind("retry", self), site.local("flow")
        error, pause = site.local("error"), site.local("pause")
        rest = site.bind("sleep", asleep if site.asynchronous else block)
        began = site.local("began")
        return [
            *([] if self.deadline is None else [f"{began} = {rules}.clock()"]),
            f"{flow} = None",
            "while True:",
            "    try:",
            *indented(inner, 2),
            f"    except $BaseException as {error}:",
            f"        if {flow} is None:",
            f"            {flow} = {rules}.begin({'0.0' if self.deadline is None else began})",
            f"        {pause} = {flow}.pause({error})",
            f"        if {pause} is None:",
            "            raise",
            "    else:",
            *([] if self.budget is None else [f"        {rules}.refund({flow})"]),
            "        break",
            f"    {site.maybe_await}{rest}({pause})",
        ]

    def refund(self, flow: Attempts | None) -> None:
        """Give back to the budget what a success gives back; ``flow`` is ``None`` if nothing failed before it."""
        if self.budget is not None:
            self.budget.refund(1 if flow is None else flow.paid)


def retry(
    attempts: int = 3,
    *,
    backoff: Backoff = FULL_JITTER,
    on: ErrorSpec = Exception,
    deadline: Seconds | None = None,
    budget: RetryBudget | None = None,
    rejected: bool = False,
    clock: Clock = monotonic,
) -> Retry:
    """Call again after a failure.

    Cancellation, ``KeyboardInterrupt`` and ``SystemExit`` are never retried, and generators never can be.

    Args:
        attempts: calls at most, the first one included; >= 1, default 3.
        backoff: pauses between them; default: full jitter from 0.1 s, doubled up to 20 s.
        on: which exceptions are retried: a class, a tuple or a predicate; default ``Exception``.
        deadline: seconds over all attempts and pauses (> 0): a pause that would end later is not begun.
        budget: tokens shared with other calls; ``None``: no budget.
        rejected: whether rejections (an open circuit, a full bulkhead) are retried, then never before their
            ``retry_after``; default no.
        clock: monotonic seconds, for ``deadline``.

    Raises:
        ConfigurationError: a value is out of its range.

    Example:
        >>> outcomes = [OSError(), 7]
        >>> @retry(attempts=2, backoff=Backoff(0.001, jitter=1))
        ... def fetch() -> int:
        ...     outcome = outcomes.pop(0)
        ...     if isinstance(outcome, OSError):
        ...         raise outcome
        ...     return outcome
        >>> fetch()
        7
    """
    strategy = Retry(attempts=attempts, backoff=backoff, on=on, budget=budget)
    strategy.deadline = None if deadline is None else seconds("deadline", deadline)
    strategy.rejected = rejected
    strategy.clock = clock
    return strategy
