"""Names and labels: accepted as in Prometheus 3, written as prometheus-client writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.exposition import escape_label_name, escape_metric_name

from isp_perf.errors import ConfigurationError
from isp_perf.metrics._names import SCHEMES, clean, escape_name, label_text, valid_labels, valid_name

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@pytest.mark.parametrize("name", ["", "a\ud800", None, 3, b"bytes"])
def test_bad_metric_names_are_refused(name):
    """A name that is empty, no text, or not encodable is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="metric name"):
        valid_name(name)


@pytest.mark.parametrize("labels", ["text", ("",), ("__x",), ("a", "a"), ("\udfff",), (1,)])
def test_bad_label_names_are_refused(labels):
    """Label names that are one string, empty, reserved, repeated or not encodable are a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="label"):
        valid_labels(labels)


def test_le_is_reserved_on_histograms():
    """A histogram's own label cannot be taken."""
    with pytest.raises(ConfigurationError, match="le"):
        valid_labels(("a", "le"), reserved=("le",))


@settings(deadline=None)
@given(NAMES, st.sampled_from(SCHEMES))
def test_names_are_escaped_as_prometheus_client_does(name, scheme):
    """Every scheme writes every metric name exactly as prometheus-client writes it."""
    assert escape_name(name, scheme) == escape_metric_name(name, scheme)


@settings(deadline=None)
@given(NAMES.filter(lambda name: not name.startswith("__")), st.sampled_from(SCHEMES))
def test_label_names_are_escaped_as_prometheus_client_does(name, scheme):
    """Every scheme writes every label name exactly as prometheus-client writes it."""
    assert escape_name(name, scheme, label=True) == escape_label_name(name, scheme)


def test_lone_surrogates_become_the_replacement_character():
    """A label value that no encoding can carry is made encodable."""
    assert clean("a\ud800b\udfff") == "a�b�"
    assert clean(12) == "12"
    assert clean("ação") == "ação"


def test_label_text_is_sorted_and_escaped():
    """Pairs stand in order of their names; quotes, backslashes and newlines are escaped."""
    assert label_text(("b", "a"), ('"\\\n', "x")) == 'a="x",b="\\"\\\\\\n"'
