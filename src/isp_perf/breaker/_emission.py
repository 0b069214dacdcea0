"""The lines that a breaker contributes to a wrapper; ``_eras`` explains them."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from isp_perf.breaker._forms import answer, follow, stand_in
from isp_perf.breaker._half_open import WAIT, turn
from isp_perf.breaker._wrapping import Site, indented

__all__ = ["breaker_lines", "may_return_coroutine"]

_SURE = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple, type(None))
"""Annotated results that are surely no coroutine; any other class might have one as a subclass."""


def may_return_coroutine(function: Callable[..., Any]) -> bool:
    """Tell whether a plain function may turn out to be a coroutine function in disguise.

    Only an annotation that rules it out is believed; without one every result is looked at.
    """
    target = inspect.unwrap(function)
    try:
        declared = get_type_hints(target).get("return", Any)
    except (NameError, TypeError, AttributeError, ValueError):
        return True
    return getattr(declared, "__origin__", declared) not in _SURE


def breaker_lines(inner: list[str], site: Site, breaker: str) -> list[str]:
    """Return ``inner`` protected by the breaker whose place holder is ``breaker``."""
    era, error = site.local("era"), site.local("error")
    rejected = _rejected_lines(site, breaker)
    call = [
        "try:",
        *indented(inner),
        f"except $BaseException as {error}:",
        f"    {era}.fail({error})",
        "    raise",
        *_success_lines(site, era),
    ]
    lines = [f"{era} = {breaker}.era", f"if {era}.shut:", *indented(_admission_lines(site, breaker, era))]
    if site.outermost:
        return [*lines, f"    if {era} is None:", *indented(rejected, 2), *call]
    # Inside other strategies a ``return`` would skip what they do after the call.
    return [*lines, f"if {era} is None:", *indented(rejected), "else:", *indented(call)]


def _admission_lines(site: Site, breaker: str, era: str) -> list[str]:
    if not site.asynchronous:
        return [f"{era} = {era}.admit()"]
    wait, turn_ = site.bind("wait", WAIT), site.bind("turn", turn)
    return [f"{era} = {era}.aadmit()", f"if {era} is {wait}:", f"    {era} = await {turn_}({breaker})"]


def _rejected_lines(site: Site, breaker: str) -> list[str]:
    """Answer with the fallback; only a configuration that has one ever comes here."""
    leave = ["return"] if site.outermost else []
    if site.kind == "async generator":
        item, source = site.local("item"), site.bind("stand_in", stand_in)
        return [f"async for {item} in {source}({breaker}, $args):", f"    yield {item}", *leave]
    verb = "return" if site.outermost else "$result ="
    if site.kind == "generator":
        return [f"{verb} (yield from {site.bind('stand_in', stand_in)}({breaker}, $args))"]
    if site.kind == "coroutine":
        return [f"{verb} await {site.bind('answer', answer)}({breaker}, $args)"]
    return [f"{verb} {site.bind('stand_in', stand_in)}({breaker}, $args)"]


def _success_lines(site: Site, era: str) -> list[str]:
    count = [f"{era}.ok += 1", f"if {era}.dirty:", f"    {era}.settle($result)"]
    if site.kind != "function" or not may_return_coroutine(site.function):
        return count
    follow_ = site.bind("follow", follow)
    return [
        "if $result.__class__ is $Coroutine:",
        f"    $result = {follow_}({era}, $result)",
        "else:",
        *indented(count),
    ]
