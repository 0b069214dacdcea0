"""The error hierarchy: codes, messages, and what each error is an instance of."""

import copy
import importlib
import inspect
import pickle
import re
from pathlib import Path

import pytest

from isp_perf import errors
from isp_perf.errors import (
    BulkheadFullError,
    CircuitIsolatedError,
    CircuitOpenError,
    ConfigurationError,
    MaybeExecutedError,
    NotSentError,
    NPlusOneError,
    PerfError,
    PoolBusyError,
    ProbeLimitError,
    QueryBudgetError,
    RejectedError,
    RemoteError,
)

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
TREE = errors.__doc__ or ""
CLASSES = [getattr(errors, name) for name in errors.__all__]
SAMPLES = {
    ConfigurationError: ("ttl", -1, "seconds must be > 0", "write ttl=60"),
    RejectedError: ("whatsapp_api", 2.5),
    RemoteError: ("GET to cache:6379 timed out after 0.25 s", 1.0),
    QueryBudgetError: ("7 statements, 5 allowed", ("finding",)),
    NPlusOneError: ("main.py:12", ("finding",)),
    PerfError: ("something",),
}


def coded(cls: type[PerfError] = PerfError) -> set[type[PerfError]]:
    """Return the public error classes of every room that have a code of their own."""
    for module in ("isp_perf.redis._lock", "isp_perf.settings"):
        importlib.import_module(module)
    below = (found for child in cls.__subclasses__() for found in coded(child))
    return {cls, *below} if "code" in vars(cls) else set(below)


CODED = sorted((cls for cls in coded() if cls.__module__.startswith("isp_perf.")), key=lambda cls: cls.code)


def sample(cls: type[PerfError]) -> PerfError:
    """Return an error of the class, with the arguments that its nearest documented base takes."""
    return cls(*next(SAMPLES[base] for base in cls.__mro__ if base in SAMPLES))


def test_all_lists_every_error_class():
    """Every public class of the module is exported, and nothing else."""
    here = (value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__)
    assert set(errors.__all__) == {cls.__name__ for cls in here if not cls.__name__.startswith("_")}


@pytest.mark.parametrize("cls", [*CODED, *CLASSES])
def test_every_error_is_a_perf_error_with_a_code_of_its_own(cls):
    """One except clause catches all, and a code names one class only, whichever room it lives in."""
    assert issubclass(cls, PerfError)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert [other for other in CODED if other.code == cls.code] == [cls]


@pytest.mark.parametrize("cls", CODED)
def test_every_code_is_a_heading_of_the_page_that_names_the_class(cls):
    """The page on errors has a heading for every code, and its text names the class."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    section = next(text for text in sections if text.startswith(f"{cls.code}\n"))
    assert f"`{cls.__name__}`" in section


def test_the_page_lists_no_code_that_is_gone():
    """Every heading of the page on errors is the code of a class."""
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(headings) == [cls.code for cls in CODED]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_tree_in_the_docstring_shows_every_class_under_its_base(cls):
    """The tree on top of the module is the hierarchy as Python has it."""
    depth = {
        node[1]: node.start(1) - node.start()
        for node in re.finditer(r"^[ |]*(?:\+- )?(\w+Error)\b", TREE, re.MULTILINE)
    }
    parents = [base.__name__ for base in cls.__mro__[1:] if base in CLASSES]
    assert cls.__name__ in depth
    assert all(depth[parent] < depth[cls.__name__] for parent in parents)


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_pickling_and_copying(cls):
    """An error that crosses a process border, or is copied, keeps its class, message and attributes."""
    error = sample(cls)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_a_wrong_setting_names_setting_value_rule_and_fix():
    """The message of a configuration error is complete without a look at the code."""
    error = sample(ConfigurationError)
    assert str(error) == "ttl=-1: seconds must be > 0; write ttl=60"
    assert (error.setting, error.value, error.rule, error.fix) == SAMPLES[ConfigurationError]
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (RejectedError, "x rejected the call; retry after 2.5 s"),
        (CircuitOpenError, "x is open; retry after 2.5 s"),
        (CircuitIsolatedError, "x is isolated; retry after 2.5 s"),
        (ProbeLimitError, "x is half-open and all of its probes are out; retry after 2.5 s"),
        (BulkheadFullError, "x is full; retry after 2.5 s"),
        (PoolBusyError, "x is busy; retry after 2.5 s"),
    ],
)
def test_a_rejection_says_who_refused_and_until_when(cls, message):
    """Every rejection names what refused the call, why, and when to come back."""
    assert str(cls("x", 2.5)) == message
    assert str(cls("x")) == message.partition(";")[0]
    assert cls("x").retry_after is None


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, RejectedError)])
def test_a_rejection_keeps_the_class_of_the_failure_behind_it(cls):
    """The name of the failure's class travels with a rejection, through pickling too, and is not in its message."""
    error = cls("x", 2.5, "ConnectionError")
    assert [error.cause, pickle.loads(pickle.dumps(error)).cause] == ["ConnectionError"] * 2
    assert "ConnectionError" not in str(error)
    assert cls("x", 2.5).cause is None


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (CircuitIsolatedError, CircuitOpenError),
        (ProbeLimitError, CircuitOpenError),
        (PoolBusyError, TimeoutError),
        (NotSentError, RemoteError),
        (MaybeExecutedError, RemoteError),
    ],
)
def test_an_error_is_caught_by_what_it_is_a_case_of(cls, base):
    """Special cases are caught by those who know only the general one."""
    assert issubclass(cls, base)


def test_a_remote_error_keeps_its_wait_and_prints_its_message():
    """The message of a remote error is what the pool wrote, and its wait is an attribute."""
    error = NotSentError("GET to cache:6379: no connection", 0.5)
    assert str(error) == "GET to cache:6379: no connection"
    assert error.retry_after == 0.5


def test_findings_travel_with_the_errors_of_query_detection():
    """What detection found is on the error, and its message stays the text that names the line."""
    error = NPlusOneError("main.py:12: 50 statements", ("a", "b"))
    assert error.findings == ("a", "b")
    assert str(error) == "main.py:12: 50 statements"
