"""Merging the figures of workers: no order, no grouping and no way of publishing changes a total."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.metrics._segment import Encoder, Reading, decode, read_schema
from isp_perf.metrics._snapshot import Column, Merger, Snapshot, Spec, Steady, merge_snapshots, without

COUNTER = Spec("n_total", "counter", "N.", ("queue",))
HISTOGRAM = Spec("took_seconds", "histogram", "Took.", ("queue",), bounds=(1, 2))
GAUGES = {rule: Spec(f"g_{rule}", "gauge", "G.", ("queue",), rule) for rule in ("sum", "min", "max", "mean", "latest")}
QUEUES = st.sampled_from(["a", "b", "c", "d"])
COUNTS = st.integers(min_value=0, max_value=2**40)


def column(spec, series):
    keys = sorted(series)
    return Column(spec, [(key,) for key in keys], [series[key] for key in keys])


@st.composite
def snapshots(draw):
    """Draw one worker's snapshot with any of the series."""
    counts = column(COUNTER, draw(st.dictionaries(QUEUES, COUNTS)))
    cells = column(HISTOGRAM, draw(st.dictionaries(QUEUES, st.lists(COUNTS, min_size=4, max_size=4))))
    values = draw(st.dictionaries(QUEUES, st.integers(-100, 100).map(float) | st.just(math.nan)))
    columns = [counts, cells, *(column(spec, values) for spec in GAUGES.values())]
    return Snapshot({one.spec.name: one for one in columns}, draw(st.integers(0, 10**6)))


def totals(snapshot):
    """Return the figures, comparable: hidden gauges as None."""
    return {
        name: {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in column.by_key().items()
        }
        for name, column in snapshot.columns.items()
        if name not in {"g_mean", "g_latest"}
    }


@settings(deadline=None)
@given(st.lists(snapshots(), min_size=1, max_size=4), st.randoms())
def test_merging_has_no_order_and_no_grouping(parts, chance):
    """Counters, histograms and sum, min and max gauges are the same in any order and any grouping."""
    whole = totals(merge_snapshots(parts))
    shuffled = list(parts)
    chance.shuffle(shuffled)
    assert totals(merge_snapshots(shuffled)) == whole
    cut = chance.randrange(len(parts) + 1)
    halves = [merge_snapshots(half) for half in (parts[:cut], parts[cut:]) if half]
    assert totals(merge_snapshots(halves)) == whole


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), snapshots()), min_size=2, max_size=8))
def test_what_is_kept_of_the_last_time_changes_nothing(rounds):
    """Workers that publish again and again, some with equal figures, give what a first reading of all would give."""
    merge = Merger()
    workers = [(Steady(), Encoder()) for _ in range(3)]
    layouts, before, fresh = {}, {}, {}
    for index, new in rounds:
        steady, encoder = workers[index]
        written = encoder.encode(Snapshot(steady.columns(new.columns), new.time_ns))
        layout = layouts.setdefault(encoder.schema, read_schema(encoder.schema))
        read = decode(layout, written, time_ns=new.time_ns, before=before.get(index))
        before[index] = Reading("", 0, read, layout, written)
        fresh[index] = decode(read_schema(encoder.schema), written, time_ns=new.time_ns)
        parts = [reading.snapshot for reading in before.values()]
        kept, anew = merge(parts), merge_snapshots(list(fresh.values()))
        assert repr(kept.columns) == repr(anew.columns)


@settings(deadline=None)
@given(snapshots())
def test_publishing_changes_nothing(snapshot):
    """What is read back from the bytes of a snapshot is the snapshot, again and again."""
    encoder = Encoder()
    for _ in range(2):
        values = encoder.encode(snapshot)
        assert totals(decode(read_schema(encoder.schema), values)) == totals(snapshot)


@settings(deadline=None)
@given(snapshots(), snapshots())
def test_what_was_counted_before_a_fork_is_left_out(before, since):
    """A child that starts from a parent's figures and adds its own tells only its own."""
    together = merge_snapshots([Snapshot(before.columns), Snapshot(since.columns, 1)])
    own = without(together, before)
    for name in ("n_total", "took_seconds"):
        expected = since.columns[name].by_key()
        for key, value in own.columns[name].by_key().items():
            nothing = [0, 0, 0, 0] if name == "took_seconds" else 0
            assert value == expected.get(key, nothing)


@settings(deadline=None)
@given(st.lists(st.integers(-100, 100).map(float), min_size=1, max_size=4))
def test_each_rule_joins_gauges_its_way(values):
    """Sum, least, greatest, mean and latest, by the time of publication."""
    parts = [
        Snapshot({spec.name: column(spec, {"a": value}) for spec in GAUGES.values()}, moment)
        for moment, value in enumerate(values)
    ]
    merged = merge_snapshots(list(reversed(parts)))
    found = {rule: merged.get(spec.name).values[0] for rule, spec in GAUGES.items()}
    mean = math.fsum(values) / len(values)
    assert found == {"sum": sum(values), "min": min(values), "max": max(values), "mean": mean, "latest": values[-1]}
