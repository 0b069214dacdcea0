import asyncio
import pickle

import pytest

from isp_perf.breaker import (
    Backoff,
    CircuitBreaker,
    CircuitConfig,
    CircuitIsolatedError,
    CircuitOpenError,
    CountWindow,
    ProbeLimitError,
    SlowCall,
    TimeWindow,
)
from isp_perf.errors import BulkheadFullError, ConfigurationError
from isp_perf.testing import ManualClock


class Service:
    """A service whose next answer a test decides."""

    def __init__(self):
        self.answer = "fine"

    def __call__(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def service():
    return Service()


def attempt(breaker, service, answer="fine"):
    """Make one call with the given answer; return the answer or the class of what was raised."""
    service.answer = answer
    try:
        return breaker.call(service)
    except BaseException as error:
        return type(error)


def opened(clock, **settings):
    """Return a breaker that has just opened for 30 s."""
    settings = {"failure_threshold": 1, "break_duration": 30.0, **settings}
    breaker = CircuitBreaker("api", CircuitConfig(**settings), clock=clock)
    with pytest.raises(OSError):
        breaker.call(fail)
    assert breaker.state == "open"
    return breaker


def fail():
    raise OSError("down")


def test_failures_in_a_row_open_the_circuit(clock, service):
    """The circuit opens with the failure that makes the streak as long as the threshold, not before."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=3), clock=clock)
    for _ in range(2):
        attempt(breaker, service, OSError())
    assert attempt(breaker, service) == "fine"
    for _ in range(2):
        attempt(breaker, service, OSError())
    assert breaker.state == "closed"
    attempt(breaker, service, OSError())
    assert breaker.state == "open"
    assert attempt(breaker, service) is CircuitOpenError


def test_open_circuit_rejects_until_its_break_is_over(clock, service):
    """While open no call is made; the rejection says how long; at the very instant the break ends a probe passes."""
    breaker = opened(clock)
    clock.advance(29.5)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(service)
    assert caught.value.name == "api"
    assert caught.value.retry_after == 0.5
    assert caught.value.cause == "OSError"
    clock.advance(0.5)
    assert attempt(breaker, service) == "fine"
    assert breaker.state == "closed"


def test_every_rejection_is_a_fresh_picklable_exception(clock):
    """Rejections share no instance, hold no failure's traceback, and survive pickling."""
    breaker = opened(clock)
    errors = []
    for _ in range(2):
        with pytest.raises(CircuitOpenError) as caught:
            breaker.call(fail)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].__cause__ is None
    assert errors[0].__context__ is None
    copy = pickle.loads(pickle.dumps(errors[0]))
    assert (type(copy), copy.args, str(copy)) == (CircuitOpenError, errors[0].args, str(errors[0]))
    assert len({*errors}) == 2


def test_failed_probe_opens_again_with_backoff(clock, service):
    """One failed probe is enough, and each opening without a closing between waits longer."""
    breaker = opened(clock, failure_threshold=1, break_duration=Backoff(10, factor=2, maximum=25, jitter=0))
    for wait in (10, 20, 25, 25):
        assert breaker.retry_after == wait
        clock.advance(wait)
        attempt(breaker, service, OSError())
        assert breaker.state == "open"
    clock.advance(25)
    attempt(breaker, service)
    attempt(breaker, service, OSError())
    assert breaker.retry_after == 10


def test_half_open_admits_exactly_its_probes(clock):
    """While the probes are out everyone else is rejected; the last answer decides."""
    breaker = opened(clock, probes=2)
    clock.advance(30)
    permits = [breaker.permit(), breaker.permit()]
    with pytest.raises(ProbeLimitError):
        breaker.permit()
    permits[0].ok()
    assert breaker.state == "half_open"
    with pytest.raises(ProbeLimitError):
        breaker.permit()
    permits[1].ok()
    assert breaker.state == "closed"


def test_half_open_with_a_window_tolerates_its_ratio(clock):
    """With a window, failed probes are tolerated while their share is below the ratio, and decided early."""
    config = CircuitConfig(window=CountWindow(10, 0.5, 1), probes=4, break_duration=30)
    breaker = CircuitBreaker("api", config, clock=clock)
    with pytest.raises(OSError):
        breaker.call(fail)
    clock.advance(30)
    permits = [breaker.permit() for _ in range(4)]
    permits[0].failed(OSError())
    assert breaker.state == "half_open"
    permits[1].failed(OSError())
    assert breaker.state == "open"
    clock.advance(30)
    permits = [breaker.permit() for _ in range(4)]
    permits[0].failed(OSError())
    permits[1].ok()
    permits[2].ok()
    assert breaker.state == "half_open"
    permits[3].ok()
    assert breaker.state == "closed"


