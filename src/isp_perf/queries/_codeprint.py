"""Tells releases of a function apart by its code, and what its parameters may be."""

import inspect
from collections.abc import Callable, Sequence
from hashlib import blake2b
from types import CodeType
from typing import Any, cast

from isp_perf.errors import ConfigurationError

__all__ = ["behind_session", "code_digest"]


def code_digest(function: Callable[..., Any]) -> str:
    """Return what changes with the code of a function, so that a new release does not read rows of the old one."""
    code = cast("CodeType | None", getattr(inspect.unwrap(function), "__code__", None))
    return blake2b(repr(_parts(code) if code else "").encode(), digest_size=6).hexdigest()


def _parts(code: CodeType) -> list[Any]:
    constants = [_parts(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, constants]


def behind_session(head: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return parameters that may follow the session, none of which has its name."""
    if any(parameter.name == "session" for parameter in head):
        raise ConfigurationError(
            "function", "session", "the decorated function takes the session first", "leave it out of the parameters"
        )
    return list(head)
