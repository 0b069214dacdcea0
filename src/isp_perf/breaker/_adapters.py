"""For those who retry with stamina or tenacity: both learn what a rejection means. Neither has to be installed."""

from collections.abc import Callable
from typing import Any, Protocol

from isp_perf.breaker._outcomes import ErrorSpec, check_spec, matches
from isp_perf.errors import RejectedError

__all__ = ["retry_hook", "wait_for_circuit"]

_SHORTEST = 0.001


class Outcome(Protocol):
    """A finished attempt, as tenacity describes it."""

    def exception(self) -> BaseException | None:
        """Return what the attempt raised."""
        ...


class RetryState(Protocol):
    """What tenacity hands to a ``wait`` function."""

    @property
    def outcome(self) -> Outcome | None:
        """The attempt that has just ended."""
        ...


def retry_hook(on: ErrorSpec = Exception, *, rejected: bool = True) -> Callable[[Exception], bool | float]:
    """Return a function for ``stamina.retry(on=...)``, or for ``tenacity.retry_if_exception(...)``.

    stamina takes a number for the pause before the next attempt: a rejection is retried after its ``retry_after`` and
    not before, so that an open circuit is not asked again and again.

    Args:
        on: which exceptions are retried: a class, a tuple or a predicate; default ``Exception``.
        rejected: whether rejections are retried; those that do not know when (an isolated circuit) never are.

    Raises:
        ConfigurationError: ``on`` is none of these.

    Example:
        >>> hook = retry_hook(OSError)
        >>> hook(OSError()), hook(KeyError()), hook(RejectedError("api", 2.5))
        (True, False, 2.5)
    """
    check_spec("on", on)

    def hook(error: Exception) -> bool | float:
        if isinstance(error, RejectedError):
            wait = error.retry_after
            return False if wait is None or not rejected else max(wait, _SHORTEST)
        return matches("on", on, error)

    return hook


def wait_for_circuit(otherwise: Callable[[Any], float]) -> Callable[[RetryState], float]:
    """Return a function for ``tenacity.retry(wait=...)`` that waits at least as long as a rejection says.

    Args:
        otherwise: a wait of tenacity's own, such as ``tenacity.wait_random_exponential()``, for all other failures.
    """

    def wait(state: RetryState) -> float:
        usual = float(otherwise(state))
        error = None if state.outcome is None else state.outcome.exception()
        return max(usual, error.retry_after or 0.0) if isinstance(error, RejectedError) else usual

    return wait
