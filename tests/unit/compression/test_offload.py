"""Codec work in threads: results, cancellation, load, and executors that are gone."""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from isp_perf.compression import Budget, CompressionMiddleware
from isp_perf.compression._offload import Offload

AWAY = Budget(inline_ms=0)


async def test_a_job_runs_in_another_thread_and_its_errors_pass():
    """A job's result comes back from a thread of ours, and so does its error."""
    offload = Offload()
    name = await offload.run(lambda: threading.current_thread().name)
    assert name.startswith("isp_perf-codec")
    with pytest.raises(ZeroDivisionError):
        await offload.run(lambda: 1 // 0)
    assert offload.pending == 0
    offload.close()
    assert await offload.run(lambda: 5) == 5
    offload.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread a priority of its own")
async def test_our_threads_step_back_behind_the_loop():
    """Codec threads of ours are nicer than the thread of the loop; a given executor's stay as they are."""

    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    offload = Offload()
    assert await offload.run(niceness) > niceness()
    offload.close()
    with ThreadPoolExecutor(1) as executor:
        assert await Offload(executor).run(niceness) == niceness()


async def test_an_executor_of_the_user_is_used(http, big):
    """With executor= the jobs run there, and a shut-down executor costs time but no response."""
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        offload = Offload(executor)
        assert (await offload.run(lambda: threading.current_thread().name)).startswith("mine")
        middleware = CompressionMiddleware(http.answer(big), budget=AWAY, executor=executor)
        assert (await http.call(middleware)).body == big
    assert (await http.call(middleware)).body == big


async def test_waiting_jobs_are_load_and_step_the_levels_down(http, big):
    """While the threads cannot follow, levels step down, and come back when the queue is gone."""
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(gate.wait)
    body = big * 3
    middleware = CompressionMiddleware(http.answer(body), budget=AWAY, executor=executor)
    tasks = [asyncio.ensure_future(http.call(middleware)) for _ in range(24)]
    await asyncio.sleep(0)
    assert middleware.stats.level_steps == 3
    gate.set()
    got = await asyncio.gather(*tasks)
    assert [g.body for g in got] == [body] * 24
    assert {g.coding for g in got} == {"br", "zstd"}
    executor.shutdown()


@pytest.mark.parametrize("chunks", [1, 3])
async def test_a_cancelled_response_leaves_nothing_behind(http, big, chunks):
    """Cancelling while a thread works reaches the application at once, and nothing is sent or left after it."""
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(gate.wait)
    sent, after = [], []

    async def app(scope, receive, send):
        try:
            await http.answer(chunks=[big] * chunks)(scope, receive, send)
        except asyncio.CancelledError:
            with pytest.raises(RuntimeError, match="broken off"):
                await send({"type": http.BODY, "body": b"more"})
            after.append(len(sent))
            raise

    async def keep(message):
        sent.append(message["type"])

    middleware = CompressionMiddleware(app, budget=AWAY, executor=executor)
    task = asyncio.ensure_future(http.call(middleware, send=keep))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await asyncio.to_thread(executor.shutdown)
    assert after == [len(sent)]
    assert sent == ([] if chunks == 1 else [http.START])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    stats = middleware.stats
    assert stats.total_requests + sum(stats.skipped.values()) == 1
    assert middleware._engine.offload.pending == 0


def test_without_asyncio_the_job_runs_here():
    """Outside asyncio, where no other loop is known, the work is done at once."""
    coroutine = Offload().run(lambda: 7)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == 7


def test_under_trio_its_own_threads_are_used(http, big):
    """A trio server's event loop is kept free by trio's threads."""
    trio = pytest.importorskip("trio", reason="trio is not installed")
    got = trio.run(http.call, CompressionMiddleware(http.answer(big), budget=AWAY))
    assert got.body == big
    assert trio.run(Offload().run, threading.current_thread) is not threading.main_thread()


def test_a_second_loop_and_a_fork_start_over(http, big):
    """The same middleware serves a second event loop, and a forked child with threads of its own."""
    import os

    middleware = CompressionMiddleware(http.answer(big), budget=AWAY)
    for _ in range(2):
        assert asyncio.run(http.call(middleware)).body == big
    offload = middleware._engine.offload
    threads = offload._executor
    offload._pid = os.getpid() + 1  # what a child finds
    assert asyncio.run(http.call(middleware)).body == big
    assert offload._executor is not threads
    threads.shutdown()
    offload.close()
