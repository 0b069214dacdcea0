"""No import cycles, and the rooms that everything stands on need nothing but Python."""

import pytest

from house.imports import clock_readings, cycles, edges, import_graph, third_parties
from house.sources import PACKAGE, Source, read_sources
from house.verdict import expect_none

BARE_FILES = ["__init__.py", "errors.py", "typing.py"]


def test_no_modules_import_one_another():
    """The package has no import cycle, imports inside functions and under TYPE_CHECKING included."""
    expect_none(cycles(edges(import_graph())))


@pytest.mark.parametrize(
    ("imports", "circle"),
    [
        ({"a": {"b"}, "b": {"a"}}, "a -> b -> a"),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, "b -> c -> b"),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": {"a"}}, "a -> b -> d -> a"),
    ],
)
def test_a_cycle_is_named_module_by_module(imports, circle):
    """A circle of imports is printed as the way that leads back to its start."""
    assert circle in cycles(imports)


def test_a_diamond_is_no_cycle():
    """Two ways down to one module are not a circle."""
    assert cycles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def test_the_core_errors_and_typing_need_no_third_party():
    """_core, errors, typing and the package itself import Python's library and this package, nothing else."""
    bare = [*read_sources(PACKAGE / "_core"), *(Source(PACKAGE / f, (PACKAGE / f).read_text()) for f in BARE_FILES)]
    expect_none(third_parties(bare))


def test_a_third_party_inside_a_function_is_found(tmp_path):
    """An import of somebody else's package is found, however deep it hides."""
    source = Source(tmp_path / "keys.py", "def digest():\n    from blake3 import blake3\n    return blake3\n")
    assert third_parties([source]) == [f"{tmp_path / 'keys.py'}:2: imports blake3"]


def test_the_core_reads_no_clock():
    """Pure modules never ask for the date: the moment is an argument."""
    expect_none(clock_readings(read_sources(PACKAGE / "_core")))


def test_a_clock_reading_is_found(tmp_path):
    """Asking datetime for the present moment is found, although its types may be imported."""
    source = Source(tmp_path / "keys.py", "from datetime import datetime\nstart = datetime.now()\n")
    assert clock_readings([source]) == [f"{tmp_path / 'keys.py'}:2: .now reads a clock"]
