"""How long functions and modules are, in code lines: blank lines, comments and docstrings do not count."""

import ast
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cache
from typing import TypeGuard

from house.sources import Function, Source

MAX_FUNCTION = 40
MAX_MODULE = 300
DRAWERS = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})


@cache
def code_lines(source: Source) -> tuple[int, ...]:
    """Return the numbers of the lines that hold code, in order; what a longer string holds is code, not layout."""
    written = (line.strip() for line in source.text.splitlines())
    lines = {number for number, line in enumerate(written, 1) if line and not line.startswith("#")}
    lines.update(*(range(node.lineno, _end(node) + 1) for node in ast.walk(source.tree) if _is_text(node)))
    return tuple(sorted(lines - docstring_lines(source.tree)))


def _is_text(node: ast.AST) -> TypeGuard[ast.expr]:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _end(node: ast.expr | ast.stmt) -> int:
    return node.end_lineno or node.lineno


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that belong to docstrings of modules, classes and functions."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines.update(range(text.lineno, _end(text) + 1))
    return lines


def too_long(sources: Iterable[Source]) -> list[str]:
    """Name every module above 300 and every function above 40 code lines."""
    findings: list[str] = []
    for source in sources:
        lines = code_lines(source)
        if len(lines) > MAX_MODULE:
            findings.append(f"{source.name}: module of {len(lines)} code lines, {MAX_MODULE} allowed")
        for node in source.functions():
            own = bisect_right(lines, _end(node)) - bisect_left(lines, node.lineno)
            if own > MAX_FUNCTION:
                findings.append(
                    f"{source.name}:{node.lineno}: {node.name} has {own} code lines, {MAX_FUNCTION} allowed"
                )
    return findings


def drawers(sources: Iterable[Source]) -> list[str]:
    """Name every module called after nothing in particular."""
    return [
        f"{source.name}: name the module after what it does"
        for source in sources
        if source.path.stem.strip("_") in DRAWERS
    ]
