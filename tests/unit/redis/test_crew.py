"""The threads that ask several nodes at one time."""

import threading
from functools import partial

import pytest

from isp_perf.redis._crew import Crew


def test_calls_run_at_one_time_and_their_results_are_in_order():
    """Each of them waits for all the others, the caller's own thread takes one, and a second batch works as well."""
    crew = Crew()
    for _ in range(2):
        barrier, threads = threading.Barrier(5), set()

        def call(number, barrier=barrier, threads=threads):
            threads.add(threading.current_thread())
            barrier.wait(30)
            return [number]

        assert crew.at_once([partial(call, number) for number in range(5)]) == [[number] for number in range(5)]
        assert threading.current_thread() in threads


def test_one_call_needs_no_other_thread():
    """It is made by the caller; none is no error, and what a call raises is raised."""
    crew = Crew()
    assert crew.at_once([lambda: [threading.current_thread()]]) == [[threading.current_thread()]]
    assert crew.at_once([]) == []
    assert "_threads" not in vars(crew)
    with pytest.raises(ZeroDivisionError):
        crew.at_once([lambda: [1 / 0], list])
