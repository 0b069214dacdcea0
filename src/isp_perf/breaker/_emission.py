"""The lines that a breaker contributes to a wrapper; ``_eras`` explains them."""

import inspect
from collections.abc import Callable
from types import CoroutineType
from typing import Any, get_type_hints

from isp_perf.breaker._wrapping import Site, indented

__all__ = ["breaker_lines", "may_return_coroutine"]

_SURE = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple, type(None))
"""Annotated results that are surely no coroutine; any other class might have one as a subclass."""

_UNREADABLE = (AttributeError, ImportError, LookupError, NameError, SyntaxError, TypeError, ValueError)


def may_return_coroutine(function: Callable[..., Any]) -> bool:
    """Tell whether a plain function may turn out to be a coroutine function in disguise.

    Only an annotation that rules it out is believed; without one every result is looked at.
    """
    target = inspect.unwrap(function)
    try:
        declared = get_type_hints(target).get("return", Any)
    except _UNREADABLE:
        return True
    return getattr(declared, "__origin__", declared) not in _SURE


def breaker_lines(inner: list[str], site: Site, breaker: str) -> list[str]:
    """Return ``inner`` protected by the breaker whose place holder is ``breaker``.

    What only unusual paths need is reached through the breaker, since each further constant of the wrapper would cost
    every call a copy.
    """
    era, error = site.local("era"), site.local("error")
    rejected = _rejected_lines(site, breaker)
    call = [
        "try:",
        *indented(inner),
        f"except {breaker}.caught as {error}:",
        f"    {era}.fail({error})",
        "    raise",
        *_success_lines(site, breaker, era),
    ]
    lines = [f"{era} = {breaker}.era", f"if {era}.shut:", *indented(_admission_lines(site, breaker, era))]
    if site.outermost:
        return [*lines, f"    if {era} is None:", *indented(rejected, 2), *call]
    # Inside other strategies a ``return`` would skip what they do after the call.
    return [*lines, f"if {era} is None:", *indented(rejected), "else:", *indented(call)]


def _admission_lines(site: Site, breaker: str, era: str) -> list[str]:
    if not site.asynchronous:
        return [f"{era} = {era}.admit()"]
    return [f"{era} = {era}.aadmit()", f"if {era} is False:", f"    {era} = await {breaker}.turn()"]


def _rejected_lines(site: Site, breaker: str) -> list[str]:
    """Answer with the fallback; only a configuration that has one ever comes here."""
    if site.kind == "async generator":
        item = site.local("item")
        leave = ["return"] if site.outermost else []
        return [f"async for {item} in {breaker}.config.stand_in($args):", f"    yield {item}", *leave]
    verb = "return" if site.outermost else "$result ="
    if site.kind == "generator":
        return [f"{verb} (yield from {breaker}.config.stand_in($args))"]
    if site.kind == "coroutine":
        return [f"{verb} await {breaker}.answer($args)"]
    return [f"{verb} {breaker}.config.stand_in($args)"]


def _success_lines(site: Site, breaker: str, era: str) -> list[str]:
    count = [f"{era}.ok += 1", f"if {era}.dirty:", f"    {era}.settle($result)"]
    if site.kind != "function" or not may_return_coroutine(site.function):
        return count
    return [
        f"if $result.__class__ is {site.bind('Coroutine', CoroutineType)}:",
        f"    $result = {breaker}.follow({era}, $result)",
        "else:",
        *indented(count),
    ]
