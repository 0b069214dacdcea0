"""Every test function says in one sentence what it promises."""

import ast
import re
from collections.abc import Iterable, Iterator

from house.sources import Function, Source

_NEXT_SENTENCE = re.compile(r"[.!?]\s+[A-Z]")


def tests(source: Source) -> Iterator[Function]:
    """Yield the test functions of a file."""
    return (node for node in source.functions() if node.name.startswith("test"))


def broken_promises(sources: Iterable[Source]) -> list[str]:
    """Name every test whose docstring is missing or is not one sentence."""
    return [
        f"{source.name}:{node.lineno}: {node.name} {fault}"
        for source in sources
        for node in tests(source)
        if (fault := promise_fault(ast.get_docstring(node)))
    ]


def promise_fault(docstring: str | None) -> str:
    """Return what is wrong with a promise, or nothing."""
    if not docstring or not docstring.strip():
        return "promises nothing: it has no docstring"
    text = " ".join(docstring.split())
    if not text.endswith((".", "!", "?")):
        return "does not end its sentence"
    if _NEXT_SENTENCE.search(text):
        return "promises more than one sentence"
    return ""
