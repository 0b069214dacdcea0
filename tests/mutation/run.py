"""Mutation test: `python tests/mutation/run.py [module ...]` puts faults into modules and counts those that tests find.

Each mutant runs the module's tests in a process of its own, forked from one that has loaded pytest already. A mutant
is killed when a test fails, or when the tests take far too long. Mutants that behave as the original does are listed,
with the reason, in `equivalent.json`; the score leaves them out. The exit status is 1 if a score is below its minimum.

Modules and their tests stand in `targets.json`: `{"module": {"tests": [...], "minimum": 0.97}}`.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

from mutants import Mutant, mutants  # the folder of a script is the first place that is searched

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = ROOT / "src"
PATIENCE = 60  # seconds for the tests of one mutant


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self.module, self.path, self.source = module, path, source

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module):
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run_tests(module: str, path: Path, source: str, tests: list[str]) -> int:
    """Run the tests on a source; called in a forked child. Nothing is printed."""
    import hypothesis
    import pytest

    sys.meta_path.insert(0, Replaced(module, path, source))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, phases=phases, deadline=None)
    hypothesis.settings.load_profile("mutation")
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        return int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--assert=plain", *tests]))


class Trial:
    """A child process with one mutant."""

    def __init__(self, module: str, path: Path, source: str, tests: list[str]) -> None:
        self.until = time.monotonic() + PATIENCE
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setpgrp()
                code = run_tests(module, path, source, tests)
            finally:
                os._exit(code)

    def outcome(self) -> str | None:
        """Return "killed", "survived" or "slow"; `None` while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() < self.until:
            return None
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return "slow"

    def wait(self) -> str:
        """Return the outcome when there is one."""
        while (outcome := self.outcome()) is None:
            time.sleep(0.01)
        return outcome


def trials(module: str, path: Path, tests: list[str]) -> dict[Mutant, str]:
    """Try every mutant of a module, as many at a time as there are cores."""
    waiting = list(mutants(path.read_text(encoding="utf-8")))
    running: dict[Mutant, Trial] = {}
    outcomes: dict[Mutant, str] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 2):
            mutant = waiting.pop()
            running[mutant] = Trial(module, path, mutant.source, tests)
        time.sleep(0.01)
        for mutant, trial in list(running.items()):
            outcome = trial.outcome()
            if outcome is not None:
                outcomes[mutant] = outcome
                del running[mutant]
    return outcomes


def examine(module: str, target: dict, known: dict[str, str]) -> bool:
    """Try one module, print what survived, and tell whether the score is reached."""
    path = SOURCES.joinpath(*module.split(".")).with_suffix(".py")
    tests = target["tests"]
    if Trial(module, path, path.read_text(encoding="utf-8"), tests).wait() != "survived":
        say(f"{module}: its tests fail without any mutant")
        return False
    outcomes = trials(module, path, tests)
    survivors = [mutant for mutant, outcome in outcomes.items() if outcome == "survived"]
    equivalent = [mutant for mutant in survivors if f"{mutant.before} => {mutant.after}" in known]
    counted = len(outcomes) - len(equivalent)
    score = (len(outcomes) - len(survivors)) / counted
    for mutant in sorted(set(survivors) - set(equivalent), key=lambda each: each.line):
        say(f"{path.relative_to(ROOT)}:{mutant.line}: survived: {mutant.before} => {mutant.after}")
    say(f"{module}: {score:.1%} of {counted} mutants killed ({len(equivalent)} more are equivalent)")
    return score >= target["minimum"]


def main(chosen: list[str]) -> int:
    """Try the chosen modules, or all."""
    os.chdir(ROOT)
    targets = json.loads((HERE / "targets.json").read_text(encoding="utf-8"))
    equivalent = json.loads((HERE / "equivalent.json").read_text(encoding="utf-8"))
    for name in ("hypothesis", "hypothesis.stateful", "pytest", "pytest_asyncio"):
        importlib.import_module(name)
    reached = [examine(module, targets[module], equivalent.get(module, {})) for module in chosen or targets]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
