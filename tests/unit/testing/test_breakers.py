import asyncio

import pytest

from isp_perf.breaker import CircuitConfig, CircuitIsolatedError, CircuitRegistry, circuit_breaker, circuits
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ChaosError, broken, chaos, fresh_circuits, healthy


@pytest.fixture
def registry():
    return CircuitRegistry()


def test_broken_rejects_within_its_block_only(registry):
    """Within broken(name) every call is rejected, afterwards the circuit is closed again."""

    @circuit_breaker("api", registry=registry)
    def fetch():
        return 1

    with broken("api", registry=registry) as breaker, pytest.raises(CircuitIsolatedError):
        fetch()
    assert breaker is registry.get("api")
    assert fetch() == 1


def test_healthy_makes_every_call(registry):
    """Within healthy(name) an open circuit makes calls; afterwards it is closed."""

    @circuit_breaker("api", CircuitConfig(failure_threshold=1), registry=registry)
    def fetch(fine=True):
        if not fine:
            raise OSError
        return 1

    with pytest.raises(OSError):
        fetch(fine=False)
    with healthy("api", registry=registry):
        for _ in range(3):
            with pytest.raises(OSError):
                fetch(fine=False)
        assert fetch() == 1
    assert registry.get("api").state == "closed"


def test_fresh_circuits_forgets_everything(registry):
    """A test that asks for fresh circuits finds and leaves every breaker closed with nothing counted."""
    breaker = registry.define("api", CircuitConfig(failure_threshold=1))
    new = breaker.report()
    breaker.call(int)
    breaker.isolate("test")
    with fresh_circuits(registry):
        assert breaker.report() == new
        breaker.call(int)
        assert breaker.counts.successes == 1
    assert breaker.report() == new
    with fresh_circuits() as default:
        assert default is circuits


def test_chaos_fails_its_share_reproducibly():
    """Exactly the given share of calls fails, with a fresh exception each, and the same calls each time."""

    def run():
        strategy = chaos(fail=0.3)
        fetch = strategy(lambda: "fine")
        outcomes = []
        for _ in range(10):
            try:
                outcomes.append(fetch())
            except ChaosError as error:
                outcomes.append(error)
        assert strategy.failed == 3
        return outcomes

    first, second = run(), run()
    assert [type(outcome) for outcome in first] == [type(outcome) for outcome in second]
    assert len({id(outcome) for outcome in first if outcome != "fine"}) == 3


async def test_chaos_delays_and_hangs():
    """Calls dawdle for the delay, and the given share hangs until it is cancelled."""
    strategy = chaos(delay=0.001, hang=0.5, error=OSError)

    @strategy
    async def fetch():
        return "fine"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fetch(), 0.01)
    assert await fetch() == "fine"
    assert strategy.hung == 1
    with pytest.raises(ConfigurationError):
        chaos(fail=2)


def test_fixture_makes_the_default_circuits_fresh(request):
    """A test that asks for the plugin's fixture finds every breaker of the default registry as new."""
    breaker = circuits.define("testing_fixture", CircuitConfig(failure_threshold=1))
    breaker.permit().failed(OSError())
    registry = request.getfixturevalue("fresh_circuits")
    assert registry is circuits
    assert (breaker.state, breaker.counts.failures) == ("closed", 0)
