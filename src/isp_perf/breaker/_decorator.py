"""``circuit_breaker``: what stands above a function."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from isp_perf._runtime.specialize import parameters
from isp_perf.breaker._config import CircuitConfig
from isp_perf.breaker._emission import breaker_lines
from isp_perf.breaker._keyed import KeyedBreakers
from isp_perf.breaker._registry import CircuitRegistry, circuits
from isp_perf.breaker._wrapping import Site, build
from isp_perf.errors import ConfigurationError

__all__ = ["Decorator", "KeyedDecorator", "circuit_breaker"]

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """What ``circuit_breaker`` returns: it keeps the type of what it decorates."""

    def __call__(self, function: F, /) -> F:
        """Return ``function``, protected."""
        ...


class KeyedDecorator:
    """The decorator that ``circuit_breaker(..., key=...)`` returns: each call goes through the breaker of its key.

    Attributes:
        breakers: the family.
    """

    def __init__(self, breakers: KeyedBreakers, key: str | Callable[..., object]) -> None:
        self.breakers = breakers
        self._key = key

    def __call__(self, function: F, /) -> F:
        """Decorate a function; see ``CircuitBreaker.__call__``."""
        wrapper: Any = build(function, (self,))
        getattr(wrapper, "__func__", wrapper).breakers = self.breakers
        return cast("F", wrapper)

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        if self.breakers.config.timeout is not None and site.kind != "coroutine":
            raise ConfigurationError(
                "timeout", self.breakers.config.timeout, "only a coroutine function can be interrupted", "leave it out"
            )
        breaker, family = site.local("breaker"), site.bind("family", self.breakers)
        return [f"{breaker} = {family}.of({self._expression(site)})", *breaker_lines(inner, site, breaker)]

    def _expression(self, site: Site) -> str:
        if callable(self._key):
            return f"{site.bind('key', self._key)}($args)"
        names = [parameter.name for parameter in parameters(site.function)]
        if self._key not in names:
            raise ConfigurationError("key", self._key, "names no parameter of the function", f"use one of {names}")
        return f"$param_{names.index(self._key)}"


def circuit_breaker(
    name: str,
    config: CircuitConfig | None = None,
    *,
    registry: CircuitRegistry = circuits,
    key: str | Callable[..., object] | None = None,
    max_keys: int = 1024,
) -> Decorator:
    """Protect a function, coroutine function, generator function, async generator function or method.

    The wrapper keeps name, signature, docs, types and kind, and has ``.breaker``.

    Args:
        name: the protected service; functions that name the same one share one breaker.
        config: default: what the breaker of that name has, or ``CircuitConfig()``.
        registry: where the breaker is found by its name.
        key: one breaker per tenant, host or shard: the name of a parameter whose value is the key, or a function of the
            call's arguments that returns it. The wrapper then has ``.breakers``.
        max_keys: how many of them are kept; >= 1.

    Raises:
        ConfigurationError: the name is taken by a breaker with another configuration, or ``key`` is no parameter.

    Example:
        >>> @circuit_breaker("example_api", CircuitConfig(failure_threshold=3))
        ... def fetch(number: int) -> int:
        ...     return number
        >>> fetch(7), circuits.get("example_api").state
        (7, 'closed')
    """
    if key is None:
        return registry.define(name, config)
    return KeyedDecorator(registry.define_keyed(name, config, max_keys=max_keys), key)
