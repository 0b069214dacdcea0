"""The benchmark at the root, as its user starts it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_prints_all_four_subjects():
    """``python simple_benchmark.py`` prints compression, cache, pipeline and metrics figures, and ends well."""
    done = subprocess.run(
        [sys.executable, "simple_benchmark.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    titles = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert titles == ["compression", "cache", "pipelines", "metrics"]
    assert "times faster" in done.stdout
    assert "% saved" in done.stdout
    assert "us per operation" in done.stdout
