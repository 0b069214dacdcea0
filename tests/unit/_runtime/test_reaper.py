"""Expiry by one sleeping thread."""

import gc
import threading
import time
import weakref

from isp_perf._runtime.fork import new_lock
from isp_perf._runtime.reaper import Calendar


class Item:
    """Something with a deadline."""

    def __init__(self):
        self.alive = True


def make_calendar():
    gone = []
    lock = new_lock()

    def expire(items):
        gone.extend((item, time.monotonic()) for item in items if item.alive)

    return Calendar(lock, expire, lambda item: item.alive), gone


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_items_leave_when_they_are_due():
    """Each item is handed over at its moment, the earlier ones first, whatever the order of insertion."""
    calendar, gone = make_calendar()
    start = time.monotonic()
    items = [Item() for _ in range(3)]
    with calendar.lock:
        for item, delay in zip(items, (0.09, 0.03, 0.06), strict=True):
            moment = calendar.add_locked(item, start + delay, delay)
            assert start + delay - 0.002 <= moment <= start + delay
    assert wait_for(lambda: len(gone) == 3)
    assert [item for item, _ in gone] == [items[1], items[2], items[0]]
    assert all(at >= start + 0.02 for _, at in gone)
    assert len(calendar) == 0


def test_removed_items_give_their_place_back():
    """When more than half of a bucket is dead it is rebuilt without them."""
    calendar, _ = make_calendar()
    with calendar.lock:
        for _ in range(10_000):
            item = Item()
            moment = calendar.add_locked(item, 10_000_000_000.0, 100.0)
            item.alive = False
            calendar.release_locked(moment)
    assert len(calendar) < 200


def test_many_due_at_once_are_taken_in_slices():
    """100,000 items due together are all handed over, and the lock is free in between."""
    calendar, gone = make_calendar()
    due = time.monotonic() + 0.1
    with calendar.lock:
        for _ in range(100_000):
            calendar.add_locked(Item(), due, 0.1)
    assert wait_for(lambda: gone)
    with calendar.lock:
        seen = len(gone)
    assert wait_for(lambda: len(gone) == 100_000)
    assert seen <= 100_000


def test_a_deadline_in_a_thousand_years_does_no_harm():
    """The thread outlives a deadline that is further away than a lock can wait."""
    far, _ = make_calendar()
    with far.lock:
        far.add_locked(Item(), time.monotonic() + 3e10, 3e10)
    calendar, gone = make_calendar()
    with calendar.lock:
        calendar.add_locked(Item(), time.monotonic() + 0.01, 0.1)
    assert wait_for(lambda: gone)


def test_a_calendar_is_held_weakly():
    """A cache that is dropped is collected although deadlines of it are far away."""
    calendar, _ = make_calendar()
    with calendar.lock:
        calendar.add_locked(Item(), time.monotonic() + 1000, 1000)
        calendar.clear_locked()
    watch = weakref.ref(calendar)
    del calendar
    gc.collect()
    assert watch() is None


def test_one_thread_serves_all():
    """There is one reaper thread, and it is a daemon."""
    for _ in range(3):
        calendar, gone = make_calendar()
        with calendar.lock:
            calendar.add_locked(Item(), time.monotonic(), 0.1)
        assert wait_for(lambda gone=gone: gone)
    reapers = [thread for thread in threading.enumerate() if thread.name == "isp_perf reaper"]
    assert len(reapers) == 1
    assert reapers[0].daemon
