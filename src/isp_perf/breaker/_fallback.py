"""Fallback: another answer in place of a rejection, or of a failure."""

from collections.abc import Callable
from typing import Any, TypeVar

from isp_perf.breaker._config import Always
from isp_perf.breaker._outcomes import ErrorSpec, check_spec, matches
from isp_perf.breaker._wrapping import Site, build, indented, refuse_kinds
from isp_perf.errors import RejectedError

__all__ = ["Fallback", "fallback"]

F = TypeVar("F", bound=Callable[..., Any])


class Fallback:
    """The strategy that ``fallback`` returns, with its ``answer`` and ``on``."""

    def __init__(self, answer: Any, on: ErrorSpec) -> None:
        self.stand_in: Callable[..., Any] = answer if callable(answer) else Always(answer)
        check_spec("on", on)
        self.on = on

    def __call__(self, function: F, /) -> F:
        """Decorate ``function`` with this strategy alone."""
        return build(function, (self,))

    def answers(self, error: BaseException) -> bool:
        """Tell whether the fallback answers in place of ``error``."""
        return matches("on", self.on, error)

    async def answer(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answer, awaited if it has to be."""
        result = self.stand_in(*args, **kwargs)
        return await result if hasattr(result, "__await__") else result

    def emit(self, inner: list[str], site: Site) -> list[str]:
        """Return ``inner``, the lines of the call, with this strategy's lines for ``site`` around them."""
        refuse_kinds("fallback", site, "generator", "async generator", why="part of its items may be delivered already")
        held, error = site.bind("fallback", self), site.local("error")
        answer = f"await {held}.answer($args)" if site.asynchronous else f"{held}.stand_in($args)"
        return [
            "try:",
            *indented(inner),
            f"except $BaseException as {error}:",
            f"    if not {held}.answers({error}):",
            "        raise",
            f"    $result = {answer}",
        ]


def fallback(answer: Any, *, on: ErrorSpec = RejectedError) -> Fallback:
    """Answer with something else when a call is rejected, or, with ``on``, when it fails.

    Args:
        answer: a value, or a function of the call's own arguments, such as the ``peek`` of a cached function; for a
            coroutine function it may be a coroutine function.
        on: in place of which exceptions: a class, a tuple or a predicate; default ``RejectedError``.

    Raises:
        ConfigurationError: ``on`` is none of these; when decorating: the function is a generator function.

    Example:
        >>> @fallback(0, on=ValueError)
        ... def number(text: str) -> int:
        ...     return int(text)
        >>> number("many")
        0
    """
    return Fallback(answer, on)
