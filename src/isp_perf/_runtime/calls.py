"""Kinds of functions, and the lines by which a generated wrapper calls each of them.

The lines belong to ``_runtime.specialize``: they call ``$function($args)`` and leave what it returned in ``$result``.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal

__all__ = ["CALLS", "NAMES", "Kind", "kind_of"]

Kind = Literal["function", "coroutine", "generator", "async generator"]

CALLS: Final[dict[Kind, str]] = {
    "function": "$result = $function($args)",
    "coroutine": "$result = await $function($args)",
    "generator": "$result = yield from $function($args)",
    # ``async for ...: yield`` would swallow what is sent and thrown in, so the generator is driven by hand.
    "async generator": """\
$result = None
$inner = $function($args)
try:
    $item = await $inner.__anext__()
    while True:
        try:
            $sent = yield $item
        except $GeneratorExit:
            await $inner.aclose()
            raise
        except $BaseException as $thrown:
            $item = await $inner.athrow($thrown)
        else:
            $item = await $inner.asend($sent)
except $StopAsyncIteration:
    pass""",
}
"""The lines of each kind; an async generator has no result, and ``return $result`` must not follow it."""

NAMES: Final[dict[str, object]] = {
    "BaseException": BaseException,
    "GeneratorExit": GeneratorExit,
    "StopAsyncIteration": StopAsyncIteration,
}
"""The constants that the lines name, beside ``function``."""


def kind_of(function: Callable[..., Any]) -> Kind:
    """Tell what calling ``function`` gives; callable objects are judged by their ``__call__``."""
    targets = (function,) if inspect.isroutine(function) else (function, type(function).__call__)
    for target in targets:
        if inspect.isasyncgenfunction(target):
            return "async generator"
        if inspect.iscoroutinefunction(target):
            return "coroutine"
        if inspect.isgeneratorfunction(target):
            return "generator"
    return "function"
