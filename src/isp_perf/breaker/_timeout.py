"""Timeout: the deadline wheel as a strategy."""

from collections.abc import Callable
from typing import Any, TypeVar

from isp_perf._core.ranges import Seconds
from isp_perf._core.ranges import seconds as checked
from isp_perf._runtime.wheel import arm
from isp_perf.breaker._wrapping import Site, build, indented, refuse_kinds

__all__ = ["Timeout", "timeout"]

F = TypeVar("F", bound=Callable[..., Any])


class Timeout:
    """The strategy that ``timeout`` returns, with its ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, function: F, /) -> F:
        """Decorate ``function`` with this strategy alone."""
        return build(function, (self,))

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        refuse_kinds("timeout", site, "function", "generator", why="it cannot be interrupted")
        refuse_kinds("timeout", site, "async generator", why="its steps may run in several tasks")
        deadline, error, meant = site.local("deadline"), site.local("error"), site.local("meant")
        return [
            f"{deadline} = {site.bind('arm', arm)}({site.bind('seconds', self.seconds)})",
            "try:",
            *indented(inner),
            f"except $BaseException as {error}:",
            f"    {meant} = {deadline}.translate({error})",
            f"    if {meant} is {error}:",
            "        raise",
            f"    raise {meant} from {error}",
            f"{deadline}.slot.discard({deadline})",
            f"if {deadline}.hit:",
            f"    {deadline}.close()",
        ]


def timeout(seconds: Seconds) -> Timeout:
    """End a coroutine's call with ``TimeoutError`` after ``seconds``.

    It fires at most 10 ms late and never early. The rules of cancellation are those of ``asyncio.timeout``: one from
    outside wins, and nested timeouts each answer for their own.

    Args:
        seconds: > 0.

    Raises:
        ConfigurationError: ``seconds`` is not above 0; when decorating: the function is no coroutine function.
    """
    return Timeout(checked("seconds", seconds))
