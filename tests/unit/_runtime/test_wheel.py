import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from isp_perf._runtime import wheel
from isp_perf._runtime.wheel import TICK, arm


async def limited(seconds, work):
    """Run ``work`` under a deadline, as the generated wrappers do."""
    deadline = arm(seconds)
    try:
        result = await work
    except BaseException as error:
        meant = deadline.translate(error)
        if meant is error:
            raise
        raise meant from error
    deadline.close()
    return result


async def test_deadline_fires_never_early_and_at_most_a_tick_late():
    """A call is ended after its seconds, within one tick of the wheel and what the loop itself adds."""
    loop = asyncio.get_running_loop()
    for seconds in (0.003, 0.02, 0.0251):
        began = loop.time()
        with pytest.raises(TimeoutError):
            await limited(seconds, asyncio.sleep(5))
        assert seconds <= loop.time() - began < seconds + TICK + 0.25


async def test_answer_in_time_leaves_nothing_behind():
    """A call that returns or raises in time is not cancelled later."""

    async def fail():
        raise KeyError

    assert await limited(0.02, asyncio.sleep(0, "fine")) == "fine"
    with pytest.raises(KeyError):
        await limited(0.02, fail())
    await asyncio.sleep(0.04)
    assert asyncio.current_task().cancelling() == 0


async def test_cancellation_from_outside_wins():
    """A task that is cancelled from outside ends cancelled, deadline or not."""
    task = asyncio.create_task(limited(5, asyncio.sleep(10)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_cancellation_from_outside_in_the_same_tick_wins():
    """If our deadline fired and someone cancelled as well, the cancellation is what the task ends with."""

    async def late():
        try:
            return await limited(0.01, asyncio.sleep(5))
        finally:
            assert asyncio.current_task().cancelling() == 1

    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    deadlines = [d for w in wheel._wheels.values() for slot in w.slots.values() for d in slot if d.task is task]
    deadlines[0].hit = True
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nested_deadlines_answer_for_their_own():
    """The inner deadline ends the inner call only; an outer one that fires first ends both as its own."""

    async def inner_first():
        with pytest.raises(TimeoutError):
            await limited(0.01, asyncio.sleep(5))
        return "went on"

    assert await limited(1, inner_first()) == "went on"
    seen = []

    async def outer_first():
        try:
            await limited(1, asyncio.sleep(5))
        except BaseException as error:
            seen.append(type(error))
            raise

    with pytest.raises(TimeoutError):
        await limited(0.01, outer_first())
    assert seen == [asyncio.CancelledError]


async def test_two_deadlines_of_one_tick_end_in_the_outer_timeout():
    """Deadlines that fall into one tick do not leave the task cancelled."""
    with pytest.raises(TimeoutError):
        await limited(0.01, limited(0.01, asyncio.sleep(5)))
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_swallowed_cancellation_stays_balanced():
    """A body that swallows our cancellation returns its result, and the task counts no cancellation."""

    async def stubborn():
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "stubborn"

    assert await limited(0.01, stubborn()) == "stubborn"
    assert asyncio.current_task().cancelling() == 0


async def test_cancelled_before_it_was_armed_still_times_out():
    """A deadline armed in a task that had been cancelled before and went on is answered by TimeoutError."""

    async def cancelled_before():
        asyncio.current_task().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await limited(0.01, asyncio.sleep(5))
        return asyncio.current_task().cancelling()

    assert await asyncio.create_task(cancelled_before()) == 1


async def test_calls_of_one_tick_share_one_timer():
    """A thousand calls with one deadline put one timer into the loop."""
    loop = asyncio.get_running_loop()
    before = len(loop._scheduled)
    tasks = [asyncio.create_task(limited(30, asyncio.Event().wait())) for _ in range(1000)]
    await asyncio.sleep(0)
    assert len(loop._scheduled) - before <= 30
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_closed_loops_are_forgotten():
    """The wheel keeps no event loop alive."""

    async def once():
        arm(1).close()
        return weakref.ref(asyncio.get_running_loop()), id(asyncio.get_running_loop())

    loop, number = asyncio.run(once())
    gc.collect()
    assert loop() is None
    assert number not in wheel._wheels


def test_deadline_needs_a_running_loop():
    """Outside of a task there is nothing to cancel: RuntimeError."""
    with pytest.raises(RuntimeError):
        arm(1)


async def test_deadline_needs_a_task():
    """In a plain loop callback there is no task to cancel: RuntimeError."""
    loop = asyncio.get_running_loop()
    outcome = loop.create_future()

    def callback():
        try:
            arm(1)
        except RuntimeError as error:
            outcome.set_result(str(error))

    loop.call_soon(callback)
    assert "task" in await outcome


def test_loops_with_a_clock_of_their_own_are_read_by_it():
    """A loop that overrides time() decides when a deadline is due."""

    class Fast(asyncio.SelectorEventLoop):
        def time(self):
            return super().time() * 100

    async def hang():
        with pytest.raises(TimeoutError):
            await limited(0.1, asyncio.sleep(100))
        return True

    loop = Fast()
    try:
        assert loop.run_until_complete(asyncio.wait_for(hang(), 1000))
    finally:
        loop.close()
