"""Expiry by one sleeping thread."""

import gc
import threading
import time
import weakref

from isp_perf._runtime.fork import new_lock
from isp_perf._runtime.reaper import Calendar, width


class Item:
    """Something with a deadline."""

    def __init__(self):
        self.home = self


def make_calendar():
    gone = []

    def expire(moments):
        gone.extend((item, time.monotonic()) for moment in moments for item in moment.items if item.home is not None)

    return Calendar(new_lock(), expire), gone


def add(calendar, item, due, ttl):
    moment = calendar.journal_locked(due, ttl)
    moment.items.append(item)
    return moment


def wait_for(condition, seconds=20.0):
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
            moment = add(calendar, item, start + delay, delay)
            assert start + delay - 0.002 <= moment <= start + delay
    assert wait_for(lambda: len(gone) == 3)
    assert [item for item, _ in gone] == [items[1], items[2], items[0]]
    assert all(at >= start + 0.02 for _, at in gone)
    assert len(calendar) == 0


def test_removed_items_give_their_place_back():
    """When more than half of a moment is dead it is rebuilt without them."""
    calendar, _ = make_calendar()
    with calendar.lock:
        moment = calendar.journal_locked(10_000_000_000.0, 100.0)
        for _ in range(10_000):
            item = Item()
            moment.items.append(item)
            item.home = None
            moment.release()
            assert not moment.full
    assert len(calendar) < 200


def test_moments_of_one_time_are_handed_over_together():
    """A moment is full at some point; another of the same time takes the rest, and all are due together."""
    calendar, gone = make_calendar()
    due = time.monotonic() + 0.1
    with calendar.lock:
        first = add(calendar, Item(), due, 0.1)
        second = add(calendar, Item(), due, 0.1)
        first.items += [Item() for _ in range(5000)]
        assert first == second
        assert first.full
        assert not second.full
        assert first.alive == 5001
    assert wait_for(lambda: len(gone) >= 5002)
    assert len(gone) == 5002


def test_the_width_of_a_moment_follows_the_ttl():
    """Nothing is due more than ttl/256 early, none is finer than a millisecond, and ttls that are alike share one."""
    assert width(256.0) == 1.0
    assert width(0.01) == 2**-10
    for ttl in (0.3, 1.0, 3.7, 300.0, 86_400.0):
        assert ttl / 512 < width(ttl) <= max(2**-10, ttl / 256)
    assert width(300.0) == width(299.9999999999)


def test_a_deadline_in_a_thousand_years_does_no_harm():
    """The thread outlives a deadline that is further away than a lock can wait."""
    far, _ = make_calendar()
    with far.lock:
        add(far, Item(), time.monotonic() + 3e10, 3e10)
    calendar, gone = make_calendar()
    with calendar.lock:
        add(calendar, Item(), time.monotonic() + 0.01, 0.1)
    assert wait_for(lambda: gone)


def test_a_calendar_is_held_weakly():
    """A cache that is dropped is collected although deadlines of it are far away."""
    calendar, _ = make_calendar()
    with calendar.lock:
        add(calendar, Item(), time.monotonic() + 1000, 1000)
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
            add(calendar, Item(), time.monotonic(), 0.1)
        assert wait_for(lambda gone=gone: gone)
    reapers = [thread for thread in threading.enumerate() if thread.name == "isp_perf reaper"]
    assert len(reapers) == 1
    assert reapers[0].daemon
