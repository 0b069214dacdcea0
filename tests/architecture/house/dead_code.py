"""Functions, classes and properties that nobody names: neither the package nor its tests, examples and benchmarks."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from house.sources import ROOT

CALLED_FROM_OUTSIDE = (
    "__*__",  # by the language
    "connection_made",  # by asyncio's transports
    "connection_lost",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
)
REGISTERED = ("@compiles*", "@event.*", "@listens_for*")

_FINDING = re.compile(r"^(.+?):(\d+): unused (function|method|property|class) '(\w+)'")


def nobody_names(folder: Path, users: Sequence[Path] = ()) -> list[str]:
    """Name what is defined below ``folder`` and appears by name neither there nor in ``users``.

    Two definitions of one name cover for each other, so this finds the plain cases only.
    """
    command = [sys.executable, "-m", "vulture", "--config", "/dev/null", "--min-confidence", "60"]
    command += ["--ignore-names", ",".join(CALLED_FROM_OUTSIDE), "--ignore-decorators", ",".join(REGISTERED)]
    command += map(str, [folder, *users])
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if run.stderr or run.returncode not in {0, 3}:
        raise ValueError(f"vulture cannot read its input: {run.stdout}{run.stderr}")
    found = (match for line in run.stdout.splitlines() if (match := _FINDING.match(line)))
    return [
        f"{_shown(Path(match[1]))}:{match[2]}: nothing uses the {match[3]} {match[4]}"
        for match in found
        if (ROOT / match[1]).is_relative_to(folder)
    ]


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
