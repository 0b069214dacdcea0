"""Several flows side by side in one thread, so that what they ask of others can be asked together."""

from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Final, cast

from isp_perf._runtime.drive import Failure, without_frame
from isp_perf._runtime.flights import ThreadWaiter
from isp_perf.cache._engine import Flow

__all__ = ["Lane", "is_order", "perform_lanes", "side_by_side"]

_EVERY_ERROR: Final = Exception  # a sick level may raise anything: each writer decides what that means
_EVERY_OUTCOME: Final = BaseException  # an interruption is an outcome too: every flow has to hear of it


class Lane:
    """One flow with a context of its own.

    Args:
        flow: yields steps for threads.

    Attributes:
        step: what it waits for; ``None`` once it has ended.
        outcome: what it returned, or the ``Failure`` it ended with.
    """

    __slots__ = ("_context", "_flow", "outcome", "step")

    def __init__(self, flow: Flow) -> None:
        self._context = copy_context()
        self._flow = flow
        self.step: Callable[[], Any] | None = None
        self.outcome: Any = None
        self._go_on(next, flow)

    def ask(self, question: Callable[[], Any]) -> Any:
        """Return the answer of ``question`` in the flow's context."""
        return self._context.run(question)

    def answer(self, answer: Any) -> None:
        """Give the flow what its step would have returned; a ``Failure``: what it would have raised."""
        if answer.__class__ is Failure:
            self._go_on(self._flow.throw, answer.error)
        else:
            self._go_on(self._flow.send, answer)

    def is_at(self, kind: Callable[[Callable[[], Any]], bool]) -> bool:
        """Return whether the flow waits for a step of this kind."""
        return self.step is not None and kind(self.step)

    def advance(self, stop: Callable[[Callable[[], Any]], bool]) -> None:
        """Take steps until the flow ends, or one is to ``stop`` at."""
        while self.step is not None and not stop(self.step):
            try:
                answer = self._context.run(self.step)
            except _EVERY_OUTCOME as error:
                answer = Failure(without_frame(error))
            self.answer(answer)

    def _go_on(self, resume: Callable[..., Any], argument: Any) -> None:
        try:
            self.step = self._context.run(resume, argument)
        except StopIteration as end:
            self.step, self.outcome = None, end.value
        except _EVERY_OUTCOME as error:
            self.step, self.outcome = None, Failure(without_frame(error))


def side_by_side(
    flows: Sequence[Flow],
    shared: Callable[[Callable[[], Any]], bool],
    together: Callable[[list[Lane]], list[Any]],
) -> list[Any]:
    """Run ``flows`` in this thread and return their outcomes in order.

    Args:
        flows: what to run.
        shared: whether a step is one of those that are answered together.
        together: answers the steps of these lanes, in order; a ``Failure`` stands for an error.
    """
    lanes = [Lane(flow) for flow in flows]
    for lane in lanes:
        lane.advance(partial(_stops, shared))
    asking = [lane for lane in lanes if lane.is_at(shared)]
    for lane, answer in zip(asking, _answers(asking, together), strict=True):
        lane.answer(answer)
    # Who waits for another thread's load comes last: that thread may be waiting for one of ours.
    for lane in sorted(lanes, key=lambda lane: lane.is_at(_waits)):
        lane.advance(_never)
    return [lane.outcome for lane in lanes]


def _stops(shared: Callable[[Callable[[], Any]], bool], step: Callable[[], Any]) -> bool:
    return shared(step) or _waits(step)


def _answers(lanes: list[Lane], together: Callable[[list[Lane]], list[Any]]) -> list[Any]:
    try:
        return together(lanes) if lanes else []
    except _EVERY_OUTCOME as error:
        return [Failure(without_frame(error))] * len(lanes)


def is_order(step: Any) -> bool:
    """Return whether ``step`` asks something of the remote level."""
    return isinstance(step, partial) and getattr(cast("Any", step).func, "__name__", "") == "perform"


def perform_lanes(lanes: list[Lane]) -> list[Any]:
    """Carry out what all ``lanes`` ask of the remote level in one round trip."""
    steps = [cast("Any", lane.step) for lane in lanes]
    orders = [order for step in steps for order in step.args[0]]
    try:
        answers = list(steps[0].func(orders, **steps[0].keywords))
    except _EVERY_ERROR as error:
        return [Failure(error)] * len(lanes)
    return [[answers.pop(0) for _ in step.args[0]] for step in steps]


def _waits(step: Any) -> bool:
    """Return whether ``step`` waits for the load of another caller."""
    return isinstance(getattr(getattr(step, "func", step), "__self__", None), ThreadWaiter)


def _never(_step: Callable[[], Any]) -> bool:
    return False
