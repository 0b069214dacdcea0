"""Check the shipped alert rules with Prometheus's own tool: ``python run.py``.

Takes ``promtool`` from PATH, else unpacks it from Debian's package ``prometheus`` (``apt-get download``, nothing is
installed), then runs ``check rules`` and the cases of tests/data/ops. Not part of the default run. The exit code is the
tool's.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
RULES = ROOT / "src/isp_perf/ops/rules/isp_perf.yml"
CASES = ROOT / "tests/data/ops/isp_perf_test.yml"


def promtool(folder: Path) -> str | None:
    """Return the path of the tool, or ``None`` where it cannot be had."""
    found = shutil.which("promtool")
    if found or not shutil.which("apt-get"):
        return found
    subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=folder, check=True)
    package = next(folder.glob("prometheus_*.deb"))
    subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
    return str(folder / "usr/bin/promtool")


def main() -> int:
    """Run both checks on copies that lie side by side, as the cases expect."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tool = promtool(folder)
        if tool is None:
            sys.stdout.write("no promtool on PATH, and no apt-get to fetch it with\n")
            return 2
        for file in (RULES, CASES):
            shutil.copy(file, folder)
        checks = (["check", "rules", RULES.name], ["test", "rules", CASES.name])
        return max([subprocess.run([tool, *check], cwd=folder, check=False).returncode for check in checks])


if __name__ == "__main__":
    sys.exit(main())
