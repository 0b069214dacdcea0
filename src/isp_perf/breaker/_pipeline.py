"""Several strategies around one function, fused into one generated wrapper."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from isp_perf.breaker._breaker import CircuitBreaker
from isp_perf.breaker._wrapping import Strategy, build
from isp_perf.errors import ConfigurationError

__all__ = ["Pipeline", "pipeline"]

F = TypeVar("F", bound=Callable[..., Any])


class Pipeline:
    """The decorator that ``pipeline`` returns; it can decorate any number of functions.

    Attributes:
        strategies: outermost first.
    """

    def __init__(self, strategies: tuple[Strategy, ...]) -> None:
        self.strategies = strategies

    def __call__(self, function: F, /) -> F:
        """Decorate ``function``; the wrapper has ``.strategies``, and ``.breaker`` if one of them is a breaker.

        Raises:
            ConfigurationError: a strategy cannot surround this kind of function.
        """
        wrapper: Any = build(function, self.strategies)
        target = getattr(wrapper, "__func__", wrapper)
        target.strategies = self.strategies
        breakers = [strategy for strategy in self.strategies if isinstance(strategy, CircuitBreaker)]
        if breakers:
            target.breaker = breakers[0]
        return cast("F", wrapper)


def pipeline(*strategies: Any) -> Pipeline:
    """Fuse strategies, outermost first, into one wrapper: one frame, however many they are.

    The usual order is ``fallback, retry, circuit breaker, timeout, bulkhead``: each attempt is counted by the breaker
    and has the whole timeout, and waiting for a place in the bulkhead uses that up. A breaker outside of ``retry``
    counts the call with all its attempts as one; a timeout outside of it limits them together.

    Args:
        strategies: ``fallback``, ``retry``, ``timeout``, ``bulkhead``, ``hedge``, a ``CircuitBreaker`` or what
            ``circuit_breaker(...)`` returns, or another pipeline.

    Raises:
        ConfigurationError: one of them is no strategy.
    """
    flat: list[Strategy] = []
    for strategy in strategies:
        if isinstance(strategy, Pipeline):
            flat += strategy.strategies
        elif callable(getattr(strategy, "emit", None)):
            flat.append(strategy)
        else:
            raise ConfigurationError(
                "strategies", type(strategy).__name__, "is no strategy", "pass retry(...), timeout(...) and the like"
            )
    return Pipeline(tuple(flat))
