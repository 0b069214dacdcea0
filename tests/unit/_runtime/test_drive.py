"""Flows and their drivers."""

import asyncio

import pytest

from isp_perf._runtime.drive import adrive, drive


def flow(first, second):
    try:
        got = yield first
    except ValueError as error:
        got = error.args[0]
    rest = yield second
    return got, rest


def test_steps_are_called_in_turn():
    """What a step returns is sent into the flow, and the flow's result is returned."""
    assert drive(flow(lambda: 1, lambda: 2)) == (1, 2)


def test_errors_are_thrown_into_the_flow():
    """What a step raises reaches the flow at its yield; what the flow does not handle reaches the caller."""

    def fail():
        raise ValueError("seen")

    assert drive(flow(fail, lambda: 2)) == ("seen", 2)
    with pytest.raises(ValueError, match="seen"):
        drive(flow(lambda: 1, fail))


async def test_steps_are_awaited_in_a_task():
    """The same flow runs with coroutine functions; cancellation is thrown into it."""

    async def value():
        await asyncio.sleep(0)
        return 1

    async def fail():
        raise ValueError("seen")

    assert await adrive(flow(value, value)) == (1, 1)
    assert await adrive(flow(fail, value)) == ("seen", 1)
    seen = []

    def patient():
        try:
            yield asyncio.Event().wait
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(adrive(patient()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


def test_a_flow_may_need_no_step():
    """A flow that returns at once needs no driver's help."""

    def ready():
        return 5
        yield

    assert drive(ready()) == 5
