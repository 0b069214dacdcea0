"""``import isp_perf`` is nearly free."""

import pytest

from house.startup import LIMIT_SECONDS, measure

LIGHT = "import isp_perf, isp_perf.errors, isp_perf.typing"


def test_the_import_takes_ten_milliseconds_at_most():
    """Importing the package costs at most 10 ms of processor time over bare Python."""
    assert measure("import isp_perf").seconds <= LIMIT_SECONDS


def test_the_import_loads_no_third_party_and_no_event_loop():
    """The package, its errors and its protocols load nothing but Python's library, and of that no asyncio."""
    startup = measure(LIGHT, rounds=1)
    assert startup.third_parties == set()
    assert "asyncio" not in startup.modules
    assert "isp_perf.errors" in startup.modules


@pytest.fixture
def heavy_folder(tmp_path):
    (tmp_path / "heavy.py").write_text("import asyncio, tinyparty\nfor number in range(2_000_000):\n    pass\n")
    (tmp_path / "tinyparty.py").write_text("")
    return tmp_path


def test_a_heavy_import_is_found(heavy_folder):
    """A module that computes, loads asyncio or loads somebody else's package while it is imported is seen to do so."""
    startup = measure("import heavy", folder=heavy_folder, rounds=2)
    assert startup.seconds > LIMIT_SECONDS
    assert startup.third_parties == {"heavy", "tinyparty"}
    assert "asyncio" in startup.modules