def test_hung_probe_counts_as_failed(clock, service):
    """The first arrival after the probe's lease finds the circuit open again; the probe's late answer does nothing."""
    breaker = opened(clock, probe_timeout=5)
    clock.advance(30)
    hung = breaker.permit()
    clock.advance(4.9)
    assert attempt(breaker, service) is ProbeLimitError
    clock.advance(0.1)
    assert attempt(breaker, service) is CircuitOpenError
    assert breaker.state == "open"
    hung.ok()
    assert breaker.state == "open"
    assert breaker.counts.late == 1
    clock.advance(30)
    assert attempt(breaker, service) == "fine"
    assert breaker.state == "closed"


def test_neutral_probe_hands_its_permit_back(clock, service):
    """A probe with a neutral outcome, or one that is given up, lets another call probe."""
    breaker = opened(clock, neutral=KeyError)
    clock.advance(30)
    assert attempt(breaker, service, KeyError()) is KeyError
    assert breaker.state == "half_open"
    breaker.permit().release()
    del_me = breaker.permit()
    del del_me
    assert attempt(breaker, service) == "fine"
    assert breaker.state == "closed"


@pytest.mark.parametrize("ending", ["ok", "failed", "release"])
def test_permit_settles_once(clock, ending):
    """Only the first settlement of a permit counts."""
    breaker = opened(clock, probes=2)
    clock.advance(30)
    permit = breaker.permit()
    permit.ok()
    getattr(permit, ending)(*([OSError()] if ending == "failed" else []))
    assert breaker.state == "half_open"
    assert breaker.counts.successes == 1


@pytest.mark.parametrize("late", [None, OSError()])
def test_result_of_an_earlier_era_changes_nothing(clock, service, late):
    """A call that was admitted before the circuit opened settles without moving the present state."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1, break_duration=30), clock=clock)
    old = [breaker.permit() for _ in range(3)]

    def settle():
        permit = old.pop()
        permit.ok() if late is None else permit.failed(late)

    attempt(breaker, service, OSError())
    settle()
    assert breaker.state == "open"
    assert breaker.retry_after == 30
    clock.advance(30)
    probe = breaker.permit()
    settle()
    assert breaker.state == "half_open"
    probe.ok()
    settle()
    assert breaker.state == "closed"
    assert breaker.report()["failure_count"] == 0
    assert breaker.counts.late == 3


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt(), SystemExit(), BulkheadFullError("b")]
)
def test_cancellation_exit_and_rejection_are_neutral(clock, service, error):
    """They neither count as failures nor end a streak, even if every exception is declared a failure."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=2, failure=BaseException), clock=clock)
    attempt(breaker, service, OSError())
    attempt(breaker, service, error)
    assert breaker.report()["failure_count"] == 1
    assert breaker.counts.neutral == 1
    attempt(breaker, service, OSError())
    assert breaker.state == "open"


def test_excluded_exceptions_are_neutral_not_successes(clock, service):
    """What is not declared a failure does not reset a streak either."""
    breaker = CircuitBreaker(
        "api", CircuitConfig(failure_threshold=2, failure=(OSError, ValueError), neutral=FileNotFoundError), clock=clock
    )
    attempt(breaker, service, OSError())
    for other in (KeyError(), FileNotFoundError()):
        attempt(breaker, service, other)
    attempt(breaker, service, ValueError())
    assert breaker.state == "open"


def test_predicates_decide_what_a_failure_is(clock, service):
    """Failure and neutral may be functions; one that raises has no opinion and never reaches the caller."""
    breaker = CircuitBreaker(
        "api",
        CircuitConfig(failure_threshold=1, failure=lambda e: e.errno == 5, neutral=lambda e: e.nothing),
        clock=clock,
    )
    assert attempt(breaker, service, OSError(6, "x")) is OSError
    assert breaker.state == "closed"
    assert attempt(breaker, service, OSError(5, "x")) is OSError
    assert breaker.state == "open"


