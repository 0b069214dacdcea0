"""Lines and bars are well-formed pictures within their box."""

import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from isp_perf.ops import _svg


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e12)), min_size=1, max_size=60))
def test_a_trace_stays_in_its_box(points):
    """Whatever the values, every point lies in the box and the last one at its right edge."""
    points = sorted(points)
    path = _svg.trace(points, span=900)
    corners = [tuple(map(float, step.split())) for step in path[1:].split("L")]
    assert all(0 <= x <= 120 and 0 <= y <= 60 for x, y in corners)
    assert corners[-1][0] == 120
    assert _svg.trace([], span=900) == ""


@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(["good", "bad", ""])), min_size=1, max_size=99))
def test_a_strip_stays_in_its_box(changes):
    """Whatever the states, stretches lie in the box, do not overlap, and are few enough for a small page."""
    changes = sorted(changes, key=lambda one: one[0])
    paths = _svg.strip(changes, span=900, marks=("good", "bad"))
    edges = [tuple(map(int, one.split(" 4H"))) for path in paths.values() for one in path.split("M")[1:]]
    assert all(0 <= left < right <= 120 for left, right in edges)
    assert all(right <= left for (_, right), (left, _) in pairwise(sorted(edges)))
    assert len(edges) <= 40


@given(st.text(max_size=30), st.lists(st.floats(0, 1e9), max_size=20))
def test_pictures_are_well_formed(name, values):
    """Any name and any values make XML that parses, also without a single point."""
    points = list(enumerate(values))
    name = name.encode("utf-8", "replace").decode()
    name = "".join(letter for letter in name if letter.isprintable())
    for picture in (
        _svg.lines({name: points, "other": []}, title=name, unit="/s"),
        _svg.bars([(name, value, str(value)) for value in values], title=name),
        _svg.sparkline("p-rate", _svg.trace(points, span=60), name),
        _svg.striped("p-br0", {"bad": "M0 4H120"}, name, marks=("good", "bad")),
    ):
        root = ET.fromstring(picture)
        assert root.attrib["role"] == "img"
        assert name in root.attrib["aria-label"]
