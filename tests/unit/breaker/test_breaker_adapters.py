from types import SimpleNamespace

import pytest

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitOpenError, retry_hook, wait_for_circuit
from isp_perf.errors import BulkheadFullError, ConfigurationError


def test_hook_tells_stamina_when_to_come_back():
    """A rejection is retried after its retry_after; one that knows no time, and other errors, are not."""
    hook = retry_hook((OSError, KeyError))
    assert hook(OSError()) is True
    assert hook(ValueError()) is False
    assert hook(CircuitOpenError("api", 2.5)) == 2.5
    assert hook(CircuitOpenError("api", 0.0)) > 0
    assert hook(BulkheadFullError("pool")) is False
    assert retry_hook(rejected=False)(CircuitOpenError("api", 2.5)) is False
    with pytest.raises(ConfigurationError):
        retry_hook("OSError")


def test_wait_lets_tenacity_sleep_long_enough():
    """The pause is the usual one, but after a rejection never shorter than its retry_after."""
    wait = wait_for_circuit(lambda state: 1.0)
    cases = [(None, 1.0), (OSError(), 1.0), (CircuitOpenError("a", 5.0), 5.0), (BulkheadFullError("b"), 1.0)]
    for error, seconds in cases:
        outcome = SimpleNamespace(exception=lambda error=error: error)
        assert wait(SimpleNamespace(outcome=outcome)) == seconds
    assert wait(SimpleNamespace(outcome=None)) == 1.0


def broken_for_a_moment():
    breaker = CircuitBreaker("api", CircuitConfig(failure_threshold=1, break_duration=0.02))
    outcomes = [OSError()]

    @breaker
    def fetch():
        if outcomes:
            raise outcomes.pop()
        return "fine"

    return breaker, fetch


def test_stamina_comes_back_when_the_circuit_lets_it():
    """Stamina retries through an open circuit without a rejected attempt in between."""
    stamina = pytest.importorskip("stamina", reason="stamina is in the bench group, not among the test extras")
    breaker, fetch = broken_for_a_moment()
    assert stamina.retry(on=retry_hook(), attempts=5, wait_initial=0.001, wait_jitter=0)(fetch)() == "fine"
    assert breaker.counts.rejected <= 1


def test_tenacity_comes_back_when_the_circuit_lets_it():
    """Tenacity retries through an open circuit and asks it at most once too early."""
    tenacity = pytest.importorskip("tenacity", reason="tenacity is in the bench group, not among the test extras")
    breaker, fetch = broken_for_a_moment()
    retrying = tenacity.retry(
        retry=tenacity.retry_if_exception(retry_hook()),
        wait=wait_for_circuit(tenacity.wait_fixed(0.001)),
        stop=tenacity.stop_after_attempt(5),
    )
    assert retrying(fetch)() == "fine"
    assert breaker.counts.rejected <= 1
