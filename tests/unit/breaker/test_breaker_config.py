import pickle
from datetime import timedelta

import pytest

from isp_perf.breaker import (
    AI_CIRCUIT_CONFIG,
    DATABASE_CIRCUIT_CONFIG,
    REDIS_CIRCUIT_CONFIG,
    WHATSAPP_CIRCUIT_CONFIG,
    Backoff,
    CircuitConfig,
    CountWindow,
    SlowCall,
    TimeWindow,
)
from isp_perf.errors import ConfigurationError


@pytest.mark.parametrize(
    ("config", "threshold", "duration"),
    [
        (WHATSAPP_CIRCUIT_CONFIG, 3, 30.0),
        (DATABASE_CIRCUIT_CONFIG, 5, 60.0),
        (AI_CIRCUIT_CONFIG, 3, 45.0),
        (REDIS_CIRCUIT_CONFIG, 3, 30.0),
    ],
)
def test_ready_configurations_have_the_numbers_they_promise(config, threshold, duration):
    """The four ready configurations open after the stated failures and for the stated seconds."""
    assert (config.failure_threshold, config.break_duration) == (threshold, duration)


def test_default_threshold_gives_way_to_a_window():
    """Five failures in a row are the default; a window replaces it, and both at once are refused."""
    assert CircuitConfig().failure_threshold == 5
    assert CircuitConfig(window=CountWindow(10)).failure_threshold is None
    with pytest.raises(ConfigurationError, match="failure_threshold"):
        CircuitConfig(failure_threshold=3, window=CountWindow(10))


@pytest.mark.parametrize(
    "make",
    [
        lambda: CircuitConfig(failure_threshold=0),
        lambda: CircuitConfig(failure_threshold=-1),
        lambda: CircuitConfig(failure_threshold=True),
        lambda: CircuitConfig(failure_threshold=2.5),
        lambda: CircuitConfig(break_duration=0),
        lambda: CircuitConfig(break_duration=-1),
        lambda: CircuitConfig(break_duration=float("nan")),
        lambda: CircuitConfig(break_duration="30"),
        lambda: CircuitConfig(probes=0),
        lambda: CircuitConfig(probe_timeout=0),
        lambda: CircuitConfig(timeout=0),
        lambda: CircuitConfig(ramp=-1),
        lambda: CircuitConfig(overflow="queue"),
        lambda: CircuitConfig(failure="ValueError"),
        lambda: CircuitConfig(failure=(ValueError, "x")),
        lambda: CircuitConfig(neutral=int),
        lambda: CircuitConfig(bad_result=3),
        lambda: CircuitConfig(retry_after=3),
        lambda: CircuitConfig(window=10),
        lambda: CircuitConfig(slow_call=1.0),
        lambda: CountWindow(0),
        lambda: CountWindow(10, failure_ratio=0),
        lambda: CountWindow(10, failure_ratio=1.1),
        lambda: CountWindow(10, minimum_throughput=11),
        lambda: CountWindow(10, minimum_throughput=0),
        lambda: TimeWindow(0),
        lambda: TimeWindow(10, failure_ratio=float("nan")),
        lambda: TimeWindow(10, minimum_throughput=0),
        lambda: SlowCall(0),
        lambda: SlowCall(1, ratio=2),
        lambda: Backoff(0),
        lambda: Backoff(1, factor=0.5),
        lambda: Backoff(10, maximum=5),
        lambda: Backoff(1, jitter=1.5),
    ],
)
def test_impossible_settings_are_refused_at_construction(make):
    """A value out of its range is a ConfigurationError, which names setting, rule and fix."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.setting
    assert caught.value.rule
    assert caught.value.fix


def test_durations_may_be_timedeltas():
    """A timedelta and the same number of seconds make equal configurations."""
    assert CircuitConfig(break_duration=timedelta(minutes=1)) == CircuitConfig(break_duration=60)
    assert TimeWindow(timedelta(seconds=5)) == TimeWindow(5.0)


def test_equal_configurations_are_equal_hashable_and_picklable():
    """Configurations compare and hash by value and survive pickling."""
    one = CircuitConfig(failure_threshold=3, failure=(OSError, TimeoutError))
    two = CircuitConfig(failure_threshold=3, failure=(OSError, TimeoutError))
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert pickle.loads(pickle.dumps(one)).judge.failed(OSError())


def test_replace_checks_and_swaps_threshold_for_window():
    """replace() validates, drops the threshold for a new window and the other way round, and knows its settings."""
    base = CircuitConfig(failure_threshold=3)
    assert base.replace(break_duration=5).failure_threshold == 3
    assert base.replace(window=CountWindow(10)).failure_threshold is None
    assert base.replace(window=CountWindow(10)).replace(failure_threshold=2).window is None
    with pytest.raises(ConfigurationError, match="tresh"):
        base.replace(failure_tresh=1)
    with pytest.raises(ConfigurationError):
        base.replace(probes=0)


def test_environment_gives_a_configuration():
    """from_env reads every numeric setting under its prefix, and takes empty variables as unset."""
    environ = {
        "API_WINDOW_SIZE": "20",
        "API_FAILURE_RATIO": "0.25",
        "API_MINIMUM_THROUGHPUT": "4",
        "API_BREAK_DURATION": "12",
        "API_BACKOFF_FACTOR": "3",
        "API_SLOW_CALL_DURATION": "1.5",
        "API_PROBES": "2",
        "API_RAMP": "",
        "API_OVERFLOW": "wait",
    }
    config = CircuitConfig.from_env("API", environ)
    assert config.window == CountWindow(20, 0.25, 4)
    assert config.break_duration == Backoff(12, 3)
    assert config.slow_call == SlowCall(1.5)
    assert (config.probes, config.ramp, config.overflow) == (2, 0.0, "wait")
    assert CircuitConfig.from_env("API_", {"API_WINDOW_SECONDS": "5"}).window == TimeWindow(5)
    assert CircuitConfig.from_env("NOTHING", {}) == CircuitConfig()


@pytest.mark.parametrize(
    "environ", [{"A_PROBES": "two"}, {"A_FAILURE_RATIO": "0.5"}, {"A_SLOW_CALL_RATIO": "0.5"}, {"A_TIMEOUT": "-1"}]
)
def test_wrong_environment_is_refused(environ):
    """A variable that is no number, out of range or meaningless alone is a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        CircuitConfig.from_env("A", environ)


def test_backoff_grows_to_its_maximum_with_jitter_downwards():
    """Round n waits base * factor ** n, at most maximum, less at most the jitter's share."""
    backoff = Backoff(1, factor=2, maximum=5, jitter=0.5)
    assert [backoff.duration(n, 0.0) for n in range(4)] == [1, 2, 4, 5]
    assert backoff.duration(1, 0.5) == 1.5
