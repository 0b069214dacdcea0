"""Who imports whom: cycles of modules, imports inside functions included, and rooms that need nothing but Python."""

import ast
import sys
from collections.abc import Iterable, Mapping

import grimp

from house.sources import Source

PACKAGE_NAME = "isp_perf"
CLOCK_READINGS = frozenset({"now", "today", "utcnow"})


def import_graph() -> grimp.ImportGraph:
    """Return the import graph of the package, third parties and the standard library included."""
    return grimp.build_graph(PACKAGE_NAME, include_external_packages=True, cache_dir=None)


def edges(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return for every module of the package the modules of the package that it imports."""
    inside = {module for module in graph.modules if module.partition(".")[0] == PACKAGE_NAME}
    return {module: (graph.find_modules_directly_imported_by(module) & inside) - {module} for module in inside}


def cycles(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Name every set of modules that import one another in a circle (depth first, one circle per entry into it)."""
    findings: list[str] = []
    done: set[str] = set()
    for start in sorted(imports):
        path: list[str] = []
        stack = [(start, False)]
        while stack:
            module, leaving = stack.pop()
            if leaving:
                done.add(path.pop())
            elif module in path:
                findings.append(" -> ".join([*path[path.index(module) :], module]))
            elif module not in done:
                path.append(module)
                stack.append((module, True))
                stack += [(imported, False) for imported in sorted(imports.get(module, ()), reverse=True)]
    return findings


def third_parties(sources: Iterable[Source]) -> list[str]:
    """Name every import that neither Python nor the package itself provides."""
    return [
        f"{source.name}:{node.lineno}: imports {name}"
        for source in sources
        for node in ast.walk(source.tree)
        for name in _imported(node)
        if name not in sys.stdlib_module_names and name != PACKAGE_NAME
    ]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module.partition(".")[0]]
    return []


def clock_readings(sources: Iterable[Source]) -> list[str]:
    """Name every place that asks what time it is: pure modules are told."""
    return [
        f"{source.name}:{node.lineno}: .{node.attr} reads a clock"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_READINGS
    ]
