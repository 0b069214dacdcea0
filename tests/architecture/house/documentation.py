"""Is every public name documented: meaning, parameters, unit, range and errors, as far as a program can tell.

Public is what a module without an underscore in its dotted name lists in ``__all__``, and the methods and properties
without an underscore that those classes define.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import isp_perf.errors

DURATION = re.compile(
    r"(?:.*_)?(?:ttl|timeout|duration|interval|delay)|stale_\w+|max_stale|retry_after|wait|probe_timeout"
)
UNIT = re.compile(r"\bseconds?\b|\bs\b|\bms\b|milliseconds|timedelta")
RANGE = re.compile(r"[<>]=?|\d|\bat (?:least|most)\b|positive|non-negative|between|\bany\b|no limit|unlimited")
SAY = {  # docs/glossary.md: one word per concept; what public names and parameters are not called, and what instead
    "backend": "remote level",
    "bust": "invalidate",
    "dogpile": "single-flight",
    "expiration": "ttl",
    "expire": "ttl",
    "factory": "loader",
    "fail_max": "failure_threshold",
    "getter": "loader",
    "grace": "stale_while_revalidate",
    "purge": "invalidate",
    "recovery_timeout": "break_duration",
    "stampede": "single-flight",
    "trip": "open",
}
CONSTRUCTORS = ("__init__", "__new__")

_ENTRY_END = r"(?=^\s*\*{{0,2}}\w+(?: \([^)]*\))?:|\n\s*\n|\Z)"
_ERRORS = frozenset(isp_perf.errors.__all__)


def public_modules(package: ModuleType) -> list[ModuleType]:
    """Import and return ``package`` and its modules whose dotted names hold no underscore at a part's start."""
    names = [package.__name__]
    if hasattr(package, "__path__"):
        names += [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names if not any(p.startswith("_") for p in name.split("."))]


def undocumented(modules: list[ModuleType]) -> list[str]:
    """Return what is missing in the documentation of every public name of ``modules``."""
    findings: dict[str, None] = {}
    for module in modules:
        if not hasattr(module, "__all__"):
            findings[f"{module.__name__}: has no __all__"] = None
        for name in getattr(module, "__all__", ()):
            findings |= dict.fromkeys(_faults_of_name(module, name))
    return list(findings)


def _faults_of_name(module: ModuleType, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if inspect.isclass(value):
        yield from class_faults(value)
    elif inspect.isroutine(value):
        yield from function_faults(value, f"{value.__module__}.{name}")
    elif not inspect.ismodule(value) and not _constant_is_documented(module, name):
        yield f"{module.__name__}.{name}: a constant without a docstring or '#:' comment at its assignment"


def class_faults(cls: type) -> Iterator[str]:
    """Yield what is missing in the documentation of a class, its fields and its own public methods."""
    title = f"{cls.__module__}.{cls.__qualname__}"
    own = _own_docstring(cls)
    fields = field_docstrings(cls)
    if not own:
        yield f"{title}: no docstring"
    text = "\n".join([own, cls.__init__.__doc__ or "", *fields.values(), *_base_docstrings(cls)])
    for name in _constructor_parameters(cls):
        yield from _parameter_faults(title, name, text)
    if dataclasses.is_dataclass(cls) and hasattr(cls, "__post_init__"):
        yield from _range_faults(cls, title, fields)
    for name, member in vars(cls).items():
        if not name.startswith("_"):
            yield from _member_faults(cls, name, member)


def _own_docstring(cls: type) -> str:
    """Return what somebody wrote: a dataclass without a docstring is given its signature as one."""
    text = cls.__doc__ or ""
    return "" if dataclasses.is_dataclass(cls) and text.startswith(f"{cls.__name__}(") else text


def _base_docstrings(cls: type) -> list[str]:
    return [base.__doc__ or "" for base in cls.__mro__[1:] if base.__module__.startswith("isp_perf")]


def _constructor_parameters(cls: type) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init and not field.name.startswith("_")]
    if not any(name in vars(cls) for name in CONSTRUCTORS) or getattr(cls, "_is_protocol", False):
        return []
    return _parameters(cls)


