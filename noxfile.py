"""The sessions: every gate, the tests, the live page in a browser, the pages, the benchmarks, and the long runs.

An environment is installed once and again only when ``pyproject.toml`` changes, so that a second run costs what the
tools themselves cost.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["check", "docs"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # `tests` runs on those of the four that are there

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PYPROJECT = Path("pyproject.toml")
PROJECT = nox.project.load_toml(PYPROJECT)

# Longest first: two run at a time, and the sum is shortest when none of the long ones comes last.
GATES: Mapping[str, Sequence[str]] = {
    "pyright, strict": ("pyright", "--warnings"),
    "mypy, strict": ("mypy",),
    "architecture": ("python", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/architecture"),
    "public types complete": ("pyright", "--verifytypes", "isp_perf", "--ignoreexternal"),
    "spelling": ("codespell",),
    "import contracts": ("lint-imports", "--no-logo"),
    "dead code": ("vulture",),
    "ruff": ("ruff", "check", "--no-fix", "."),
    "format": ("ruff", "format", "--check", "."),
}


@dataclass(frozen=True)
class Verdict:
    """How one gate ended."""

    name: str
    passed: bool
    seconds: float
    output: str


@nox.session
def check(session: nox.Session) -> None:
    """Run every gate, two at a time, and report all that fail (names of gates as arguments choose some)."""
    install(session, "-e", ".[test]", *group("check"))
    chosen = {name: GATES[name] for name in session.posargs or GATES}
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as workers:
        verdicts = list(workers.map(lambda gate: judge(session, gate), chosen.items()))
    report(session, verdicts)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every supported Python that is installed."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the live page in Chromium: the one on the PATH, else playwright's own, which is fetched."""
    install(session, "-e", ".[test,browser]")
    if shutil.which("chromium") is None:
        session.run("playwright", "install", "chromium")
    page = "tests/integration/test_live_page_browser.py"
    session.run("python", "-m", "pytest", "-n", "0", page, *session.posargs, env={"BROWSER_TESTS": "required"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, offline; a warning is an error."""
    install(session, *group("docs"))
    session.run(
        "sphinx-build", "-E", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html", *session.posargs
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure side by side with the peers; the figures are ratios within one run (scripts as arguments choose some)."""
    install(session, "-e", ".[test,fast]", *group("bench"))
    for script in session.posargs or sorted(map(str, Path("benchmarks").glob("test_*.py"))):
        session.run("python", script, success_codes=[0, 1])  # 1: a figure is over its limit, and says so


@nox.session
def foreign(session: nox.Session) -> None:
    """Run the suites of other projects on our classes; fetches their source distributions (some minutes)."""
    install(session, "-e", ".[test]")
    for script in session.posargs or sorted(map(str, Path("tests/foreign").glob("*/run.py"))):
        session.run("python", script)


@nox.session
def mutation(session: nox.Session) -> None:
    """Put faults into decision modules and count those that tests find (modules as arguments choose some)."""
    install(session, "-e", ".[test]")
    session.run("python", "tests/mutation/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run the long storms: a million cancelled, timed-out and killed operations per server and event loop.

    Without arguments it takes a night: ten million reads of random histories, healthy and in chaos (COHERENCE_READS
    says how many otherwise), also the keys of a million calls against each other, which are 500 billion pairs, and the
    properties of queries, with fifty times the examples.
    """
    install(session, "-e", ".[test]")
    reads = os.environ.get("COHERENCE_READS", "100000" if session.posargs else "10000000")
    session.run("python", "-m", "pytest", "-n", "0", "-m", "soak", *session.posargs, env={"COHERENCE_READS": reads})
    if not session.posargs:
        pairs = "tests/property/test_keys_collisions.py"
        session.run("python", "-m", "pytest", "-n", "0", pairs, env={"TEST_KEY_CALLS": "1000000"})
        queries = [
            *map(str, Path("tests/property").glob("test_queries_*.py")),
            "tests/stateful/test_cached_query_machine.py",
        ]
        session.run("python", "-m", "pytest", "-n", "0", *queries, env={"TEST_QUERY_TIMES": "50"})


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group, for a pip of any age."""
    return list(nox.project.dependency_groups(PROJECT, name))


def install(session: nox.Session, *requirements: str) -> None:
    """Install ``requirements`` unless this environment has them already, from this very ``pyproject.toml``."""
    wanted = hashlib.sha256(PYPROJECT.read_bytes() + "\0".join(requirements).encode()).hexdigest()
    mark = Path(session.virtualenv.location) / "installed.sha256"
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return
    session.install("--quiet", *requirements)
    mark.write_text(wanted, encoding="ascii")


def judge(session: nox.Session, gate: tuple[str, Sequence[str]]) -> Verdict:
    """Run one gate with the tools of the session's environment."""
    name, (tool, *arguments) = gate
    program = shutil.which(tool, path=session.bin)
    if program is None:
        return Verdict(name, passed=False, seconds=0.0, output=f"{tool} is not installed in {session.bin}")
    path = os.pathsep.join([session.bin, os.environ.get("PATH", os.defpath)])
    start = time.monotonic()
    run = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    return Verdict(name, run.returncode == 0, time.monotonic() - start, run.stdout)


def report(session: nox.Session, verdicts: Sequence[Verdict]) -> None:
    """List how the gates ended, then print in full what each failed one said, and fail if there is one."""
    for verdict in verdicts:
        session.log(f"{'ok  ' if verdict.passed else 'FAIL'} {verdict.name} ({verdict.seconds:.1f} s)")
    failed = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in failed:
        session.warn(f"---- {verdict.name} ----\n{verdict.output}")
    if failed:
        session.error("gates that failed: " + ", ".join(verdict.name for verdict in failed))
