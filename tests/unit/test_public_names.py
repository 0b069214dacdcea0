"""What ``isp_perf`` itself offers: the names of its ``__all__``, loaded on first use."""

import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest

import isp_perf

FEATURES = {f"isp_perf.{room}" for room in ("breaker", "cache", "compression", "metrics", "queries", "redis")}


@pytest.mark.parametrize("name", isp_perf.__all__)
def test_every_public_name_is_there_and_is_the_one_of_its_room(name):
    """A name of the package is the very object that its room exports."""
    home = importlib.import_module(isp_perf._HOMES[name])
    assert getattr(isp_perf, name) is getattr(home, name)
    assert name in home.__all__


def test_all_has_no_name_without_a_home():
    """The list of public names is exactly the list of names with a home."""
    assert sorted(isp_perf.__all__) == sorted(isp_perf._HOMES)
    assert set(isp_perf.__all__) <= set(dir(isp_perf))


def test_an_unknown_name_is_an_attribute_error():
    """A name that the package does not have fails as it does on any module."""
    with pytest.raises(AttributeError, match="module 'isp_perf' has no attribute 'cachet'"):
        _ = isp_perf.cachet


def test_the_version_is_that_of_the_distribution():
    """The version in the code is the version that was installed."""
    assert isp_perf.__version__ == version("isp-perf")


@pytest.mark.parametrize("room", sorted(FEATURES & set(isp_perf._HOMES.values())))
def test_a_name_loads_no_feature_but_its_own(room):
    """Taking one name from the package imports the feature it lives in, none of the others, and none before that."""
    name = next(name for name, home in isp_perf._HOMES.items() if home == room)
    program = (
        "import sys, isp_perf\n"
        f"features = lambda: set({sorted(FEATURES)!r}) & set(sys.modules)\n"
        "assert features() == set(), features()\n"
        f"isp_perf.{name}\n"
        f"assert features() == {{{room!r}}}, features()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
