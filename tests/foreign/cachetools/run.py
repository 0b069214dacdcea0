"""Run cachetools' tests of a cache (``CacheTestMixin``) on our local level as a mapping: ``python run.py``.

The suite comes from cachetools' source distribution on PyPI, in the version that is installed; it needs network access
and is not part of the default run. Exit code 1: a test fails.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution; return its folder."""
    wanted = f"cachetools=={importlib.metadata.version('cachetools')}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    with tarfile.open(next(folder.glob("cachetools-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("cachetools-*") if path.is_dir())


def module(name: str, path: Path):
    """Import the file at ``path`` as ``name``, so that what it defines can be pickled."""
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def main() -> int:
    """Run the tests and print the counts."""
    with tempfile.TemporaryDirectory() as folder:
        suite = module("cachetools_suite", fetch(Path(folder)) / "tests" / "__init__.py")
        ours = module("mapping", HERE / "mapping.py")
        case = type("LocalLevelTest", (unittest.TestCase, suite.CacheTestMixin), {"Cache": ours.LocalMapping})
        outcome = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    sys.stdout.write(f"{outcome.testsRun} tests, {len(outcome.failures) + len(outcome.errors)} failed\n")
    return 0 if outcome.wasSuccessful() and outcome.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
