"""Cyclomatic complexity by radon, beside ruff's: the two count boolean operators and comprehensions differently."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from house.sources import ROOT

MAX_COMPLEXITY = 8


def too_complex(*folders: Path) -> list[str]:
    """Name every function and method below ``folders`` whose complexity is above 8."""
    command = [sys.executable, "-W", "ignore", "-m", "radon", "cc", "--json", *map(str, folders)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    return [
        f"{Path(path).relative_to(ROOT) if Path(path).is_relative_to(ROOT) else path}:{block['lineno']}: "
        f"{block['name']} has complexity {block['complexity']}, {MAX_COMPLEXITY} allowed"
        for path, blocks in report.items()
        for block in _functions(path, blocks)
        if block["complexity"] > MAX_COMPLEXITY
    ]


def _functions(path: str, blocks: Any) -> Iterator[dict[str, Any]]:
    if isinstance(blocks, dict):
        raise ValueError(f"radon cannot read {path}: {blocks.get('error')}")
    for block in blocks:
        if block["type"] != "class":  # a class is the mean of its methods, which are listed themselves
            yield block
            yield from _functions(path, block.get("closures", []))
