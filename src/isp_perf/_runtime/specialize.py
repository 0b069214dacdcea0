"""Wrappers with the wrapped function's own parameter list.

A decorator written as ``def wrapper(*args, **kwargs)`` packs every call into a tuple and a dict, accepts calls that
the function would refuse, and has to normalise ``f(1)``, ``f(x=1)`` and defaults by hand. Here the wrapper is
generated, as ``dataclasses`` generates ``__init__``: the interpreter binds the arguments, wrong calls fail before any
of our code runs, and the body names the parameters directly.

The generated source holds identifiers only. Defaults, constants and the function's name travel as objects (closure
cells, ``__defaults__``, the code object's name), never by ``repr``, so no value can become code. Names of ours are
changed until they collide with no parameter. Sources are compiled once per shape: a thousand functions ``(user_id)``
share one text, which is registered with ``linecache``, so that tracebacks show it.
"""

import inspect
import linecache
import re
from binascii import crc32
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, update_wrapper
from textwrap import indent
from types import CodeType, FunctionType
from typing import Any

from isp_perf.errors import ConfigurationError

__all__ = ["parameters", "specialize"]

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_KINDS = (_POSITIONAL_ONLY, _POSITIONAL, _VAR_POSITIONAL, _KEYWORD_ONLY, _VAR_KEYWORD)
_EMPTY = inspect.Parameter.empty
_PLACEHOLDER = re.compile(r"\$(\w+)")
_DESCRIPTORS = {classmethod: "classmethod", staticmethod: "staticmethod", property: "property"}
_DECLARED: dict[object, str] = {_VAR_POSITIONAL: "*{0}", _VAR_KEYWORD: "**{0}"}
_FORWARDED: dict[object, str] = {_VAR_POSITIONAL: "*{0}", _KEYWORD_ONLY: "{0}={0}", _VAR_KEYWORD: "**{0}"}


def parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """Return the parameters of ``function`` in order, as its signature declares them.

    Raises:
        ConfigurationError: ``function`` is a classmethod, staticmethod or property object, is not callable, or does not
            tell its signature (some builtins).
    """
    for descriptor, name in _DESCRIPTORS.items():
        if isinstance(function, descriptor):
            raise ConfigurationError(
                "function",
                f"<{name} object>",
                "the decorator wraps plain functions",
                f"put it under @{name}, not above it",
            )
    if not callable(function):
        raise ConfigurationError(
            "function", type(function).__name__, "only a callable can be decorated", "decorate a def or async def"
        )
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        name = getattr(function, "__qualname__", type(function).__name__)
        raise ConfigurationError(
            "function", name, "its signature cannot be read", "wrap it in a def with the parameters written out"
        ) from None


def specialize(
    function: Callable[..., Any], body: str, names: Mapping[str, object], *, asynchronous: bool | None = None
) -> FunctionType:
    """Return a real function with the parameter list of ``function`` and the given body.

    ``inspect.signature``, name, qualified name, module, doc, annotations, defaults and ``__dict__`` are those of
    ``function``, which stays reachable as ``__wrapped__``. Being found under the same qualified name, the wrapper is
    pickled by reference like any function.

    Args:
        function: the callable to stand in front of; its signature decides the parameter list.
        body: Python source of the wrapper's body, unindented, with placeholders:

            - ``$name`` with ``name`` in ``names``: a closure constant bound to ``names[name]``; builtins that the body
              needs are passed this way too, since a parameter may have their name;
            - ``$args``: the arguments that repeat the call, such as ``a, b, *rest, c=c, **options``;
            - ``$values``: a tuple expression of all bound values in order of declaration;
            - ``$param_0``, ``$param_1`` ...: the parameter at that index;
            - any other ``$name``: a local variable that collides with no parameter.

            The body must name nothing else: globals and builtins are the user's there.
        names: the objects the body refers to.
        asynchronous: ``True`` for ``async def``, ``False`` for ``def``; ``None`` to follow ``function``. A body that
            contains ``yield`` makes a generator or an async generator.

    Raises:
        ConfigurationError: the function cannot be wrapped; see ``parameters``.
    """
    declared = parameters(function)
    if asynchronous is None:
        asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    constants, source = _render(declared, body, names, asynchronous=asynchronous)
    # The user's globals: frameworks resolve string annotations in the ``__globals__`` of what they are given.
    surroundings = getattr(inspect.unwrap(function), "__globals__", {})
    wrapper: FunctionType = FunctionType(_factory(source), surroundings)(*(names[name] for name in constants))
    _take_defaults(wrapper, declared)
    _take_identity(wrapper, function)
    return wrapper


