"""What ``import isp_perf`` costs and loads, measured in fresh interpreters."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 7
LIMIT_SECONDS = 0.010

_PROBE = """
import json, sys, time
before = set(sys.modules)
start = time.process_time()
{statement}
seconds = time.process_time() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


@dataclass(frozen=True)
class Startup:
    """Processor seconds that a statement took in a fresh interpreter, and the modules that it loaded."""

    seconds: float
    modules: frozenset[str]

    @property
    def third_parties(self) -> frozenset[str]:
        """The loaded modules that belong neither to Python nor to the package."""
        tops = {module.partition(".")[0] for module in self.modules}
        return frozenset(tops - sys.stdlib_module_names - {"isp_perf"})


def measure(statement: str, *, folder: Path | None = None, rounds: int = ROUNDS) -> Startup:
    """Run ``statement`` in ``rounds`` fresh interpreters and return the least time, which noise can only lengthen.

    Processor time is taken, so that a busy machine does not count; the interpreter's own start is not part of it.
    """
    program = _PROBE.format(statement=statement)
    runs = [_run(program, folder) for _ in range(rounds)]
    return Startup(min(seconds for seconds, _ in runs), frozenset(runs[0][1]))


def _run(program: str, folder: Path | None) -> tuple[float, list[str]]:
    command = [sys.executable, "-c", program]
    seconds, modules = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=folder).stdout)
    return seconds, modules
