"""Step lists of gobreaker, Failsafe, Polly and resilience4j, run on our breaker; see README-breaker-steps.md."""

import json
from pathlib import Path

import pytest

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitOpenError, CountWindow, SlowCall, TimeWindow
from isp_perf.testing import ManualClock

HERE = Path(__file__).parent
LISTS = [
    pytest.param(entry, id=f"{project}-{entry['test']}")
    for project in ("gobreaker", "failsafe", "polly", "resilience4j")
    for entry in json.loads((HERE / project / "steps.json").read_text(encoding="utf-8"))
]


def breaker_for(entry, clock):
    settings = dict(entry["config"])
    if "window" in settings:
        kind, *values = settings["window"]
        settings["window"] = (CountWindow if kind == "count" else TimeWindow)(*values)
    if "slow_call" in settings:
        settings["slow_call"] = SlowCall(settings["slow_call"], 1.0)
    breaker = CircuitBreaker(entry["test"], CircuitConfig(**settings), clock=clock)
    if entry.get("metrics_only"):
        breaker.metrics_only()
    return breaker


class Steps:
    """What each word of a step list does."""

    def __init__(self, breaker, clock):
        self.breaker = breaker
        self.clock = clock
        self.pending = {}

    def ok(self, times):
        for _ in range(times):
            self.breaker.permit().ok()

    def fail(self, times):
        for _ in range(times):
            self.breaker.permit().failed(OSError())

    def slow_ok(self, times):
        self._slow(times, "ok")

    def slow_fail(self, times):
        self._slow(times, "fail")

    def _slow(self, times, how):
        for _ in range(times):
            self.begin("slow")
            self.clock.advance(1.0)
            getattr(self, f"end_{how}")("slow")

    def begin(self, name):
        self.pending[name] = self.breaker.permit()

    def end_ok(self, name):
        self.pending.pop(name).ok()

    def end_fail(self, name):
        self.pending.pop(name).failed(OSError())

    def rejected(self, times):
        for _ in range(times):
            with pytest.raises(CircuitOpenError):
                self.breaker.permit()

    def isolate(self):
        self.breaker.isolate("by hand")

    def reset(self):
        self.breaker.reset()

    def retry_after(self, seconds):
        assert self.breaker.retry_after == pytest.approx(seconds)

    def sleep(self, seconds):
        self.clock.advance(seconds)

    def state(self, name):
        assert self.breaker.state == name

    def counted(self, failures, calls):
        report = self.breaker.report()
        assert (report["failure_count"], report["calls_counted"]) == (failures, calls)

    def slow_counted(self, number):
        assert self.breaker.era.slows.counted(self.clock())[0] == number


@pytest.mark.parametrize("entry", LISTS)
def test_step_list_of_another_breaker_holds_here(entry):
    """What that project's own test expects after each step is what our breaker says."""
    clock = ManualClock()
    steps = Steps(breaker_for(entry, clock), clock)
    for word, *values in entry["steps"]:
        getattr(steps, word)(*values)
