"""Run the gzip tests of starlette and the tests of starlette-compress with our class in place of theirs.

    python tests/foreign/starlette/run.py [starlette | starlette_compress]

The tests come from the source distributions on PyPI, in the versions that are installed. A test may differ only if
``agreed.json`` says why. It needs network access and is not part of the default run. Exit code 1: a test fails that is
not agreed, or one that was agreed passes.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOREIGN = Path(__file__).parents[1]
SUITES = {"starlette": "tests/middleware/test_gzip.py", "starlette_compress": "tests/test___init__.py"}
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) \S*::(\S+)", re.MULTILINE)


def say(line):
    """Print one line of the report."""
    sys.stdout.write(line + "\n")


def fetch(name, folder):
    """Download and unpack the source distribution; return its folder, without the package itself."""
    wanted = f"{name}=={importlib.metadata.version(name)}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    with tarfile.open(next(folder.glob(f"{name}-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    suite = next(path for path in folder.glob(f"{name}-*") if path.is_dir())
    (suite / name).rename(suite / f"{name}_source")  # the installed package is the one under test
    return suite


def outcomes(name, suite):
    """Run the suite and return "PASSED" or "FAILED" by test."""
    environ = os.environ | {"PYTHONPATH": str(FOREIGN / name)}
    options = [
        "-rA",
        "-q",
        "-p",
        "plugin",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
    ]
    command = [sys.executable, "-m", "pytest", *options, "-W", "ignore", SUITES[name]]
    run = subprocess.run(command, cwd=suite, env=environ, check=False, capture_output=True, text=True)
    found = {test: outcome for outcome, test in OUTCOME.findall(run.stdout)}
    if not found:
        say(run.stdout[-3000:] + run.stderr[-3000:])
    return found


def main():
    """Run the suites asked for, print what differs and why."""
    surprises = 0
    for name in sys.argv[1:] or SUITES:
        agreed = json.loads((FOREIGN / name / "agreed.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            found = outcomes(name, fetch(name, Path(folder)))
        failed = {test for test, outcome in found.items() if outcome != "PASSED"}
        reasons = {test: why for test in found for pattern, why in agreed.items() if re.match(pattern, test)}
        surprises += not found
        passed = len(found) - len(failed)
        say(f"{name}: {len(found)} tests, {passed} pass, {len(failed & set(reasons))} differ as agreed")
        for test in sorted(failed ^ set(reasons)):
            surprises += 1
            say(f"  fails: {test}" if test in failed else f"  agreed to differ, but passes: {test}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
