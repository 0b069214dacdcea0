"""The breaker against an independent model: lists, brute force, none of our classes."""

from functools import partial
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from isp_perf._core.breaker_fleet import Target, View
from isp_perf._core.breaker_states import TRANSITIONS
from isp_perf.breaker import (
    Backoff,
    CircuitBreaker,
    CircuitConfig,
    CircuitIsolatedError,
    CircuitOpenError,
    CountWindow,
    ProbeLimitError,
    SlowCall,
)
from isp_perf.breaker._obeying import obey_locked, return_locked
from isp_perf.testing import ManualClock

TARGETS = get_args(Target)


class Model:
    """What the documentation promises, remembered call by call."""

    def __init__(self, threshold, size, ratio, minimum, probes, lease):
        self.threshold, self.size, self.ratio, self.minimum = threshold, size, ratio, minimum
        self.probes, self.lease = probes, lease
        self.now = 0.0
        self.era = 0
        self.round = 0
        self.successes = self.failures = self.rejected = self.late = 0
        self.uncounted = set()
        self.enter("closed")

    def enter(self, state):
        self.state = state
        self.era += 1
        if state == "disabled":
            self.uncounted.add(self.era)
        self.calls = []
        self.out = {}
        self.answers = []
        if state == "closed":
            self.round = 0
        if state == "open":
            self.until = self.now + min(40.0, 10.0 * 2.0**self.round)
            self.break_ = min(40.0, 10.0 * 2.0**self.round)
            self.round += 1

    def ask(self, number):
        """Return the class of the rejection, or the era that admits call ``number``."""
        if self.state == "open" and self.now >= self.until:
            self.enter("half_open")
        if self.state == "half_open":
            hung = [token for token, end in self.out.items() if self.now >= end]
            for token in hung:
                del self.out[token]
                self.answers.append(True)
            if hung:
                self.decide()
        if self.state == "open" and self.now >= self.until:
            raise AssertionError("a break of no length")
        if self.state in {"open", "isolated"}:
            self.rejected += 1
            return CircuitOpenError if self.state == "open" else CircuitIsolatedError
        if self.state == "half_open":
            if len(self.out) + len(self.answers) >= self.probes:
                self.rejected += 1
                return ProbeLimitError
            self.out[number] = self.now + (self.lease or self.break_)
        return self.era

    def settle(self, number, era, outcome):
        if era in self.uncounted:
            return
        if outcome == "neutral":
            if era == self.era:
                self.out.pop(number, None)
            return
        failed = outcome == "fail"
        self.successes += not failed
        self.failures += failed
        hung = self.state == "half_open" and number not in self.out
        if era != self.era or hung:
            self.late += 1
        elif self.state == "half_open":
            del self.out[number]
            self.answers.append(failed)
            self.decide()
        elif self.state == "closed":
            self.calls.append(failed)
            if failed and self.too_many():
                self.enter("open")

    def too_many(self):
        if self.threshold:
            return len(self.calls) >= self.threshold and all(self.calls[-self.threshold :])
        last = self.calls[-self.size :]
        return len(last) >= self.minimum and sum(last) >= self.ratio * len(last)

    def decide(self):
        lost, left = sum(self.answers), self.probes - len(self.answers)

        def opens(lost):
            return lost > 0 and (bool(self.threshold) or lost / self.probes >= self.ratio)

        if opens(lost):
            self.enter("open")
        elif not opens(lost + left) or not left:
            self.enter("closed")


