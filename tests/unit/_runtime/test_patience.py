"""A limit that counts only the time in which the event loop had its turn."""

import asyncio
import time

import pytest

from isp_perf._runtime.patience import patience


async def test_a_wait_that_is_too_long_ends():
    """What does not come is given up after the seconds that were given."""
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patience(0.05):
            await asyncio.get_running_loop().create_future()
    assert time.monotonic() - started >= 0.05


async def test_time_in_which_the_loop_was_blocked_does_not_count():
    """A loop that is blocked for longer than the limit, again and again, is no reason to give up."""
    answer = asyncio.get_running_loop().create_future()

    async def answers_late():
        for _ in range(30):
            asyncio.get_running_loop().call_soon(time.sleep, 0.03)
            await asyncio.sleep(0)
        answer.set_result("here")

    late = asyncio.create_task(answers_late())
    async with patience(0.1):
        assert await answer == "here"
    await late


async def test_a_loop_that_never_has_time_is_not_waited_for_for_ever():
    """Late turns count for something, so that a wait ends also where the loop is always late."""
    silent = asyncio.get_running_loop().create_future()

    async def blocks():
        while True:
            asyncio.get_running_loop().call_soon(time.sleep, 0.005)
            await asyncio.sleep(0)

    late = asyncio.create_task(blocks())
    with pytest.raises(TimeoutError):
        async with patience(0.01):
            await silent
    late.cancel()


async def test_nothing_is_left_behind():
    """What ends in time is not ended later, and its own errors pass."""
    async with patience(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    with pytest.raises(ValueError, match="own"):
        async with patience(0.01):
            raise ValueError("own")
    with pytest.raises(TimeoutError, match="inner"):
        async with patience(0.01):
            raise TimeoutError("inner")
