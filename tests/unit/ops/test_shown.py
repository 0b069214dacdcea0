"""Figures in text: three digits, the unit that suits, and nothing that could be markup."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isp_perf.ops import _shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 s"),
        (-1, "0 s"),
        (37e-9, "37.0 ns"),
        (1.5e-6, "1.50 \N{MICRO SIGN}s"),
        (0.0123, "12.3 ms"),
        (2, "2.00 s"),
        (119.9, "120 s"),
        (600, "10.0 min"),
        (7200, "2.00 h"),
        (1e6, "11.6 d"),
    ],
)
def test_durations(seconds, text):
    """Each duration has the unit in which it is a handy number."""
    assert _shown.duration(seconds) == text


def test_rates_shares_sizes_and_counts():
    """Nothing known is a dash; a share is 100 % only if it is all; sizes go by thousands."""
    assert [_shown.rate(value) for value in (None, 0, 0.123, 1234)] == ["\N{EN DASH}", "0/s", "0.12/s", "1,234/s"]
    assert [_shown.percent(value) for value in (None, 0, 1, 0.99999, 0.00001, 0.893)] == [
        "\N{EN DASH}",
        "0 %",
        "100 %",
        "99.9 %",
        "0.1 %",
        "89.3 %",
    ]
    assert [_shown.size(value) for value in (None, 999, 45_000_000, 2e15)] == [
        "\N{EN DASH}",
        "999 B",
        "45.0 MB",
        "2,000 TB",
    ]
    assert [_shown.count(value) for value in (None, 1250, 12_345_678)] == ["\N{EN DASH}", "1,250", "12.3 M"]
    assert [_shown.number(value) for value in (None, 3.14159)] == ["\N{EN DASH}", "3.14"]


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=100))
def test_text_of_others_is_only_text(text):
    """Any label, lone surrogates and control characters included, comes out as one isolated piece of plain text."""
    html = _shown.safe(text)
    html.encode()
    seen = _Seen()
    seen.feed(html)
    seen.close()
    assert seen.tags == [("bdi", [])]
    assert seen.text == _shown.plain(text)
    assert len(seen.text) <= 60
    assert not any(ord(letter) < 32 for letter in seen.text)
