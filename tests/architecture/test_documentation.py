"""Every public name is documented: meaning, parameters, units, ranges and errors."""

import importlib
import sys

import pytest

import isp_perf
from house.documentation import entry, public_modules, undocumented
from house.verdict import expect_none

DOCUMENTED = '''
"""A room."""

from dataclasses import dataclass

from isp_perf.errors import ConfigurationError

__all__ = ["LIMIT", "NAMES", "Bare", "Policy", "Store", "load"]

LIMIT = 5
"""The greatest number of retries."""

NAMES = ("a", "b")  #: what may be loaded


@dataclass(frozen=True)
class Policy:
    """How long things last.

    Args:
        ttl: seconds (> 0) that an entry is fresh.
        size: entries held, at least 1.
    """

    ttl: float = 1.0
    size: int = 10

    def __post_init__(self):
        """Refuse what cannot be."""


class Bare:
    """Say."""


class Store:
    """Holds things named by ``name``."""

    def __init__(self, name):
        self.name = name

    @property
    def state(self):
        """What the store does now."""

    def take(self, key, *, timeout=None):
        """Take ``key`` out, waiting ``timeout`` seconds for it."""

    def _secret(self, undocumented):
        pass


def load(name, *args):
    """Load ``name``.

    Raises:
        ConfigurationError: nothing is called so.
    """
    raise ConfigurationError("name", name, "must exist", "give another")
'''


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Return a function that makes a module of the given text and lists its findings."""
    monkeypatch.syspath_prepend(tmp_path)

    def findings(text: str) -> list[str]:
        (tmp_path / "sampleroom.py").write_text(text)
        importlib.invalidate_caches()
        return undocumented([importlib.import_module("sampleroom")])

    yield findings
    sys.modules.pop("sampleroom", None)


def test_every_public_name_is_documented():
    """Every name that a public module exports is documented with its parameters, units, ranges and errors."""
    expect_none(undocumented([module for module in public_modules(isp_perf) if module is not isp_perf]))


def test_a_documented_room_has_no_findings(room):
    """What follows the rules passes, and private methods are nobody's business."""
    assert room(DOCUMENTED) == []


@pytest.mark.parametrize(
    ("said", "unsaid", "finding"),
    [
        ('"""Say."""', "pass", "sampleroom.Bare: no docstring"),
        ("named by ``name``", "", "sampleroom.Store: parameter name is not mentioned"),
        ('"""What the store does now."""', "pass", "sampleroom.Store.state: no docstring"),
        ("Take ``key`` out", "Take it out", "sampleroom.Store.take: parameter key is not mentioned"),
        ("``timeout`` seconds", "``timeout``", "sampleroom.Store.take: timeout is a duration without a unit"),
        ("seconds (> 0) that", "(> 0) how long", "sampleroom.Policy: ttl is a duration without a unit"),
        ("(> 0) that", "that", "sampleroom.Policy: the range of ttl is not said"),
        ("entries held, at least 1.", "entries held.", "sampleroom.Policy: the range of size is not said"),
        ("Load ``name``.", "Load it.", "sampleroom.load: parameter name is not mentioned"),
        (
            "ConfigurationError: nothing",
            "Nothing: nothing",
            "sampleroom.load: raises ConfigurationError and does not say so",
        ),
        (
            '"""The greatest number of retries."""',
            "",
            "sampleroom.LIMIT: a constant without a docstring or '#:' comment at its assignment",
        ),
        ('__all__ = ["LIMIT", "NAMES", "Bare", "Policy", "Store", "load"]', "", "sampleroom: has no __all__"),
    ],
)
def test_what_is_left_unsaid_is_found(room, said, unsaid, finding):
    """One missing sentence gives one finding that names it."""
    assert said in DOCUMENTED
    assert room(DOCUMENTED.replace(said, unsaid)) == [finding]


@pytest.mark.parametrize(
    ("glossary", "other", "finding"),
    [
        ("def load(name", "def load(name, backend", "sampleroom.load: say remote level for backend"),
        ("def take(self", "def purge(self", "sampleroom.Store.purge: say invalidate for purge"),
    ],
)
def test_a_word_that_the_glossary_does_not_use_is_found(room, glossary, other, finding):
    """Public names and parameters are called what the glossary calls them."""
    text = DOCUMENTED.replace(glossary, other).replace('"""Load ``name``.', '"""Load ``name`` by ``backend``.')
    assert room(text) == [finding]


def test_an_entry_ends_where_the_next_begins():
    """The words of one argument are not taken for those of another."""
    docstring = "S.\n\n    Args:\n        a: first\n            more.\n        b: 1 to 5.\n\n    Raises:\n        X: y"
    assert entry(docstring, "a").split() == ["first", "more."]
    assert entry(docstring, "b").split() == ["1", "to", "5."]
