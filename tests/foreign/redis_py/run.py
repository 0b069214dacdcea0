"""Run redis-py's asyncio suite twice, on its own client and on ours, and compare: ``python run.py``.

The suite comes from redis-py's source distribution on PyPI, in the version that is installed. Ours may fail where stock
fails, and nowhere else; only tests that really sent something over a shared link count. It needs network access and is
not part of the default run. Exit code 1: a test fails on our client only.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from isp_perf.testing import start_redis

MODULES = ("commands", "encoding", "scripting", "lock", "pipeline", "pubsub", "hash")
BY_DESIGN = ("test_bitfield_operations[pool]",)  # it sends SELECT, which a shared link refuses
HERE = Path(__file__).parent


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution; return its folder."""
    wanted = f"redis=={importlib.metadata.version('redis')}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    with tarfile.open(next(folder.glob("redis-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("redis-*") if path.is_dir())


def run(suite: Path, url: str, whose: str) -> dict:
    """Run the suite once and return outcome and use of the link by test."""
    report = suite / f"{whose}.json"
    environ = os.environ | {"REDIS_PY_SUITE": whose, "REDIS_PY_REPORT": str(report), "PYTHONPATH": str(HERE)}
    tests = [f"tests/test_asyncio/test_{name}.py" for name in MODULES]
    options = ["-q", "-p", "plugin", "-p", "no:randomly", "-p", "no:cacheprovider", "--maxfail=10000"]
    skipped = "not test_cluster_"  # they put a mock in the place of a private connection, which ours has not
    command = [sys.executable, "-m", "pytest", *options, *tests, f"--redis-url={url}", "-k", skipped]
    subprocess.run(command, cwd=suite, env=environ, check=False, stdout=subprocess.DEVNULL)
    return json.loads(report.read_text())


def main() -> int:
    """Compare both runs and print the counts."""
    engine = start_redis()
    if engine.url is None:
        say(f"no server: {engine.reason}")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        suite = fetch(Path(folder))
        (suite / "redis").rename(suite / "redis_source")  # the installed package is the one under test
        outcomes = {whose: run(suite, engine.url, whose) for whose in ("stock", "ours")}
    engine.stop()
    stock, ours = (passed(outcomes[whose]) for whose in ("stock", "ours"))
    linked = [name for name in ours if outcomes["ours"][name].get("link")]
    say(f"stock passes {len(stock)}, ours passes {len(ours)}, over a link {len(linked)}")
    missing = {name for name in stock - ours if not name.endswith(BY_DESIGN)}
    for name in sorted(missing):
        say(f"passes on stock only: {name}")
    return 1 if missing else 0


def passed(tests: dict) -> set[str]:
    """Return the names of the tests that passed."""
    return {name for name, got in tests.items() if got.get("outcome") == "passed"}


def say(line: str) -> None:
    """Print one line of the report."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
