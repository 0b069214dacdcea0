"""Python sources as the analysers see them: path, text and syntax tree, read once."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "src" / "isp_perf"
EXAMPLES = ROOT / "examples"
TESTS = ROOT / "tests"
HOUSE = TESTS / "architecture" / "house"
NOXFILE = ROOT / "noxfile.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of the file."""
        return ast.parse(self.text, filename=str(self.path))

    @property
    def name(self) -> str:
        """The path as findings print it: relative to the repository where it lies within."""
        return str(self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path)

    def functions(self) -> Iterator[Function]:
        """Every function and method of the file, nested ones included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


def read_sources(*folders: Path, pattern: str = "*.py") -> list[Source]:
    """Return the Python files below ``folders`` whose name matches ``pattern``, in a stable order."""
    return [
        read_source(path)
        for folder in folders
        for path in sorted(folder.rglob(pattern))
        if "__pycache__" not in path.parts and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


@cache
def read_source(path: Path) -> Source:
    """Return the file at ``path``; read and parsed once, whoever asks."""
    return Source(path, path.read_text(encoding="utf-8"))