def _render(
    declared: tuple[inspect.Parameter, ...], body: str, names: Mapping[str, object], *, asynchronous: bool
) -> tuple[list[str], str]:
    """Return the constants that the body uses, in the factory's order, and the factory's source."""
    taken = {parameter.name for parameter in declared}
    spelled = _phrases(declared)
    ours = [name for name in dict.fromkeys(_PLACEHOLDER.findall(body)) if name not in spelled]
    spelled |= {name: _free(name, taken) for name in ours}
    text = _PLACEHOLDER.sub(lambda match: spelled[match[1]], body)
    constants = list(filter(names.__contains__, ours))
    factory, inner = _free("factory", taken), _free("call", taken)
    keyword = "async def" if asynchronous else "def"
    lines = [
        f"def {factory}({', '.join(spelled[name] for name in constants)}):",
        f"    {keyword} {inner}({_header(declared)}):",
        indent(text, " " * 8),
        f"    return {inner}",
    ]
    return constants, "\n".join(lines) + "\n"


def _phrases(declared: tuple[inspect.Parameter, ...]) -> dict[str, str]:
    """Return what the placeholders that speak of the parameters stand for."""
    spelled = {f"param_{index}": parameter.name for index, parameter in enumerate(declared)}
    spelled["args"] = ", ".join(_FORWARDED.get(each.kind, "{0}").format(each.name) for each in declared)
    spelled["values"] = "(" + "".join(f"{each.name}, " for each in declared) + ")"
    return spelled


def _free(name: str, taken: set[str]) -> str:
    """Return ``name``, changed until nothing in ``taken`` has it, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _header(declared: Iterable[inspect.Parameter]) -> str:
    """Return the parameter list as source; defaults are place holders that ``_take_defaults`` replaces."""
    kinds = {kind: [each for each in declared if each.kind is kind] for kind in _KINDS}
    parts = [_declaration(each) for each in kinds[_POSITIONAL_ONLY]]
    if parts:
        parts.append("/")
    parts += map(_declaration, kinds[_POSITIONAL] + kinds[_VAR_POSITIONAL])
    if kinds[_KEYWORD_ONLY] and not kinds[_VAR_POSITIONAL]:
        parts.append("*")
    parts += map(_declaration, kinds[_KEYWORD_ONLY] + kinds[_VAR_KEYWORD])
    return ", ".join(parts)


def _declaration(parameter: inspect.Parameter) -> str:
    """Return one parameter as it stands in a parameter list."""
    default = "" if parameter.default is _EMPTY else "=None"
    return _DECLARED.get(parameter.kind, "{0}").format(parameter.name) + default


@lru_cache(maxsize=1024)
def _factory(source: str) -> CodeType:
    """Return the compiled factory that ``source`` defines; equal shapes share the result."""
    text = source.encode("utf-8", "surrogatepass")
    filename = f"<isp_perf wrapper {crc32(text):08x}{len(text):04x}>"
    # No modification time: linecache then never tries to find the text on disk again.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = compile(source, filename, "exec")
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))


def _take_defaults(wrapper: FunctionType, declared: Iterable[inspect.Parameter]) -> None:
    """Give the wrapper the very objects that are the function's defaults."""
    positional: list[object] = []
    named: dict[str, object] = {}
    for parameter in declared:
        if parameter.default is _EMPTY:
            continue
        if parameter.kind is _KEYWORD_ONLY:
            named[parameter.name] = parameter.default
        else:
            positional.append(parameter.default)
    wrapper.__defaults__ = tuple(positional) or None
    wrapper.__kwdefaults__ = named or None


def _take_identity(wrapper: FunctionType, function: Callable[..., Any]) -> None:
    """Give the wrapper the names and the metadata of the function."""
    name = str(getattr(function, "__name__", type(function).__name__))
    wrapper.__name__ = name
    wrapper.__qualname__ = str(getattr(function, "__qualname__", name))
    wrapper.__module__ = type(function).__module__
    update_wrapper(wrapper, function)
    wrapper.__code__ = wrapper.__code__.replace(co_name=name, co_qualname=wrapper.__qualname__)
