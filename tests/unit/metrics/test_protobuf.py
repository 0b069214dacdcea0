"""The protobuf format: read back by a reader that knows only the wire format, native histograms included."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf._core.histogram import LARGEST, cell_of
from isp_perf.metrics import MetricRegistry
from isp_perf.metrics._buckets import NATIVE_SCHEMA, native_places
from isp_perf.metrics._formats import Format
from isp_perf.metrics._render import Renderer

PROTOBUF = Format("protobuf")
WIDTH = 2 ** (2**-NATIVE_SCHEMA)


def varint(data, place):
    """Return the number at ``place`` and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def fields(data):
    """Return the fields of a message, by number, each with all its values in order."""
    found, place = {}, 0
    while place < len(data):
        tag, place = varint(data, place)
        if tag & 7 == 0:
            value, place = varint(data, place)
        elif tag & 7 == 1:
            value, place = struct.unpack_from("<d", data, place)[0], place + 8
        else:
            assert tag & 7 == 2
            length, place = varint(data, place)
            value, place = data[place : place + length], place + length
        found.setdefault(tag >> 3, []).append(value)
    return found


def families(registry, chosen=PROTOBUF):
    """Return the families of a scrape by name."""
    data, place, found = Renderer().render(registry.collect(), chosen), 0, {}
    while place < len(data):
        length, place = varint(data, place)
        family = fields(data[place : place + length])
        found[family[1][0].decode()] = family
        place += length
    return found


def labels(metric):
    pairs = [fields(pair) for pair in metric.get(1, ())]
    return {pair[1][0].decode(): pair[2][0].decode() for pair in pairs}


def signed(value):
    return (value >> 1) ^ -(value & 1)


def native_buckets(histogram):
    """Return the counts of a histogram's native buckets by their index."""
    deltas, place, counts = histogram.get(13, [b""])[0], 0, []
    while place < len(deltas):
        value, place = varint(deltas, place)
        counts.append((counts[-1] if counts else 0) + signed(value))
    indices, end = [], 0
    for span in map(fields, histogram.get(12, ())):
        start = end + signed(span[1][0])
        end = start + span[2][0]
        indices += range(start, end)
    return dict(zip(indices, counts, strict=True))


def test_every_kind_reads_back():
    """Counters, gauges and histograms have their names, types, help texts, labels and values."""
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.", ["queue"]).labels('a "b"\n').inc(3)
    registry.gauge("depth", "Depth.").set(-1.5)
    registry.gauge("hidden", "Hidden.").set(math.nan)
    registry.histogram("size_bytes", "Size.", buckets=(100, 1000)).observe(150)
    found = families(registry)
    assert (found["jobs_total"][2], found["jobs_total"][3]) == ([b"Jobs."], [0])
    [job] = map(fields, found["jobs_total"][4])
    assert labels(job) == {"queue": 'a "b"\n'}
    assert fields(job[3][0])[1] == [3.0]
    assert found["depth"][3] == [1]
    assert fields(fields(found["depth"][4][0])[2][0])[1] == [-1.5]
    assert 4 not in found["hidden"]
    assert found["size_bytes"][3] == [4]
    size = fields(fields(found["size_bytes"][4][0])[7][0])
    assert (size[1], size[2]) == ([1], [150.0])
    buckets = [fields(bucket) for bucket in size[3]]
    assert [(bucket[2][0], bucket[1][0]) for bucket in buckets] == [(100.0, 0), (1000.0, 1), (math.inf, 1)]
    assert 5 not in size  # the user's own bounds stay as they are


def test_names_are_plain_text_where_utf8_is_known():
    """A name of another alphabet has no quotes if the reader takes UTF-8, and is escaped if it does not."""
    registry = MetricRegistry()
    registry.gauge("größe", "Any.").set(1)
    assert "größe" in families(registry, Format("protobuf", "1.0.0", "allow-utf-8"))
    assert "gr__e" in families(registry)


def test_exemplars_stand_on_the_bucket_that_saw_them():
    """The newest exemplar of a bucket has its labels, its value and its moment."""
    registry = MetricRegistry()
    registry.histogram("took_seconds", "Took.").observe(0.25, exemplar={"trace_id": "abc"})
    took = fields(fields(families(registry)["took_seconds"][4][0])[7][0])
    [(bound, exemplar)] = [(b[2][0], fields(b[3][0])) for b in map(fields, took[3]) if 3 in b]
    assert bound >= 0.25 > bound / 2.1
    assert labels(exemplar) == {"trace_id": "abc"}
    assert exemplar[2] == [0.25]
    assert fields(exemplar[3][0])[1][0] > 1e9


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, LARGEST)), max_size=30), st.booleans())
def test_a_native_bucket_holds_what_a_cell_holds(units, whole):
    """Every observation is in a native bucket at most a cell and a bucket away; zeros are zeros, no count is lost."""
    registry = MetricRegistry()
    took = registry.histogram("took", "Took.", whole=whole)
    for one in units:
        took.observe_units(one)
    [histogram] = [fields(fields(metric)[7][0]) for metric in families(registry)["took"][4]]
    buckets = native_buckets(histogram)
    assert signed(histogram[5][0]) == NATIVE_SCHEMA
    assert histogram[6][0] > 0  # by this a server tells a native histogram, even an empty one
    assert histogram[7] == [units.count(0)]
    assert histogram[1] == [len(units)] == [sum(buckets.values()) + units.count(0)]
    scale = 1 if whole else 1e9
    where = [(WIDTH ** (index - 1), WIDTH**index) for index in sorted(buckets) for _ in range(buckets[index])]
    for one, (low, high) in zip(sorted(unit for unit in units if unit), where, strict=True):
        assert low / 1.0626 <= one / scale <= high * 1.0626


@pytest.mark.parametrize("scale", [1, 1_000_000_000])
def test_no_two_cells_share_a_native_bucket(scale):
    """The native buckets are as many as the cells: nothing of the distribution is lost."""
    places = native_places(scale)
    assert len(set(places)) == len(places) == cell_of(LARGEST)
    assert list(places) == sorted(places)