def test_exception_group_fails_if_any_leaf_does(clock, service):
    """A group counts as a failure if one of its leaves would, however deep, and is neutral otherwise."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1, neutral=KeyError), clock=clock)
    attempt(breaker, service, ExceptionGroup("g", [KeyError(), ExceptionGroup("h", [KeyError()])]))
    assert breaker.counts.neutral == 1
    attempt(breaker, service, BaseExceptionGroup("g", [KeyboardInterrupt(), ExceptionGroup("h", [OSError()])]))
    assert breaker.state == "open"


def test_bad_results_are_failures_and_returned_all_the_same(clock, service):
    """A result that bad_result condemns counts as a failure, and the caller still gets it."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=2, bad_result=lambda r: r == "bad"), clock=clock)
    assert attempt(breaker, service, "bad") == "bad"
    assert attempt(breaker, service) == "fine"
    assert attempt(breaker, service, "bad") == "bad"
    assert breaker.state == "closed"
    assert attempt(breaker, service, "bad") == "bad"
    assert breaker.state == "open"


def test_service_that_asks_for_a_pause_gets_it(clock, service):
    """retry_after opens at once for as long as the exception or the result says."""
    config = CircuitConfig(
        failure_threshold=5, retry_after=lambda outcome: outcome.pause if hasattr(outcome, "pause") else None
    )
    breaker = CircuitBreaker("api", config, clock=clock)
    error = ValueError()
    attempt(breaker, service, error)
    assert breaker.state == "closed"
    error.pause = 7.0
    attempt(breaker, service, error)
    assert breaker.retry_after == 7.0
    clock.advance(7)
    answer = type("Answer", (), {"pause": 3})()
    assert attempt(breaker, service, answer) is answer
    assert breaker.retry_after == 3.0


def test_count_window_judges_a_share_of_the_last_calls(clock, service):
    """Nothing is judged below the minimum; from then on the share of the last size calls decides, with >=."""
    breaker = CircuitBreaker("api", CircuitConfig(window=CountWindow(4, 0.5, 4)), clock=clock)
    for answer in (OSError(), "a", OSError()):
        attempt(breaker, service, answer)
    assert breaker.state == "closed"
    attempt(breaker, service)
    attempt(breaker, service)
    attempt(breaker, service)
    assert breaker.report()["failure_count"] == 1
    attempt(breaker, service, OSError())
    assert breaker.state == "closed"
    attempt(breaker, service, OSError())
    assert breaker.state == "open"
    assert breaker.report()["failure_count"] == 2


def test_time_window_forgets(clock, service):
    """Failures older than the window do not count, and an idle window is empty."""
    breaker = CircuitBreaker("api", CircuitConfig(window=TimeWindow(10, 0.5, 2)), clock=clock)
    attempt(breaker, service, OSError())
    clock.advance(60)
    attempt(breaker, service, OSError())
    assert breaker.state == "closed"
    clock.advance(9)
    attempt(breaker, service, OSError())
    assert breaker.state == "open"


def test_slow_calls_open_the_circuit(clock):
    """From the fifth call on, the share of slow ones among the last ten opens the circuit."""
    breaker = CircuitBreaker("api", CircuitConfig(slow_call=SlowCall(1.0, 0.5)), clock=clock)
    for number in range(5):
        assert breaker.state == "closed"
        breaker.call(clock.advance, 1.0 if number % 2 == 0 else 0.9)
    assert breaker.state == "open"
    assert breaker.counts.slow == 3


