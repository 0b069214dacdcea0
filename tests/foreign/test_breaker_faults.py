"""The faults seen in other breakers, each as a test of ours, with the experiments of the comparison in the docs."""

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "benchmarks" / "breaker_faults.py"
_SPEC = importlib.util.spec_from_file_location("breaker_faults", _PATH)
faults = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(faults)


@pytest.mark.parametrize("number", faults.FAULTS, ids=lambda n: f"{n}-{faults.FAULTS[n][0].__name__}")
def test_fault_of_other_breakers_is_not_seen_here(number, request):
    """The experiment that shows the fault in a peer does not show it in isp_perf."""
    if number in faults.NEED_REDIS:
        request.getfixturevalue("redis_server")  # skips where there is none
    experiment, _ = faults.FAULTS[number]
    library = faults.LIBRARIES[0] if number in faults.REAL_TIME else faults.unhurried()
    assert faults.seen(experiment, library) is False
