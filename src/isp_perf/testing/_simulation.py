"""An event loop whose time is made up: it never waits, so hours of a schedule take milliseconds and repeat exactly."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["simulate"]

T = TypeVar("T")

_START: Final = 1e9  # later than any real monotonic clock: what waits in real time for such a moment never wakes
_TICK: Final = 1e-6  # at such a distance a float is no finer, and a timer that is not yet due would never be


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting.

    Attributes:
        now: the present moment in seconds.
    """

    now: float = _START

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready; if nothing is, it is ``timeout`` seconds later."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the simulation hangs: every task waits for another, and no timer is set")
        if not ready and timeout is not None:
            self.now += timeout + _TICK
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """A loop on the selector's time."""

    def __init__(self, selector: _Selector) -> None:
        self._simulated = selector
        super().__init__(selector)

    def time(self) -> float:
        """Return the present moment in made-up seconds."""
        return self._simulated.now


def simulate(main: Callable[[Callable[[], float]], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(clock)`` in an event loop whose time is made up, and return what it returns.

    Nothing waits: when every task sleeps, the loop's time jumps to the next timer. What happens is then a matter of
    the tasks and of their seeds alone. Threads and sockets have no place in it.

    Args:
        main: a coroutine function; its argument is the loop's clock, in seconds.

    Raises:
        RuntimeError: every task waits for another one, for ever.
    """
    selector = _Selector()
    with asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner:
        return runner.run(main(lambda: selector.now))
