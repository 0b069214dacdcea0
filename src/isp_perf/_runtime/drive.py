"""Runs a flow: a generator that holds the logic of a slow path once for both colours.

A flow yields *steps*, callables without arguments that do what needs waiting: call a loader, ask the remote level, wait
for another caller. ``drive`` calls them; ``adrive`` calls and awaits them. What a step returns or raises goes back into
the flow, cancellation included, so that every outcome is handled in one place.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

__all__ = ["Failure", "adrive", "drive", "without_frame"]

R = TypeVar("R")

# Cancellation, KeyboardInterrupt and GeneratorExit are outcomes too: the flow decides, and raises or returns them.
_EVERY_OUTCOME = BaseException


class Failure:
    """An error that a flow hands to its caller as a result, to be raised there.

    Raised in the caller's own frame, the error keeps a short traceback, gets no foreign ``__context__``, and a
    ``StopIteration`` of user code does not end our generator.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def drive(flow: Generator[Callable[[], Any], Any, R]) -> R:
    """Run ``flow`` to its end in this thread and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                answer = step()
            except _EVERY_OUTCOME as error:
                step = flow.throw(without_frame(error))
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        # No local name for it: a traceback that outlives this frame would keep the result alive.
        return cast("R", stop.value)


async def adrive(flow: Generator[Callable[[], Awaitable[Any]], Any, R]) -> R:
    """Run ``flow`` to its end in this task and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await step()
            except _EVERY_OUTCOME as error:
                step = flow.throw(without_frame(error))
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        # No local name for it: a traceback that outlives this frame would keep the result alive.
        return cast("R", stop.value)


def without_frame(error: BaseException) -> BaseException:
    """Return ``error`` without the outermost frame of its traceback, which is ours."""
    frames = error.__traceback__
    return error if frames is None else error.with_traceback(frames.tb_next)
