"""Marks and trust: what may enter the local level, and how long it is believed."""

import threading
from time import monotonic, sleep

from isp_perf._runtime.flights import ThreadWaiter
from isp_perf.cache._local import LocalLevel
from isp_perf.cache._marks import Marks
from isp_perf.cache._trust import Trust


def test_a_change_of_any_name_lifts_the_mark():
    """A mark stands until one of its names changes, and leaves nothing behind."""
    marks = Marks()
    one, other = marks.set_locked(["a", "b"]), marks.set_locked(["b"])
    marks.changed_locked("a")
    assert (one.standing, other.standing) == (False, True)
    marks.changed_where_locked(lambda name: name == "b")
    assert not other.standing
    third = marks.set_locked(["c"])
    marks.extend_locked(third, ["d"])
    marks.lift_locked(third)
    marks.extend_locked(third, ["e"])
    assert len(marks) == 0
    fourth = marks.set_locked(["x"])
    marks.changed_all_locked()
    assert not fourth.standing


def test_who_waits_for_a_change_is_woken():
    """A waiter on a mark wakes when the name changes, in its own thread."""
    marks = Marks()
    mark = marks.set_locked(["a"])
    mark.waiter = waiter = ThreadWaiter()
    threading.Timer(0.02, marks.changed_locked, ["a"]).start()
    assert waiter.wait_for(5) is None


def trusted(bound):
    trust = Trust(LocalLevel(10, monotonic))
    trust.narrow(bound)
    return trust


def test_nothing_is_believed_before_changes_are_reported():
    """Without a channel the local level is not believed, and proofs count for nothing."""
    trust = trusted(0.1)
    trust.proved_locked(monotonic())
    assert not trust.given


def test_trust_ends_with_its_bound_and_comes_back_with_a_proof():
    """The reaper withdraws the local level when the last proof is too old; a new proof brings it back."""
    trust = trusted(0.02)
    trust.connected_locked()
    assert trust.given
    sleep(0.1)
    assert not trust.given
    assert trust.connected
    trust.proved_locked(monotonic() - 1)
    assert not trust.given
    trust.proved_locked(monotonic())
    assert trust.given
    assert trust.lost_seconds > 0
    trust.lost_locked()
    assert not trust.given


def test_the_smallest_bound_counts():
    """Each function may narrow the bound, none below 10 ms, and 0 does not count."""
    trust = trusted(0.5)
    trust.narrow(1.0)
    trust.narrow(0.0)
    assert trust.bound == 0.5
    trust.narrow(0.001)
    assert trust.bound == 0.01
