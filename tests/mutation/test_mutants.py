"""The mutation tool itself: which faults it makes."""

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def faults(source):
    return {mutant.after for mutant in tool.mutants(source)}


def test_operators_values_and_branches_get_faults():
    """Comparisons, arithmetic, constants, conditions, results and statements are each changed once at a time."""
    assert faults("def f(a):\n    if a < 1:\n        return a + 2\n") == {
        "if a <= 1:",
        "if a < 2:",
        "if not a < 1:",
        "return a - 2",
        "return a + 3",
        "return None",
    }
    assert faults("x = not y and min(z)") == {
        "x = not y or min(z)",
        "x = not not y and min(z)",
        "x = not y and max(z)",
        "pass",
    }
    assert faults("x -= 1") == {"x += 1", "x -= 2", "pass"}


def test_declarations_get_no_faults():
    """Docstrings, imports, annotations, exports, slots and type aliases are left alone."""
    source = '"""D."""\nimport a\n__all__ = ["b"]\nS = Literal["c"]\nclass C:\n    __slots__ = ("d",)\n    e: int\n'
    assert faults(source) == set()


def test_every_mutant_is_the_module_with_one_fault():
    """A mutant is a whole module that compiles, and making it leaves no trace in the next one."""
    source = "x = 1\ny = 2\n"
    made = [mutant.source for mutant in tool.mutants(source)]
    assert made == ["x = 2\ny = 2", "pass\ny = 2", "x = 1\ny = 3", "x = 1\npass"]
