import gc

import pytest

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitRegistry, circuit_breaker, circuits
from isp_perf.breaker._registry import live_registries
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


def test_one_name_is_one_breaker():
    """Functions that name the same service share one breaker; another configuration under its name is refused."""
    registry = CircuitRegistry()
    config = CircuitConfig(failure_threshold=3)

    @circuit_breaker("api", config, registry=registry)
    def one():
        return 1

    @circuit_breaker("api", CircuitConfig(failure_threshold=3), registry=registry)
    def two():
        return 2

    assert one.breaker is two.breaker is registry.get("api") is registry.define("api")
    with pytest.raises(ConfigurationError, match="api"):
        circuit_breaker("api", CircuitConfig(failure_threshold=4), registry=registry)
    with pytest.raises(ConfigurationError, match="api"):
        CircuitBreaker("api", config, registry=registry)
    with pytest.raises(ConfigurationError, match="api"):
        circuit_breaker("api", config, registry=registry, key="x")


def test_breakers_made_by_hand_join_only_the_registry_they_are_given():
    """A CircuitBreaker is in no registry unless it is given one."""
    registry = CircuitRegistry()
    lonely = CircuitBreaker("lonely")
    joined = CircuitBreaker("joined", registry=registry)
    assert list(registry) == [joined]
    assert "lonely" not in circuits
    assert lonely.state == "closed"
    with pytest.raises(KeyError, match="joined"):
        registry.get("lonely")


def test_report_has_the_shape_of_the_seed():
    """report() is {"circuit_breakers": {name: {"state", "failure_count", "success_count", ...}}}."""
    registry = CircuitRegistry.on_clock(ManualClock())
    registry.define("whatsapp_api")
    database = registry.define("database")
    for _ in range(3):
        database.call(int)
    with pytest.raises(OSError):
        database.call(_fail)
    report = registry.report()
    assert list(report) == ["circuit_breakers"]
    seed = {
        name: {key: entry[key] for key in ("state", "failure_count", "success_count")}
        for name, entry in report["circuit_breakers"].items()
    }
    assert seed == {
        "whatsapp_api": {"state": "closed", "failure_count": 0, "success_count": 0},
        "database": {"state": "closed", "failure_count": 1, "success_count": 3},
    }


def _fail():
    raise OSError


def test_registry_listeners_hear_present_and_future_breakers():
    """A listener of the registry hears every breaker, whenever it was defined."""
    registry = CircuitRegistry()
    first = registry.define("first")
    heard = []
    registry.on("isolated", lambda event: heard.append(event.breaker))
    second = registry.define("second")
    for breaker in (first, second):
        breaker.isolate("test")
    assert heard == ["first", "second"]
    registry.reset()
    assert {breaker.state for breaker in registry} == {"closed"}
    with pytest.raises(ConfigurationError):
        registry.on("nothing", heard.append)


def test_breakers_made_per_request_are_warned_about_once():
    """Many names of one pattern are a breaker per request, which can never open: the developer is warned."""
    registry = CircuitRegistry()
    for number in range(99):
        registry.define(f"request-{number}")
    with pytest.warns(RuntimeWarning, match="request"):
        registry.define("request-99")
    for number in range(100, 300):
        registry.define(f"request-{number}")


def test_live_registries_are_found_and_forgotten():
    """Metrics find every living registry, and keep none alive."""
    registry = CircuitRegistry()
    assert registry in live_registries
    assert circuits in live_registries
    before = len(live_registries)
    del registry
    gc.collect()
    assert len(live_registries) < before