def _member_faults(cls: type, name: str, member: Any) -> Iterator[str]:
    title = f"{cls.__module__}.{cls.__qualname__}.{name}"
    yield from _word_faults(title, name)
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, property):
        if not (member.__doc__ or inspect.getdoc(getattr(cls, name))):
            yield f"{title}: no docstring"
    elif inspect.isfunction(member):
        yield from function_faults(member, title, owner=cls)


def function_faults(function: Callable[..., Any], title: str, *, owner: type | None = None) -> Iterator[str]:
    """Yield what is missing in the documentation of one function or method."""
    text = function.__doc__ or _inherited(owner, function.__name__)
    if not text.strip():
        yield f"{title}: no docstring"
        return
    context = f"{text}\n{owner.__doc__ or ''}" if owner else text
    for name in _parameters(function, method=owner is not None):
        yield from _parameter_faults(title, name, context)
    for error in sorted(raised(function) - set(re.findall(r"\w+", context))):
        yield f"{title}: raises {error} and does not say so"


def _inherited(owner: type | None, name: str) -> str:
    bases = owner.__mro__[1:] if owner else ()
    return next((doc for base in bases if (doc := getattr(vars(base).get(name), "__doc__", None))), "")


def _parameters(function: Callable[..., Any], *, method: bool = False) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return []
    named = [p.name for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    return [name for name in named if not name.startswith("_") and not (method and name in {"self", "cls"})]


def _word_faults(title: str, name: str) -> Iterator[str]:
    if name in SAY:
        yield f"{title}: say {SAY[name]} for {name}"


def _parameter_faults(title: str, name: str, text: str) -> Iterator[str]:
    yield from _word_faults(title, name)
    if not re.search(rf"\b{name}\b", text):
        yield f"{title}: parameter {name} is not mentioned"
    elif DURATION.fullmatch(name) and not UNIT.search(text):
        yield f"{title}: {name} is a duration without a unit"


def _range_faults(cls: type, title: str, documented: dict[str, str]) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        if field.init and re.search(r"\b(?:int|float)\b", str(field.type)) and not field.name.startswith("_"):
            text = documented.get(field.name) or entry(cls.__doc__ or "", field.name)
            if not RANGE.search(text):
                yield f"{title}: the range of {field.name} is not said"


def entry(docstring: str, name: str) -> str:
    """Return the part of a docstring that describes ``name``: its entry under ``Args:`` or ``Attributes:``."""
    found = re.search(rf"^\s*{name}(?: \([^)]*\))?:(.*?){_ENTRY_END.format()}", docstring, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def field_docstrings(cls: type) -> dict[str, str]:
    """Return the string literals, or ``#:`` comments, that follow or precede the annotated fields of a class."""
    try:
        lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    except (OSError, TypeError):
        return {}
    node = ast.parse("\n".join(lines)).body[0]
    return _documented_assignments(getattr(node, "body", []), lines)


def _documented_assignments(body: list[ast.stmt], lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        name = _assigned_name(statement)
        if name is None:
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[name] = str(following.value.value)
        elif text := _comment_at(lines, statement):
            found[name] = text
    return found


def _assigned_name(statement: ast.stmt) -> str | None:
    target = statement.target if isinstance(statement, ast.AnnAssign) else None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    return target.id if isinstance(target, ast.Name) else None


def _comment_at(lines: list[str], statement: ast.stmt) -> str:
    own = lines[(statement.end_lineno or statement.lineno) - 1].partition("#:")[2]
    above: list[str] = []
    number = statement.lineno - 2
    while number >= 0 and lines[number].strip().startswith("#:"):
        above.insert(0, lines[number].strip()[2:])
        number -= 1
    return " ".join([*above, own]).strip()


def _constant_is_documented(module: ModuleType, name: str) -> bool:
    """Look for the assignment in ``module``, or in the private modules below the package that defines it."""
    homes = [module.__name__]
    homes += [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}.")]
    for home in homes:
        lines = inspect.getsource(importlib.import_module(home)).splitlines()
        if name in _documented_assignments(ast.parse("\n".join(lines)).body, lines):
            return True
    return bool(type(getattr(module, name)).__module__.startswith("isp_perf") and module.__name__ == "isp_perf")


def raised(function: Callable[..., Any]) -> set[str]:
    """Return the errors of this package that the function's own body raises by name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return set()
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    names = (call.func if isinstance(call, ast.Call) else call for call in calls)
    return {name.id for name in names if isinstance(name, ast.Name)} & _ERRORS
