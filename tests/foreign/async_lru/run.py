"""Run async-lru's tests with our cache behind ``alru_cache``: ``python run.py``.

The suite comes from async-lru's source distribution on PyPI, in the version that is installed; it needs network access
and is not part of the default run. Exit code 1: a test fails that is not named below.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MODULES = (
    "basic",
    "cache_clear",
    "cache_contains",
    "cache_info",
    "cache_invalidate",
    "cancel",
    "close",
    "exception",
    "size",
    "thread_safety",
    "ttl",
)
# What differs by design, or looks into async-lru's own parts.
BY_DESIGN = {
    "test_alru_cache_dict_not_shared": "a private attribute of their wrapper",
    "test_alru_exception": "our leader loads inline, so a loader that never waits has failed before the next one asks",
    "test_cache_clear_pending_task": "a private attribute of their wrapper",
    "test_cache_clear_ttl_callback": "a private attribute of their wrapper",
    "test_cache_contains_on_method": "theirs binds the bookkeeping to the instance, ours takes it as argument",
    "test_cache_contains_pending_task": "a load in progress is not in the cache",
    "test_invalidate_cache_for_method": "theirs binds the bookkeeping to the instance, ours takes it as argument",
    "test_alru_cache_removing_lru_keys": "a private attribute of their wrapper",
    "test_alru_cache_removing_lru_keys_with_full_displacement": "a private attribute of their wrapper",
    "test_cache_close": "our managers close; functions do not",
    "test_cache_close_wait_bound_method": "our managers close; functions do not",
    "test_cross_loop_auto_resets_cache": "entries are of the process: another loop finds them",
    "test_cross_loop_cache_close_works": "our managers close; functions do not",
    "test_cross_loop_preserves_stats_reset": "entries are of the process: another loop finds them",
    "test_invalid_key_does_not_bind_loop": "a list is an argument like any other",
    "test_loop_change_emits_warning": "entries are of the process: another loop finds them",
    "test_loop_change_warns_only_once": "entries are of the process: another loop finds them",
    "test_jitter_negative_raises_error": "our own error, for our own range",
    "test_jitter_without_ttl_raises_error": "our own error, for our own range",
    "test_ttl_with_jitter_basic": "our jitter shortens, theirs lengthens",
}
HERE = Path(__file__).parent


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution; return its folder, without the package itself."""
    wanted = f"async-lru=={importlib.metadata.version('async-lru')}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    with tarfile.open(next(folder.glob("async_lru-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    suite = next(path for path in folder.glob("async_lru-*") if path.is_dir())
    (suite / "async_lru").rename(suite / "async_lru_source")
    return suite


def main() -> int:
    """Run the tests, print the counts and what failed beyond the list."""
    with tempfile.TemporaryDirectory() as folder:
        suite = fetch(Path(folder))
        options = ["-q", "-rf", "--tb=no", "-n", "0", "-c", os.devnull, "--rootdir", ".", "-o", "asyncio_mode=auto"]
        files = [f"tests/test_{name}.py" for name in MODULES]
        command = [sys.executable, "-m", "pytest", *options, "-W", "ignore", "-p", "plugin", *files]
        environ = os.environ | {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(command, cwd=suite, env=environ, check=False, capture_output=True, text=True)
    failed = set(re.findall(r"^FAILED \S+::(\w+)", run.stdout, re.MULTILINE))
    sys.stdout.write(run.stdout.strip().splitlines()[-1] + "\n")
    surprises = failed - BY_DESIGN.keys()
    for name in sorted(surprises):
        sys.stdout.write(f"fails: {name}\n")
    for name in sorted(BY_DESIGN.keys() - failed):
        sys.stdout.write(f"passes, although it is listed: {name}\n")
    return 1 if surprises or not re.search(r"\d+ passed", run.stdout) else 0


if __name__ == "__main__":
    sys.exit(main())
