"""What is written: accepted by both official parsers, read back equal, chosen by Accept."""

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from isp_perf.metrics import MetricRegistry, collector
from isp_perf.metrics._formats import Format, negotiate
from isp_perf.metrics._render import Renderer
from isp_perf.metrics._text import number

OPENMETRICS = Format("openmetrics", "1.0.0", "allow-utf-8")
FORMATS = [Format(), Format(version="1.0.0", escaping="allow-utf-8"), OPENMETRICS]


def parsed(registry, chosen=OPENMETRICS):
    """Return the families of a rendered scrape, by name."""
    text = Renderer().render(registry.collect(), chosen).decode()
    parse = parse_openmetrics if chosen.syntax == "openmetrics" else parse_text
    return {family.name: family for family in parse(text)}


def encodable(text):
    """Return ``text`` with each lone surrogate replaced."""
    return "".join("�" if 0xD800 <= ord(rune) <= 0xDFFF else rune for rune in text)


def busy():
    """Return a registry with a series of every kind."""
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.", ["queue"]).labels("mail").inc(3)
    registry.counter("euros_total", "Euros.").inc(2.5)
    registry.gauge("depth", "Depth.").set(-1.5)
    took = registry.histogram("took_seconds", "Took.", ["route"])
    took.labels("/a").observe(0.25, exemplar={"trace_id": "abc"})
    registry.histogram("size_bytes", "Size.", buckets=(100, 1000)).observe(150)
    return registry


@pytest.mark.parametrize("chosen", FORMATS)
def test_every_kind_reads_back(chosen):
    """Counters, gauges and histograms read back with their values through the official parser."""
    families = parsed(busy(), chosen)
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["jobs_total", ("queue", "mail")] == 3
    assert samples["euros_total",] == 2.5
    assert samples["depth",] == -1.5
    assert samples["took_seconds_count", ("route", "/a")] == 1
    assert samples["took_seconds_sum", ("route", "/a")] == 0.25
    assert samples["size_bytes_bucket", ("le", "100.0")] == 0
    assert samples["size_bytes_bucket", ("le", "1000.0")] == 1
    assert samples["size_bytes_bucket", ("le", "+Inf")] == 1
    assert samples["size_bytes_sum",] == 150


def test_unused_metrics_appear_with_help_and_type():
    """A metric with labels but without series still stands in the scrape."""
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.", ["queue"])
    body = Renderer().render(registry.collect(), Format())
    assert b"# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n" in body


def test_exemplars_stand_on_the_bucket_that_saw_them():
    """OpenMetrics shows the newest exemplar on the bucket its value falls in; the text format has none."""
    registry = busy()
    buckets = [sample for sample in parsed(registry)["took_seconds"].samples if sample.exemplar]
    assert [(sample.exemplar.labels, sample.exemplar.value) for sample in buckets] == [({"trace_id": "abc"}, 0.25)]
    assert float(buckets[0].labels["le"]) >= 0.25 > float(buckets[0].labels["le"]) / 2.1
    assert b"trace_id" not in Renderer().render(registry.collect(), Format())


def test_bounds_are_true_edges():
    """A value equal to a shown bound is in that bucket, one unit more is not."""
    registry = MetricRegistry()
    took = registry.histogram("took_seconds", "Took.")
    took.observe_units((1 << 20) - 1)
    took.observe_units(1 << 20)
    counts = {s.labels["le"]: s.value for s in parsed(registry)["took_seconds"].samples if s.name.endswith("_bucket")}
    assert counts[repr(((1 << 20) - 1) / 1e9)] == 1
    assert counts[repr(((1 << 21) - 1) / 1e9)] == 2


def test_hidden_gauges_are_left_out():
    """A gauge of NaN has no sample, an infinite one is written as the formats want it."""
    registry = MetricRegistry()
    registry.gauge("hidden", "Hidden.").set(math.nan)
    registry.gauge("endless", "Endless.").set(math.inf)
    families = parsed(registry)
    assert families["hidden"].samples == []
    assert families["endless"].samples[0].value == math.inf


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(FORMATS))
def test_any_label_text_reads_back(one, two, chosen):
    """Any label text, lone surrogates included, survives writing and parsing up to the replacement character."""
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.", ["a", "b"]).labels(one, two).inc()
    [sample] = parsed(registry, chosen)["jobs"].samples
    assert sample.labels == {"a": encodable(one), "b": encodable(two)}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12))