def test_cancellation_after_the_slow_duration_is_a_failure(clock):
    """A caller whose own deadline ran out on a dead service opens the circuit; an early cancellation does not."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=2, slow_call=SlowCall(1.0)), clock=clock)

    def give_up_after(seconds):
        clock.advance(seconds)
        raise asyncio.CancelledError

    for seconds in (0.5, 1.0, 1.0):
        assert breaker.state == "closed"
        with pytest.raises(asyncio.CancelledError):
            breaker.call(give_up_after, seconds)
    assert breaker.state == "open"
    assert breaker.counts.cancelled == 3


def test_slow_probe_is_no_recovery(clock):
    """With slow_call set, a slow answer re-opens the circuit once the share of slow probes is reached."""
    breaker = opened(clock, slow_call=SlowCall(1.0))
    clock.advance(30)
    breaker.call(clock.advance, 1.0)
    assert breaker.state == "open"


def test_ramp_admits_a_growing_share(clock, service):
    """After the probes passed, about a tenth is let through at first and everything at the end, then it closes."""
    breaker = opened(clock, ramp=10)
    clock.advance(30)
    attempt(breaker, service)
    assert breaker.state == "half_open"

    def admitted(calls):
        return sum(attempt(breaker, service) == "fine" for _ in range(calls))

    assert 9 <= admitted(100) <= 11
    clock.advance(5)
    assert 54 <= admitted(100) <= 56
    clock.advance(4.999)
    assert admitted(100) >= 99
    clock.advance(0.001)
    assert admitted(10) == 10
    assert breaker.state == "closed"


def test_failure_in_the_ramp_is_judged_as_when_closed(clock, service):
    """While ramping, failures open the circuit by the ordinary rule."""
    breaker = opened(clock, ramp=10)
    clock.advance(30)
    attempt(breaker, service)
    clock.advance(9.99)
    attempt(breaker, service, OSError())
    assert breaker.state == "open"


def test_isolations_count(clock, service):
    """The last isolation that ends closes the circuit; a second release of one does nothing."""
    breaker = CircuitBreaker("api", clock=clock)
    one, two = breaker.isolate("maintenance"), breaker.isolate("incident")
    assert breaker.report()["reasons"] == ["maintenance", "incident"]
    one.release()
    one.release()
    assert attempt(breaker, service) is CircuitIsolatedError
    assert breaker.retry_after is None
    two.release()
    assert breaker.state == "closed"
    assert attempt(breaker, service) == "fine"


def test_isolation_ends_with_its_duration_its_block_or_reset(clock, service):
    """An isolation with a duration ends by itself, one used as a block with the block, and reset ends all."""
    breaker = CircuitBreaker("api", clock=clock)
    breaker.isolate("short", 5)
    with pytest.raises(CircuitIsolatedError) as caught:
        breaker.call(service)
    assert caught.value.retry_after == 5
    clock.advance(5)
    assert attempt(breaker, service) == "fine"
    with breaker.isolate("block"):
        assert attempt(breaker, service) is CircuitIsolatedError
    assert breaker.state == "closed"
    breaker.isolate("a")
    breaker.reset()
    assert breaker.state == "closed"


def test_disabled_circuit_makes_all_calls_and_counts_none(clock, service):
    """disable() lets everything through uncounted until reset."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1), clock=clock)
    breaker.disable()
    for _ in range(3):
        attempt(breaker, service, OSError())
        attempt(breaker, service)
    assert breaker.state == "disabled"
    assert breaker.counts.failures == breaker.counts.successes == 0
    breaker.reset()
    attempt(breaker, service, OSError())
    assert breaker.state == "open"


def test_metrics_only_counts_and_never_rejects(clock, service):
    """metrics_only() reports each time the circuit would have opened, once per break, and rejects nothing."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=2, break_duration=30), clock=clock)
    heard = []
    breaker.on("would_open", heard.append)
    breaker.metrics_only()
    for _ in range(5):
        assert attempt(breaker, service, OSError()) is OSError
    assert breaker.counts.would_open == len(heard) == 1
    clock.advance(30)
    attempt(breaker, service, OSError())
    assert breaker.counts.would_open == 2
    assert breaker.state == "metrics_only"
    assert breaker.counts.failures == 6


def test_shadow_configuration_reports_when_it_would_have_opened(clock, service):
    """A candidate configuration runs beside the live one and rejects nothing."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=5), clock=clock)
    breaker.shadow(CircuitConfig(failure_threshold=2))
    for _ in range(3):
        attempt(breaker, service, OSError())
    assert breaker.state == "closed"
    assert breaker.report()["would_have_opened"] == 1
    breaker.shadow(None)
    assert breaker.report()["would_have_opened"] is None


def test_reconfigure_keeps_the_state_and_applies_at_once(clock, service):
    """A new configuration counts from the next call on; an open circuit stays open until its instant."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=5), clock=clock)
    breaker.reconfigure(CircuitConfig(failure_threshold=1, break_duration=10))
    attempt(breaker, service, OSError())
    assert breaker.retry_after == 10
    breaker.reconfigure(CircuitConfig(failure_threshold=1, break_duration=99, fallback="stale"))
    assert breaker.retry_after == 10
    assert attempt(breaker, service) == "stale"
    clock.advance(10)
    breaker.permit()
    breaker.reconfigure(CircuitConfig(failure_threshold=1, probes=3))
    assert breaker.state == "half_open"


def test_call_under_way_while_reconfigured_settles_in_the_old_era(clock, service):
    """What was admitted under the old configuration is late under the new one."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1), clock=clock)
    permit = breaker.permit()
    breaker.reconfigure(CircuitConfig(failure_threshold=1, break_duration=1))
    permit.failed(OSError())
    assert breaker.state == "closed"
    assert breaker.counts.late == 1


