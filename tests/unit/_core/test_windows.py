"""The records of recent calls, step by step; against models they are in tests/property/test_breaker_windows.py."""

from math import inf, nextafter

import pytest

from isp_perf._core.windows import CountRing, Streak, TimeRing


def time_ring(seconds=10.0, ratio=0.5, *, minimum=1, start=100.0):
    return TimeRing(seconds, ratio, minimum=minimum, start=start)


def succeed(window, now=0.0):
    window.ok += 1
    if window.dirty:
        window.passed(now)


def test_streak_is_dirty_only_while_there_is_a_row():
    """A healthy streak has nothing to settle; a success after a failure cleans it again."""
    window = Streak(3)
    assert (window.dirty, window.counted()) == (False, (0, 0))
    assert not window.failed()
    assert (window.dirty, window.counted(), window.bad) == (True, (1, 1), 1)
    succeed(window)
    assert (window.dirty, window.counted(), window.ok, window.bad) == (False, (0, 0), 1, 1)
    assert [window.failed() for _ in range(4)] == [False, False, True, True]
    assert window.bad == 5


def test_count_ring_is_dirty_only_while_it_holds_a_failure():
    """Successes are free until a failure comes and again when the last one has left the ring."""
    window = CountRing(3, 1.0, 3)
    assert not window.dirty
    window.failed()
    for dirty in (True, True, False):
        assert window.dirty
        succeed(window)
        assert window.dirty is dirty
    assert (window.counted(), window.ok, window.bad) == ((0, 3), 3, 1)


def test_count_ring_judges_the_share_from_the_minimum_on():
    """The share is compared with >=, among the calls seen so far, and judged from the minimum on."""
    window = CountRing(10, 0.5, 4)
    succeed(window)
    succeed(window)
    assert [window.failed(), window.failed()] == [False, True]
    for _ in range(3):
        succeed(window)
    assert [window.failed(), window.failed()] == [False, False]
    assert window.failed()


def test_time_ring_holds_ten_buckets():
    """A failure counts in its own bucket and the nine after it, to the instant."""
    window = time_ring()
    assert (window.dirty, window.edge) == (True, 101.0)
    window.failed(100.0)
    assert window.counted(nextafter(110.0, 0.0)) == (1, 1)
    assert window.counted(110.0) == (0, 0)


def test_time_ring_with_a_call_in_every_bucket():
    """What is older than nine buckets leaves one bucket at a time, failures and successes alike."""
    window = time_ring()
    for second in range(30):
        now = 100.0 + second
        window.failed(now)
        succeed(window, now)
        assert window.edge == now + 1.0
        held = min(second + 1, 10)
        assert window.counted(now) == (held, 2 * held)
    assert (window.ok, window.bad) == (30, 30)


def test_a_call_at_an_edge_belongs_to_the_bucket_that_begins():
    """Buckets are half-open: an outcome at the very edge falls into the later one."""
    for tell in (TimeRing.failed, succeed):
        window = time_ring()
        tell(window, 101.0)
        assert window.counted(nextafter(111.0, 0.0))[1] == 1
        assert window.counted(111.0) == (0, 0)


def test_successes_before_an_edge_stay_in_their_bucket():
    """The success that opens a bucket is counted in it, those before it are not."""
    window = time_ring()
    succeed(window, 100.5)
    succeed(window, 100.6)
    succeed(window, 101.2)
    assert window.counted(110.0) == (0, 1)
    assert window.counted(111.0) == (0, 0)


def test_time_ring_forgets_idle_time():
    """After a pause of a whole window, and not before, nothing counts."""
    window = time_ring()
    window.failed(100.0)
    window.failed(105.0)
    assert window.counted(113.0) == (1, 1)
    assert window.counted(115.0) == (0, 0)
    window.failed(1e6)
    assert window.counted(1e6) == (1, 1)


def test_time_ring_judges_the_share_from_the_minimum_on():
    """The share is that of the failures among all calls, compared with >=, and judged from the minimum on."""
    window = time_ring(ratio=0.5, minimum=3)
    assert [window.failed(100.0), window.failed(100.0), window.failed(100.0)] == [False, False, True]
    for _ in range(5):
        succeed(window, 100.0)
    assert not window.failed(100.0)
    assert window.failed(100.0)


@pytest.mark.parametrize("start", [0.0, 0.1, 12345.678, 1e6 / 3])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 7.7, 1 / 3, 60.0])
def test_edges_are_where_multiplication_puts_them(start, seconds):
    """However division rounds, an instant at ``start + k * span`` opens bucket k, and the one before it does not."""
    span = seconds / 10
    for k in range(1, 400):
        edge = start + k * span
        at, before = time_ring(seconds, start=start), time_ring(seconds, start=start)
        at.roll(edge, 0)
        assert at.index == k
        assert at.edge == start + (k + 1) * span
        earlier = nextafter(edge, -inf)
        if k > 1 and earlier >= before.edge:
            before.roll(earlier, 0)
            assert before.index == k - 1
