"""From strategies to one wrapper: each contributes lines to the same generated function, none adds a frame.

A ``Strategy`` is given the lines of what it surrounds and returns the lines around them; the innermost lines call the
user's function and leave its result in ``$result``. ``_runtime.specialize`` turns the text into a function with the
user's own parameter list.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from isp_perf._runtime.calls import CALLS, NAMES, Kind, kind_of
from isp_perf._runtime.specialize import specialize
from isp_perf.errors import ConfigurationError

__all__ = ["FREE_THREADED", "Site", "Strategy", "build", "indented", "refuse_kinds"]

F = TypeVar("F", bound=Callable[..., Any])

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Without the GIL an addition to a slot may get lost: everything is then counted under a lock."""

_DESCRIPTORS = (staticmethod, classmethod)


class Site:
    """Where a strategy stands: in which function, at which place.

    Attributes:
        kind: what the wrapped function is.
        function: the wrapped function.
        asynchronous: whether lines may await.
        index: the strategy's number, which makes its names its own: ``$era0``.
        outermost: whether nothing surrounds it.
    """

    asynchronous: bool

    def __init__(self, function: Callable[..., Any], kind: Kind) -> None:
        self.function = function
        self.kind: Kind = kind
        self.asynchronous = kind in {"coroutine", "async generator"}
        self.index = 0
        self.names: dict[str, object] = {"function": function, **NAMES}

    @property
    def outermost(self) -> bool:
        """Whether nothing surrounds the strategy."""
        return self.index == 0

    def bind(self, name: str, value: object) -> str:
        """Make ``value`` a constant of the wrapper; return its place holder."""
        spelled = f"{name}{self.index}"
        self.names[spelled] = value
        return "$" + spelled

    def local(self, name: str) -> str:
        """Return the place holder of a local variable that no other strategy uses."""
        return f"${name}{self.index}"

    @property
    def maybe_await(self) -> str:
        """``"await "`` where that is possible, else nothing."""
        return "await " if self.asynchronous else ""


class Strategy(Protocol):
    """Something that surrounds a call."""

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner`` with this strategy's lines around it.

        Raises:
            ConfigurationError: it cannot surround this kind of function.
        """
        ...


def indented(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Return ``lines`` moved in by ``depth`` levels."""
    return ["    " * depth + line for line in lines]


def refuse_kinds(strategy: str, site: Site, *kinds: Kind, why: str) -> None:
    """Raise ``ConfigurationError`` if the function is one of ``kinds``."""
    if site.kind in kinds:
        name = getattr(site.function, "__qualname__", type(site.function).__name__)
        raise ConfigurationError(strategy, name, f"a {site.kind} cannot have it: {why}", "use a coroutine function")


def build(function: F, strategies: Sequence[Strategy]) -> F:
    """Return ``function`` surrounded by ``strategies``, outermost first, as one generated function.

    Class and static methods may be given as such.

    Raises:
        ConfigurationError: it cannot be wrapped, or a strategy cannot surround it.
    """
    given: Any = function
    if given.__class__ in _DESCRIPTORS:
        return cast("F", given.__class__(build(given.__func__, strategies)))
    if inspect.isawaitable(given):
        raise ConfigurationError(
            "function", type(function).__name__, "functions can be protected, not their results", "pass the function"
        )
    site = Site(function, kind_of(function))
    lines = CALLS[site.kind].splitlines()
    for index in reversed(range(len(strategies))):
        site.index = index
        lines = strategies[index].emit(lines, site)
    if site.kind != "async generator":
        lines.append("return $result")
    return cast("F", specialize(function, "\n".join(lines), site.names, asynchronous=site.asynchronous))
