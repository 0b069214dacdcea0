"""Whatever the order of answers, hangs, cancellations and clock steps: coroutines are admitted as the rules say."""

from asyncio import CancelledError

from hypothesis import given
from hypothesis import strategies as st

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitOpenError
from isp_perf.testing import ManualClock

EVENTS = st.one_of(
    st.just(("call",)),
    st.just(("call",)),
    st.tuples(st.sampled_from(["ok", "fail", "cancel"]), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 3.0, 10.0])),
)


class Expected:
    """Failures in a row, one probe with a lease: the rules, written down a second time as plainly as possible."""

    def __init__(self, threshold):
        self.threshold = threshold
        self.state, self.epoch, self.row = "closed", 0, 0
        self.until = self.lease = 0.0
        self.probe = None

    def move(self, state, now):
        self.state, self.row, self.probe = state, 0, None
        self.epoch += 1
        self.until = now + 10.0

    def admits(self, number, now):
        if self.state == "open" and now >= self.until:
            self.move("half_open", now)
        if self.state == "half_open" and self.probe is not None and now >= self.lease:
            self.move("open", now)
        if self.state == "open" or self.probe is not None:
            return None
        if self.state == "half_open":
            self.probe, self.lease = number, now + 3.0
        return self.epoch

    def ended(self, number, epoch, how, *, now):
        if epoch != self.epoch:
            return
        if self.state == "half_open":
            self.probe = None
            if how != "cancel":
                self.move("closed" if how == "ok" else "open", now)
        elif how == "ok":
            self.row = 0
        elif how == "fail":
            self.row += 1
            if self.row >= self.threshold:
                self.move("open", now)


class Suspended:
    """What a coroutine waits for here: nobody but the test resumes it."""

    def __await__(self):
        return (yield)


@given(st.integers(1, 3), st.lists(EVENTS, max_size=60))
def test_coroutines_are_admitted_in_any_order_as_the_rules_say(threshold, events):
    """Late successes, hung probes and cancelled ones admit nobody whom the rules do not admit, and lock nobody out."""
    clock = ManualClock()
    breaker = CircuitBreaker(
        "orders", CircuitConfig(failure_threshold=threshold, break_duration=10, probe_timeout=3), clock=clock
    )
    expected = Expected(threshold)
    reached, running = [], []

    @breaker
    async def work(number):
        reached.append(number)
        await Suspended()

    now = 0.0
    for serial, (event, *values) in enumerate(events):
        if event == "wait":
            clock.advance(values[0])
            now += values[0]
        elif event == "call":
            epoch = expected.admits(serial, now)
            call = work(serial)
            try:
                call.send(None)
            except CircuitOpenError:
                assert epoch is None
            else:
                assert epoch is not None
                assert reached[-1] == serial
                running.append((serial, epoch, call))
        elif running:
            number, epoch, call = running.pop(values[0] % len(running))
            end(call, event)
            expected.ended(number, epoch, event, now=now)
        assert breaker.state == expected.state
    for *_, call in running:
        call.close()


def end(call, how):
    """Let a suspended coroutine return, fail, or be cancelled."""
    try:
        if how == "ok":
            call.send(None)
        else:
            call.throw(OSError() if how == "fail" else CancelledError())
    except (StopIteration, OSError, CancelledError):
        return
    raise AssertionError("the coroutine goes on")
