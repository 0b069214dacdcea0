"""Mutants of a module: the same source with one small fault each, as a programmer might make it."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_DECLARATIONS = {"__all__", "__slots__"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        line: where it is.
        before: the statement as it was; only its first line if it has a body.
        after: the statement as it is now.
        source: the whole module with the fault.
    """

    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module. What is not executed (docstrings, annotations, declarations) has none."""
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and not _declares(node)]
    for statement in sorted(statements, key=lambda node: (node.lineno, node.col_offset)):
        before = _first_line(statement)
        for change in _changes(statement):
            undo = change()
            fault = _first_line(statement)
            yield Mutant(statement.lineno, before, fault, ast.unparse(tree))
            undo()
        yield from _removal(tree, statement, before)


def _declares(node: ast.stmt) -> bool:
    """Tell whether a statement only declares: imports, docstrings, ``__all__``, type aliases, classes."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Pass):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return True
    if not isinstance(node, ast.Assign):
        return False
    named = {target.id for target in node.targets if isinstance(target, ast.Name)}
    alias = isinstance(node.value, ast.Subscript) and ast.unparse(node.value).startswith("Literal[")
    return bool(named & _DECLARATIONS) or alias


def _first_line(statement: ast.stmt) -> str:
    shallow = copy.copy(statement)
    for name in ("body", "orelse", "finalbody", "handlers"):
        if isinstance(getattr(shallow, name, None), list):
            setattr(shallow, name, [ast.Pass()] if name == "body" else [])
    return ast.unparse(ast.fix_missing_locations(shallow)).splitlines()[0]


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the expressions of a statement itself, without annotations and the statements inside it."""
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_comment"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.stmt | ast.excepthandler):
                    stack.append(child)
        if node is not statement or isinstance(node, ast.AugAssign | ast.Return | ast.If | ast.While | ast.For):
            yield node


def _changes(statement: ast.stmt) -> Iterator:
    """Yield functions that each make one fault and return what undoes it."""
    for node in list(_expressions(statement)):
        yield from _operator_changes(node)
        yield from _value_changes(node)
        yield from _branch_changes(node)


def _set(node: ast.AST, name: str, value: object):
    def make():
        old = getattr(node, name)
        setattr(node, name, value)
        return lambda: setattr(node, name, old)

    return make


def _operator_changes(node: ast.AST) -> Iterator:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            if type(operator) in _SWAPS:
                swapped = [*node.ops[:index], _SWAPS[type(operator)](), *node.ops[index + 1 :]]
                yield _set(node, "ops", swapped)
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in _SWAPS:
        yield _set(node, "op", _SWAPS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield _set(node, "op", ast.UAdd())


def _value_changes(node: ast.AST) -> Iterator:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield _set(node, "value", not value)
        elif isinstance(value, int | float):
            yield _set(node, "value", value + 1)
        elif isinstance(value, str):
            yield _set(node, "value", value + "?")
        elif value is None:
            yield _set(node, "value", 0)
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        yield _set(node, "id", _NAMES[node.id])


def _branch_changes(node: ast.AST) -> Iterator:
    negated = {ast.If: "test", ast.While: "test", ast.IfExp: "test"}.get(type(node))
    if negated is not None:
        test = getattr(node, negated)
        yield _set(node, negated, ast.UnaryOp(ast.Not(), test))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _truth_of(node)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _set(node, "value", ast.Constant(None))


def _truth_of(node: ast.UnaryOp):
    """Take a ``not`` away: ``not x`` becomes ``not not x``."""
    return _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _removal(tree: ast.Module, statement: ast.stmt, before: str) -> Iterator[Mutant]:
    """Yield the module without a statement that only has an effect."""
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr | ast.Delete | ast.Raise):
        return
    for holder in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(holder, name, None)
            if isinstance(block, list) and statement in block:
                index = block.index(statement)
                block[index] = ast.copy_location(ast.Pass(), statement)
                yield Mutant(statement.lineno, before, "pass", ast.unparse(tree))
                block[index] = statement
                return
