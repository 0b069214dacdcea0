"""How long functions and modules are, in code lines: blank lines, comments and docstrings do not count."""

import ast
import io
import tokenize
from collections.abc import Iterable
from functools import cache

from house.sources import Function, Source

MAX_FUNCTION = 40
MAX_MODULE = 300
DRAWERS = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})

_LAYOUT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


@cache
def code_lines(source: Source) -> frozenset[int]:
    """Return the numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return frozenset(lines - docstring_lines(source.tree))


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that belong to docstrings of modules, classes and functions."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def too_long(sources: Iterable[Source]) -> list[str]:
    """Name every module above 300 and every function above 40 code lines."""
    findings: list[str] = []
    for source in sources:
        lines = code_lines(source)
        if len(lines) > MAX_MODULE:
            findings.append(f"{source.name}: module of {len(lines)} code lines, {MAX_MODULE} allowed")
        for node in source.functions():
            own = sum(node.lineno <= line <= (node.end_lineno or node.lineno) for line in lines)
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
