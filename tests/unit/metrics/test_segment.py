"""A worker's file: written whole or not at all, read back equal, seen as dead as soon as its writer is."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.metrics import MetricRegistry
from isp_perf.metrics._segment import Encoder, SegmentReader, SegmentWriter, decode, is_alive, read_schema

EPOCH = "ab" * 16


def busy():
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.", ["queue"]).labels("a").inc(3)
    registry.counter("euros", "Euros.").inc(2.5)
    registry.counter("huge", "Huge.").inc(1 << 70)
    registry.gauge("depth", "Depth.", merge="max").set(-1.5)
    took = registry.histogram("took_seconds", "Took.", ["route"])
    took.labels("/a").observe(0.25, exemplar={"trace_id": "abc"})
    registry.histogram("size_bytes", "Size.", buckets=(100, 1000)).observe(150)
    return registry


@pytest.fixture
def path(tmp_path):
    return tmp_path / f"1-{EPOCH}.m"


def read(path, reader=None):
    fd = os.open(path, os.O_RDONLY)
    try:
        return (reader or SegmentReader()).read(fd)
    finally:
        os.close(fd)


def test_everything_reads_back(path):
    """Specs, keys, values, exemplars and the moment of reading survive the file."""
    snapshot = busy().collect()
    writer = SegmentWriter(path, EPOCH)
    writer.publish(snapshot, 12345)
    reading = read(path)
    writer.close()
    assert (reading.epoch, reading.started) == (EPOCH, 12345)
    assert reading.snapshot.time_ns == snapshot.time_ns
    assert reading.snapshot.columns == snapshot.columns
    assert reading.snapshot.exemplars == {"took_seconds": {("/a",): dict(snapshot.exemplars["took_seconds"]["/a",])}}


def test_new_series_replace_the_file_at_once(path):
    """A changed schema is a new file under the same name, and later values go into it."""
    registry = busy()
    writer = SegmentWriter(path, EPOCH)
    for round_ in range(5):
        registry.counter("jobs", "Jobs.", ["queue"]).labels(f"q{round_ // 2}").inc()
        writer.publish(registry.collect(), round_)
        assert read(path).snapshot.columns == registry.collect().columns
        assert not writer.missing()
    writer.close()


def test_a_writer_is_alive_until_it_lets_go(path):
    """The lock says whether the writer lives, whatever its file says."""
    writer = SegmentWriter(path, EPOCH)
    writer.publish(busy().collect(), 1)
    fd = os.open(path, os.O_RDONLY)
    assert is_alive(fd)
    writer.close()
    assert not is_alive(fd)
    os.close(fd)


def test_a_removed_file_is_noticed(path):
    """A writer whose file was cleaned away knows it."""
    writer = SegmentWriter(path, EPOCH)
    writer.publish(busy().collect(), 1)
    path.unlink()
    assert writer.missing()
    writer.close()


@pytest.mark.parametrize("content", [b"", b"short", b"ISPMTRC9" + b"\0" * 100])
def test_foreign_files_are_not_read(path, content):
    """A file of another version, or none at all, is no reading."""
    path.write_bytes(content)
    assert read(path) is None


def test_readers_see_whole_snapshots_while_the_writer_writes(path):
    """Two counters that always move together are never seen apart, however fast the writer is."""
    registry = MetricRegistry()
    many = [registry.counter("many", "Many.", ["n"]).labels(n) for n in range(200)]
    writer = SegmentWriter(path, EPOCH)
    writer.publish(registry.collect(), 0)
    stop = threading.Event()

    def write():
        moment = 0
        while not stop.is_set():
            moment += 1
            for one in many:
                one.n += 1
            writer.publish(registry.collect(), moment)

    thread = threading.Thread(target=write)
    thread.start()
    reader = SegmentReader()
    last = 0
    try:
        for _ in range(500):
            reading = read(path, reader)
            if reading is None:
                continue
            values = set(reading.snapshot.get("many_total").values)
            assert len(values) == 1
            assert values.pop() >= last
            last = reading.snapshot.get("many_total").values[0]
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert last > 0


def test_exemplars_that_do_not_fit_are_left_out(path):
    """More exemplars than there is room for cost some exemplars, nothing else."""
    registry = MetricRegistry()
    took = registry.histogram("took_seconds", "Took.", ["route"])
    for route in range(200):
        took.labels(route).observe(0.1, exemplar={"trace_id": "x" * 100})
    writer = SegmentWriter(path, EPOCH)
    writer.publish(registry.collect(), 1)
    reading = read(path)
    writer.close()
    assert 0 < len(reading.snapshot.exemplars["took_seconds"]) < 200
    assert reading.snapshot.columns == registry.collect().columns


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=2**80), min_size=1, max_size=5))
def test_any_count_survives(counts):
    """Counts of any size are written and read; within 64 bits they stay exact."""
    registry = MetricRegistry()
    for place, count in enumerate(counts):
        registry.counter("n", "N.", ["place"]).labels(place).n = count
    encoder = Encoder()
    values = encoder.encode(registry.collect())
    back = decode(read_schema(encoder.schema), values).get("n_total").values
    assert back == (counts if max(counts) < 2**63 else [float(count) for count in counts])