def test_listeners_hear_transitions_after_the_lock_is_released(clock, service):
    """Listeners hear each state they asked for, may use the breaker, and one that raises harms nobody."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1), clock=clock)
    heard = []

    def wrong(event):
        raise RuntimeError("listener")

    breaker.on("open", wrong)
    breaker.on("open", lambda event: heard.append((event.before, event.after, event.error, breaker.state)))
    end = breaker.on("transition", lambda event: heard.append(event.cause))
    breaker.on("rejected", lambda event: heard.append("rejected"))
    attempt(breaker, service, OSError())
    attempt(breaker, service)
    end()
    breaker.reset()
    assert heard == ["too_many_failures", ("closed", "open", "OSError", "open"), "rejected"]
    with pytest.raises(ConfigurationError, match="opened"):
        breaker.on("opened", wrong)


def test_report_says_what_the_seed_asks_for_and_more(clock, service):
    """The report holds state, failure_count and success_count, and the totals and transitions beside them."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=2), clock=clock)
    for answer in ("fine", "fine", OSError(), OSError()):
        attempt(breaker, service, answer)
    attempt(breaker, service)
    report = breaker.report()
    assert {"state": "open", "failure_count": 2, "success_count": 2}.items() <= report.items()
    assert (report["failures"], report["rejected"], report["error"]) == (2, 1, "OSError")
    assert report["transition_counts"] == {"closed->open": 1}
    assert "closed --> open: too_many_failures" in breaker.timeline()


def test_one_breaker_cannot_be_entered_as_a_block(clock):
    """Using the shared breaker itself as a block raises with the advice to use guard()."""
    breaker = CircuitBreaker("api", clock=clock)
    with pytest.raises(ConfigurationError, match="guard"), breaker:
        pass


def test_blocks_count_like_calls(clock):
    """With breaker.guard() counts the block's outcome and is rejected when the circuit is open."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1), clock=clock)
    with breaker.guard():
        pass
    with pytest.raises(TypeError), breaker.guard():
        raise TypeError("in the block: a failure, not wrong arguments")
    assert (breaker.counts.successes, breaker.counts.failures) == (1, 1)
    with pytest.raises(CircuitOpenError), breaker.guard():
        pass


async def test_async_blocks_keep_the_timeout(clock):
    """Async with breaker.guard() counts the outcome and ends the block at the configured timeout."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1, timeout=0.02), clock=clock)
    async with breaker.guard():
        pass
    with pytest.raises(TimeoutError):
        async with breaker.guard():
            await asyncio.sleep(60)
    assert breaker.state == "open"
    with pytest.raises(ConfigurationError), CircuitBreaker("b", CircuitConfig(timeout=1)).guard():
        pass


def test_try_call_answers_a_rejection_with_its_default(clock, service):
    """try_call raises nothing for a rejection, in any state, and counts as call does."""
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1), clock=clock)
    assert breaker.try_call(service) == "fine"
    attempt(breaker, service, OSError())
    assert breaker.try_call(service, default="none") == "none"
    clock.advance(30)
    held = breaker.permit()
    assert breaker.try_call(service) is None
    held.release()
    service.answer = "again"
    assert breaker.try_call(service) == "again"
    assert breaker.state == "closed"


def test_breaker_serves_callers_without_permits(clock):
    """before, success and failure make any breaker a Guard; in half-open they settle the probe that before lent."""
    breaker = CircuitBreaker("redis", CircuitConfig(failure_threshold=2, break_duration=30), clock=clock)
    breaker.before()
    breaker.failure(OSError())
    breaker.success()
    breaker.failure(OSError())
    breaker.failure(OSError())
    with pytest.raises(CircuitOpenError):
        breaker.before()
    breaker.success()
    assert breaker.state == "open"
    clock.advance(30)
    breaker.before()
    with pytest.raises(ProbeLimitError):
        breaker.before()
    breaker.success()
    assert breaker.state == "closed"
    assert breaker.counts.late == 1


def test_callers_without_permits_never_wait(clock):
    """before() rejects while the probe is out, even if other callers would wait or get a fallback."""
    for extra in ({"overflow": "wait"}, {"fallback": "stale"}):
        breaker = opened(clock, **extra)
        clock.advance(30)
        breaker.before()
        with pytest.raises(ProbeLimitError):
            breaker.before()
        assert breaker.counts.rejected == 1
        clock.advance(30)
        with pytest.raises(CircuitOpenError):
            breaker.before()
        assert breaker.state == "open"


@pytest.mark.parametrize("name", ["", "line\nbreak"])
def test_names_are_printable(name):
    """An empty or unprintable name is refused."""
    with pytest.raises(ConfigurationError, match="name"):
        CircuitBreaker(name)
