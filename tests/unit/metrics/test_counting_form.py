"""The form of counting that threads cannot interrupt, kept by every module of the metrics."""

import ast
from pathlib import Path

import pytest

import isp_perf.metrics

PLAIN = (ast.Constant, ast.Name)


def interrupted(source):
    """Return the lines that add something other than a constant or a local name to an attribute or a cell.

    A call, an attribute (perhaps a property) or an operator between the load and the store of such an addition lets
    another thread in, whose own addition is then lost.
    """
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AugAssign)
        and isinstance(node.op, ast.Add)
        and isinstance(node.target, (ast.Attribute, ast.Subscript))
        and not isinstance(node.value, PLAIN)
    ]


@pytest.mark.parametrize(
    "path", sorted(Path(isp_perf.metrics.__file__).parent.glob("*.py")), ids=lambda path: path.name
)
def test_counts_are_added_in_one_step(path):
    """Every addition to a shared number has a constant or a local name on its right side."""
    assert interrupted(path.read_text("utf-8")) == []


@pytest.mark.parametrize("wrong", ["a.n += f()", "a.n += b.n", "a.n += b + 1", "a.cells[i] += len(x)"])
def test_other_forms_are_found(wrong):
    """A call, an attribute and an expression on the right side are each found."""
    assert interrupted(f"x = 1\n{wrong}\n") == [2]


@pytest.mark.parametrize("right", ["a.n += 1", "a.n += n", "a.cells[i] += 1", "n += f()"])
def test_the_right_forms_pass(right):
    """A constant, a local name, and additions to local variables pass."""
    assert interrupted(right) == []