def test_utf8_names_read_back(name):
    """Metric names of any alphabet survive writing and parsing where the reader asks for UTF-8."""
    registry = MetricRegistry()
    registry.gauge(name, "Any.").set(1)
    assert name in parsed(registry)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", Format()),
        ("*/*", Format()),
        ("text/html", Format()),
        ("text/plain", Format()),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Format(version="1.0.0", escaping="allow-utf-8")),
        ("application/openmetrics-text", Format("openmetrics", "1.0.0")),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4;q=0.9", Format()),
        ("application/openmetrics-text;version=9.0.0", Format()),
        ("application/openmetrics-text;q=nonsense", Format()),
        ("text/plain;version=1.0.0;escaping=martian", Format(version="1.0.0")),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format()),
        ("application/vnd.google.protobuf", Format()),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.2",
            Format("protobuf"),
        ),
        (
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
                "escaping=allow-utf-8;q=0.7,application/openmetrics-text;version=1.0.0;q=0.6"
            ),
            Format("protobuf", "1.0.0", "allow-utf-8"),
        ),
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            OPENMETRICS,
        ),
    ],
)
def test_the_format_follows_accept(accept, chosen):
    """The highest q wins; what nobody here speaks falls back to the text format every reader takes."""
    assert negotiate(accept) == chosen


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_accept_header_is_answered(accept):
    """No Accept header raises."""
    assert negotiate(accept).content_type


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (2.5, "2.5"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")]
)
def test_numbers_are_written_as_the_formats_want_them(value, text):
    """Whole numbers have no point, infinities and NaN have their names."""
    assert number(value) == text


def test_protobuf_is_not_offered_where_it_cannot_be_had():
    """Without protobuf the next best format is chosen."""
    accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.2"
    assert negotiate(accept, protobuf=False) == Format()


def test_what_has_changed_is_written_anew():
    """A renderer that has written a family before writes each changed value, and only as it is now."""
    registry, renderer = busy(), Renderer()
    jobs = registry.counter("jobs", "Jobs.", ["queue"])
    for chosen in FORMATS:
        for _ in range(3):
            jobs.labels("mail").n += 1
            registry.histogram("took_seconds", "Took.", ["route"]).labels("/a").observe(0.5)
            assert renderer.render(registry.collect(), chosen) == Renderer().render(registry.collect(), chosen)


def test_names_filter_families():
    """Only the families asked for by family or sample name are written."""
    text = Renderer().render(busy().collect(), Format(), frozenset({"took_seconds_bucket", "jobs_total"})).decode()
    assert {family.name for family in parse_text(text)} == {"jobs", "took_seconds"}


def test_the_collector_says_what_the_text_says():
    """prometheus-client, given the collector, writes the same samples as our own renderer."""
    registry = busy()
    target = CollectorRegistry()
    collector(target, source=registry)
    theirs = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(generate_latest(target).decode())
        for sample in family.samples
    }
    ours = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parsed(registry, Format()).values()
        for sample in family.samples
    }
    assert theirs == ours


def test_the_collector_hands_on_exemplars():
    """Exemplars reach prometheus-client's own exposition."""
    [family] = [family for family in collector(source=busy()).collect() if family.name == "took_seconds"]
    assert [s.exemplar.labels for s in family.samples if s.exemplar] == [{"trace_id": "abc"}]


def test_a_scrape_while_series_appear():
    """Series made during scrapes never break one, and all are there at the end."""
    registry = MetricRegistry(limit=10_000)
    jobs = registry.counter("jobs", "Jobs.", ["queue"])
    renderer = Renderer()

    def work():
        for queue in range(3000):
            jobs.labels(queue).n += 1

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        renderer.render(registry.collect(), Format())
    thread.join()
    assert sum(registry.local().get("jobs_total").values) == 3000
