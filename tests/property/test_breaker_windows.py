"""The windows against models that remember every call."""

from hypothesis import given
from hypothesis import strategies as st

from isp_perf._core.breaker_probes import CLOSE, OPEN, UNDECIDED, Probes, smallest_reaching
from isp_perf._core.windows import CountRing, Streak, TimeRing

RATIOS = st.sampled_from([0.01, 0.1, 0.25, 1 / 3, 0.5, 0.6, 0.75, 1.0])
OUTCOMES = st.lists(st.booleans(), max_size=200)


def tell(window, failed, now=0.0):
    """Tell a window of one completed call, as its owner does; return whether it was one failure too many."""
    if failed:
        return window.failed(now)
    window.ok += 1
    if window.dirty:
        window.passed(now)
    return False


@given(OUTCOMES, st.integers(1, 6))
def test_streak_equals_counting_back(outcomes, limit):
    """A streak is over its limit exactly when the last ``limit`` calls or more failed."""
    window = Streak(limit)
    for index, failed in enumerate(outcomes):
        seen = outcomes[: index + 1]
        row = len(seen) - max((i + 1 for i, bad in enumerate(seen) if not bad), default=0)
        assert tell(window, failed) == (failed and row >= limit)
        assert window.counted()[0] == row


@given(OUTCOMES, st.integers(1, 70), RATIOS, st.data())
def test_count_ring_equals_the_last_calls(outcomes, size, ratio, data):
    """A count window judges exactly the last ``size`` calls, healthy stretches included."""
    minimum = data.draw(st.integers(1, size))
    window = CountRing(size, ratio, minimum)
    for index, failed in enumerate(outcomes):
        last = outcomes[: index + 1][-size:]
        expected = failed and len(last) >= minimum and sum(last) >= ratio * len(last)
        assert tell(window, failed) == expected
        assert window.counted() == (sum(last), len(last))


@given(
    st.lists(st.tuples(st.floats(0, 30, allow_nan=False), st.booleans()), max_size=120),
    st.sampled_from([1.0, 10.0, 0.3, 7.7]),
    RATIOS,
    st.integers(1, 20),
    st.floats(0, 1e6, allow_nan=False),
)
def test_time_ring_equals_the_calls_of_the_last_buckets(steps, seconds, ratio, minimum, start):
    """A time window judges the calls of the present bucket and the nine before it, whatever the times."""
    window = TimeRing(seconds, ratio, minimum=minimum, start=start)
    span = seconds / 10
    calls = []
    now = start
    for step, failed in steps:
        now += step
        present = bucket(now, start, span)
        calls.append((present, failed))
        inside = [bad for place, bad in calls if place > present - 10]
        expected = failed and len(inside) >= minimum and sum(inside) >= ratio * len(inside)
        assert tell(window, failed, now) == expected
        assert window.counted(now) == (sum(inside), len(inside))


def bucket(now, start, span):
    """Return the number of the half-open interval that holds ``now``."""
    number = int((now - start) / span)
    while start + (number + 1) * span <= now:
        number += 1
    while number > 0 and start + number * span > now:
        number -= 1
    return number


@given(st.floats(0.001, 1.0), st.integers(1, 1000))
def test_smallest_count_that_reaches_a_ratio(ratio, limit):
    """The count is the first whose share is at least the ratio."""
    count = smallest_reaching(ratio, limit)
    assert 1 <= count <= limit
    assert count / limit >= ratio
    assert count == 1 or (count - 1) / limit < ratio


@given(
    st.integers(1, 8),
    st.one_of(st.none(), RATIOS),
    st.one_of(st.none(), RATIOS),
    st.lists(st.tuples(st.sampled_from(["lend", "ok", "fail", "back", "wait"]), st.booleans()), max_size=60),
)
def test_probes_equal_a_list_of_permits(limit, failure_ratio, slow_ratio, steps):
    """Never more than ``limit`` permits are out or answered, and the verdict falls as early as it is certain."""
    probes = Probes(limit, 5.0, failure_ratio=failure_ratio, slow_ratio=slow_ratio)
    out, answers = [], []
    now, verdict = 0.0, UNDECIDED
    for step, slow in steps:
        if verdict != UNDECIDED:
            break
        if step == "lend":
            token = probes.lend(now)
            assert bool(token) == (len(out) + len(answers) < limit)
            if token:
                out.append((token, now + 5.0))
        elif step == "wait":
            now += 2.0
            answers += [("fail", False) for _, end in out if now >= end]
            out = [(token, end) for token, end in out if now < end]
            verdict = probes.expire(now)
        elif out:
            token, _ = out.pop()
            if step == "back":
                assert probes.hand_back(token)
                assert not probes.hand_back(token)
            else:
                answers.append((step, slow))
                verdict = probes.settle(token, failed=step == "fail", slow=slow)
                assert probes.settle(token, failed=False, slow=False) is None
        assert verdict == judged(limit, failure_ratio, slow_ratio, answers)


def judged(limit, failure_ratio, slow_ratio, answers):
    """Return what every possible rest of the round would agree on."""

    def opens(lost, slow):
        by_failures = lost >= 1 if failure_ratio is None else lost > 0 and lost / limit >= failure_ratio
        return by_failures or (slow_ratio is not None and slow > 0 and slow / limit >= slow_ratio)

    lost = sum(step == "fail" for step, _ in answers)
    slow = sum(was_slow for _, was_slow in answers)
    left = limit - len(answers)
    if opens(lost, slow):
        return OPEN
    return UNDECIDED if left and opens(lost + left, slow + left) else CLOSE
