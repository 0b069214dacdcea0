"""Runs the Python blocks of the pages: one namespace and one event loop per page, `await` allowed at top level."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from house.sources import ROOT

PAGES = ("docs/*.md", "README*.md")

_RUNNER = "__page_runner__"
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,}|:{3,})[ \t]*(.*?)[ \t]*$", re.MULTILINE)


class PageParser(PythonCodeBlockParser):
    """Finds blocks tagged ``python`` and runs them with ``run_block``."""

    def __init__(self) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", run_block)


def open_page(namespace: dict[str, Any]) -> None:
    """Make a page a program: it has a name, an empty default cache, and an event loop once it needs one."""
    from isp_perf.cache import CachePolicy, cache_manager  # here, so that a run without pages does not load the cache

    cache_manager.configure(redis=None, namespace="isp", schema=1, max_entries=10_000, policy=CachePolicy())
    namespace["__name__"] = "__main__"
    namespace[_RUNNER] = asyncio.Runner()


def close_page(namespace: dict[str, Any]) -> None:
    """End the page's event loop and dispose of its engines, so that nothing it left outlives it."""
    namespace.pop(_RUNNER).close()
    for thing in namespace.values():
        if type(thing).__module__.startswith("sqlalchemy.engine") and hasattr(thing, "dispose"):
            thing.dispose()


def run_block(example: Example) -> None:
    """Run one block; errors point at its lines in the page."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        example.namespace[_RUNNER].run(_evaluate(code, example.namespace))
    else:
        exec(code, example.namespace)


async def _evaluate(code: Any, namespace: dict[str, Any]) -> None:
    await eval(code, namespace)


def pages() -> Sybil:
    """Return the collector of every page of the project."""
    return Sybil(
        parsers=[PageParser(), SkipParser()],
        patterns=list(PAGES),
        path=str(ROOT),
        setup=open_page,
        teardown=close_page,
    )


def page_paths() -> list[Path]:
    """Return the pages that are collected."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def fences(text: str) -> list[tuple[str, str]]:
    """Return tag and content of every fenced block of a page, in order."""
    found: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif mark[2] == "" and mark[1].startswith(opened[1]):
            found.append((opened[2], text[opened.end() + 1 : mark.start()]))
            opened = None
    return found