class BreakerMachine(RuleBasedStateMachine):
    """Any order of admissions, results, hangs, clock steps and manual control."""

    calls = Bundle("calls")

    @initialize(
        windowed=st.booleans(),
        threshold=st.integers(1, 4),
        size=st.integers(1, 6),
        ratio=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        probes=st.integers(1, 4),
        lease=st.sampled_from([None, 3.0]),
        watched=st.booleans(),
    )
    def begin(self, windowed, threshold, size, ratio, probes, lease, watched):
        minimum = min(size, 2)
        self.clock = ManualClock()
        limits = {"window": CountWindow(size, ratio, minimum)} if windowed else {"failure_threshold": threshold}
        config = CircuitConfig(
            **limits,
            break_duration=Backoff(10, factor=2, maximum=40, jitter=0),
            probes=probes,
            probe_timeout=lease,
            bad_result=(lambda result: False) if watched else None,
        )
        self.breaker = CircuitBreaker("model", config, clock=self.clock)
        self.model = Model(None if windowed else threshold, size, ratio, minimum, probes, lease)
        self.held = []
        self.number = 0

    @rule(target=calls)
    def ask(self):
        self.number += 1
        expected = self.model.ask(self.number)
        if isinstance(expected, int):
            return self.number, expected, self.breaker.permit()
        with pytest.raises(expected):
            self.breaker.permit()
        return None

    @rule(call=consumes(calls), outcome=st.sampled_from(["ok", "ok", "fail", "fail", "neutral"]))
    def settle(self, call, outcome):
        if call is None:
            return
        number, era, permit = call
        {"ok": permit.ok, "fail": lambda: permit.failed(OSError()), "neutral": permit.release}[outcome]()
        self.model.settle(number, era, outcome)

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0, 40.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule()
    def isolate(self):
        self.held.append(self.breaker.isolate("test"))
        if self.model.state != "isolated":
            self.model.enter("isolated")

    @rule()
    def release(self):
        if self.held:
            self.held.pop().release()
            if self.model.state == "isolated" and not self.held:
                self.model.enter("closed")

    @rule(to=st.sampled_from(["reset", "disable"]))
    def by_hand(self, to):
        getattr(self.breaker, to)()
        self.held.clear()
        self.model.enter("closed" if to == "reset" else "disabled")
        self.model.round = 0

    @invariant()
    def agree(self):
        if not hasattr(self, "model"):
            return
        counts = self.breaker.counts
        assert self.breaker.state == self.model.state
        assert counts.rejected == self.model.rejected
        assert (counts.successes, counts.failures) == (self.model.successes, self.model.failures)
        assert counts.late == self.model.late
        if self.model.state == "open":
            assert self.breaker.retry_after == max(0.0, self.model.until - self.model.now)

    def teardown(self):
        # Permits that are still out must not settle in the middle of another example's collection.
        self.held = []


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestBreakerMachine = BreakerMachine.TestCase


def fail():
    raise OSError


def attempt(breaker, function=fail):
    try:
        return breaker.call(function)
    except (OSError, CircuitOpenError) as error:
        return error


def brought_to(state, config, clock):
    """Return a breaker that has come to ``state`` by itself or by hand."""
    breaker = CircuitBreaker("table", config, clock=clock)
    if state in {"open", "half_open"}:
        attempt(breaker)
        attempt(breaker)
    if state == "half_open":
        clock.advance(10)
        breaker.permit().release()
    by_hand = {"isolated": lambda: breaker.isolate("x", 5), "disabled": breaker.disable}
    by_hand.get(state, breaker.metrics_only if state == "metrics_only" else lambda: None)()
    assert breaker.state == state
    return breaker


def cause_it(breaker, clock, cause):
    """Do what causes the transition ``cause``."""
    if cause in {"ramp_over", "too_many_failures", "too_many_slow_calls", "server_asked"}:
        if breaker.state == "half_open":
            breaker.permit().ok()
            clock.advance(9.9)
        if cause == "ramp_over":
            clock.advance(0.2)
            attempt(breaker, int)
    if cause == "too_many_failures":
        for _ in range(2):
            attempt(breaker)
    if cause == "too_many_slow_calls":
        for _ in range(5):
            attempt(breaker, lambda: clock.advance(0.01))
    if cause == "server_asked":
        breaker.call(lambda: "wait")
    if cause in {"break_over", "probe_hung"}:
        held = breaker.permit() if cause == "probe_hung" else None
        clock.advance(10)
        attempt(breaker, int)
        del held
    if cause == "released":
        clock.advance(5)
        attempt(breaker, int)
    if cause in {"probes_passed", "ramp_begins"}:
        breaker.permit().ok()
    if cause == "probe_failed":
        attempt(breaker)
    by_hand = {
        "isolated": lambda: breaker.isolate("y"),
        "reset": breaker.reset,
        "disabled": breaker.disable,
        "metrics_only": breaker.metrics_only,
        "reconfigured": lambda: breaker.reconfigure(breaker.config.replace(probes=2)),
        "probe_returned": lambda: return_locked(breaker),
    }
    by_hand |= {f"fleet_{target}": partial(obey_locked, breaker, target, View(1, left=5.0)) for target in TARGETS}
    by_hand.get(cause, lambda: None)()
    breaker.announce()


@pytest.mark.parametrize(("state", "cause"), sorted(TRANSITIONS))
def test_every_transition_of_the_table_can_be_reached(state, cause):
    """Each row of the table happens when its cause does, and leads where the table says."""
    clock = ManualClock()
    ramps = (
        cause not in {"probes_passed", "probe_failed", "probe_hung"} if state == "half_open" else cause == "fleet_ramp"
    )
    ramp = 10.0 if ramps else 0.0
    config = CircuitConfig(
        failure_threshold=2,
        break_duration=10,
        ramp=ramp,
        slow_call=SlowCall(0.01) if cause == "too_many_slow_calls" else None,
        retry_after=(lambda outcome: 5.0 if outcome == "wait" else None) if cause == "server_asked" else None,
    )
    breaker = brought_to(state, config, clock)
    seen = []
    breaker.on("transition", lambda event: seen.append((event.before, event.cause, event.after)))
    cause_it(breaker, clock, cause)
    assert (state, cause, TRANSITIONS[state, cause]) in seen
