"""Run prometheus-client's tests of counters, gauges and histograms on its instruments and on ours: ``python run.py``.

The suite comes from prometheus-client's source distribution on PyPI, in the version that is installed; it needs network
access and is not part of the default run. Ours are read through prometheus-client's own registry. Exit code 1: a test
that passes on its instruments fails on ours, and is not one of those that differ by design.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CLASSES = ("TestCounter", "TestGauge", "TestHistogram", "TestMetricWrapper")
BY_DESIGN = {
    "TestCounter::test_reset": "a counter only goes up",
    "TestCounter::test_repr": "the name of their class",
    "TestGauge::test_repr": "the name of their class",
    "TestHistogram::test_repr": "the name of their class",
    "TestCounter::test_clear_without_labels_is_noop": "series are not removed",
    "TestMetricWrapper::test_remove": "series are not removed",
    "TestMetricWrapper::test_clear": "series are not removed",
    "TestMetricWrapper::test_remove_by_labels": "series are not removed",
    "TestMetricWrapper::test_remove_by_labels_invalid_label_name": "series are not removed",
    "TestMetricWrapper::test_remove_by_labels_empty_is_noop": "series are not removed",
    "TestMetricWrapper::test_incorrect_label_count_raises": "series are not removed",
    "TestMetricWrapper::test_labels_coerced_to_string": "series are not removed",
    "TestCounter::test_exemplar_invalid_label_name": "exemplars are of histograms",
    "TestCounter::test_function_decorator": "not offered: counting exceptions by decorator",
    "TestCounter::test_block_decorator": "not offered: counting exceptions by block",
    "TestCounter::test_count_exceptions_not_observable": "not offered: counting exceptions by block",
    "TestGauge::test_inprogress_function_decorator": "not offered: gauges as decorators",
    "TestGauge::test_inprogress_block_decorator": "not offered: gauges as blocks",
    "TestGauge::test_track_in_progress_not_observable": "not offered: gauges as blocks",
    "TestGauge::test_function_decorator_multithread": "not offered: timing into a gauge",
    "TestGauge::test_time_block_decorator": "not offered: timing into a gauge",
    "TestGauge::test_time_block_decorator_with_label": "not offered: timing into a gauge",
    "TestGauge::test_time_function_decorator": "not offered: timing into a gauge",
    "TestGauge::test_timer_not_observable": "not offered: timing into a gauge",
    "TestHistogram::test_block_decorator_with_label": "not offered: choosing the labels while the clock runs",
    "TestHistogram::test_exemplar_invalid_legacy_label_name": "names are UTF-8, as without their legacy switch",
    "TestCounter::test_exemplar_too_long": "exemplars are of histograms",
    "TestHistogram::test_histogram": "an endless observation counts at the top, so that the sum stays a number",
    "TestHistogram::test_setting_buckets": "their private attribute",
    "TestMetricWrapper::test_invalid_legacy_names_raise": "names are UTF-8, as without their legacy switch",
    "TestMetricWrapper::test_name_cleanup_before_unit_append": "their private attribute",
}
HERE = Path(__file__).parent


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution; return its folder."""
    wanted = f"prometheus-client=={importlib.metadata.version('prometheus-client')}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("prometheus_client-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("prometheus_client-*") if path.is_dir())


def passed(suite: Path, whose: str) -> set[str]:
    """Run the suite once and return the names of the tests that passed."""
    report = suite / f"{whose}.json"
    environ = os.environ | {"PROMETHEUS_SUITE": whose, "PROMETHEUS_REPORT": str(report), "PYTHONPATH": str(HERE)}
    tests = [f"tests/test_core.py::{name}" for name in CLASSES]
    options = ["-q", "-p", "plugin", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    subprocess.run(command, cwd=suite, env=environ, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    outcomes = json.loads(report.read_text())
    return {name for name, outcome in outcomes.items() if outcome == "passed"}


def main() -> int:
    """Compare both runs and print the counts."""
    with tempfile.TemporaryDirectory() as folder:
        suite = fetch(Path(folder))
        stock, ours = passed(suite, "stock"), passed(suite, "ours")
    say(f"stock passes {len(stock)}, ours passes {len(stock & ours)}, {len(BY_DESIGN)} differ by design")
    missing = sorted(stock - ours - BY_DESIGN.keys())
    for name in missing:
        say(f"passes on stock only: {name}")
    return 1 if missing or len(ours) == 0 else 0


def say(line: str) -> None:
    """Print one line of the report."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
