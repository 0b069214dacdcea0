"""What a breaker is configured to do, as JSON."""

import json
from datetime import timedelta

from isp_perf.breaker import Backoff, CircuitBreaker, CircuitConfig, CircuitRegistry, TimeWindow, circuit_breaker
from isp_perf.ops._configs import breaker_configs


def test_every_form_of_a_configuration_is_json():
    """Windows and backoffs are objects, durations seconds, callables are left out; keyed families are told too."""
    circuits = CircuitRegistry()
    config = CircuitConfig(
        window=TimeWindow(seconds=timedelta(minutes=1)),
        break_duration=Backoff(base=5),
        failure=lambda error: True,
    )
    CircuitBreaker("configs-one", config, registry=circuits)

    @circuit_breaker("configs-keyed", CircuitConfig(failure_threshold=7), registry=circuits, key=lambda host: host)
    def call(host):
        return host

    found = breaker_configs()
    assert json.loads(json.dumps(found["configs-one"])) == found["configs-one"]
    assert found["configs-one"]["window"]["seconds"] == 60.0
    assert found["configs-one"]["break_duration"]["base"] == 5
    assert "failure" not in found["configs-one"]
    assert found["configs-keyed"]["failure_threshold"] == 7
    assert call("a") == "a"
