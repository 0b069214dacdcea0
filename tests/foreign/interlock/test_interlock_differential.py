"""interlock-cb as an oracle for count windows: the same outcomes lead to the same states."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CountWindow
from isp_perf.testing import ManualClock

interlock = pytest.importorskip("interlock", reason="interlock-cb is in the bench group, not among the test extras")


class Clock:
    """The clock that interlock-cb asks for, moved by ours."""

    def __init__(self, manual):
        self.manual = manual

    def monotonic(self):
        return self.manual()

    def now(self):
        return self.manual()

    def __call__(self):
        return self.manual()


@settings(max_examples=100)
@given(
    st.integers(1, 20),
    st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    st.data(),
)
def test_count_windows_open_and_close_as_interlock_does(size, ratio, data):
    """With the minimum reached by successes first, both open on the same call and recover on the same probe."""
    minimum = data.draw(st.integers(1, size))
    clock = ManualClock()
    ours = CircuitBreaker(
        "ours", CircuitConfig(window=CountWindow(size, ratio, minimum), break_duration=10), clock=clock
    )
    theirs = interlock.CircuitBreaker(
        name="theirs",
        config=interlock.Config(
            failure_rate_threshold=ratio,
            minimum_number_of_calls=minimum,
            window_size=size,
            permitted_calls_in_half_open=1,
            wait_duration_in_open=10.0,
            slow_call_duration_threshold=3600.0,
        ),
        clock=Clock(clock),
    )
    # A share is judged here when a failure completes, there after every call: the prefix makes that one rule.
    outcomes = [True] * (minimum - 1) + data.draw(st.lists(st.booleans(), max_size=60))
    for good in outcomes:
        assert both(ours, theirs, good) in ({"made"}, {"rejected"})
        assert str(theirs.state) == ours.state
        if ours.state == "open" and data.draw(st.booleans()):
            clock.advance(10)
            probe = data.draw(st.booleans())
            assert both(ours, theirs, probe) == {"made"}
            assert str(theirs.state) == ours.state
            if probe:
                break


def both(ours, theirs, good):
    """Make the call on both sides and return the set of what happened."""

    def work():
        if not good:
            raise OSError

    happened = set()
    for call in (ours.call, theirs.call_sync):
        try:
            call(work)
        except OSError:
            happened.add("made")
        except Exception:
            happened.add("rejected")
        else:
            happened.add("made")
    return happened
