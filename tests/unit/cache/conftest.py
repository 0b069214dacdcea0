"""An in-memory remote level whose faults can be switched."""

import pytest

from isp_perf.testing import MemoryLevel


@pytest.fixture
def remote():
    return MemoryLevel()
