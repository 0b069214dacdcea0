"""The page: well-formed, small whatever it shows, nothing but itself to load, and nothing of others that runs."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._history import FIGURES, MARKS, Today, Traces
from isp_perf.ops._page import asset, html_page, page_headers
from isp_perf.ops._picture import picture
from isp_perf.ops._sections import draw

VOID = {"meta", "link", "input", "br"}
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=200)
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{}&#x27;"


class Reader(HTMLParser):
    """Checks that tags nest, and keeps what a browser would act on."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.ids = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))


def service(text="x", rows=3):
    """Return a picture in which every text of others is ``text``, with ``rows`` rows everywhere."""
    shown = picture(Snapshot({}), Snapshot({}), 0.0)
    times = range(rows)
    shown["routes"] = [
        {
            "method": text,
            "route": f"{number}{text}",
            "requests": 10**9,
            "per_second": 12345.6,
            "error_ratio": 0.5,
            "p50_seconds": 0.1,
            "p99_seconds": 1.0,
        }
        for number in times
    ]
    shown["caches"] = [
        {
            "cache": text,
            "hits": 1,
            "misses": 1,
            "hit_ratio": 0.5,
            "l1_hits": 1,
            "l2_hits": 0,
            "reads_per_second": 1.0,
            "recent_hit_ratio": 0.5,
            "entries": 10**6,
            "misses_by": {text: 3},
            "double_size_hit_ratio": 0.75,
        }
        for _ in times
    ]
    shown["hot_keys"] = [
        {"cache": "c", "key": text, "hits": 1, "hit_ratio": 0.5, "load_seconds_mean": 0.1, "saved_seconds": 0.1}
        for _ in times
    ]
    shown["breakers"] = [
        {
            "breaker": text,
            "state": "half_open",
            "failure_count": 1,
            "success_count": 2,
            "rejected": 3,
            "retry_after_ms": 1000,
            "slow_calls": 4,
            "opened": 2,
            "opened_at": 5.0,
        }
        for _ in times
    ]
    shown["queries"]["sites"] = [{"kind": "n_plus_one", "path": text, "site": text, "findings": 1} for _ in times]
    shown["workers"] = [{"worker": text, "age_seconds": 0.1} for _ in times]
    shown["compression"]["by_encoding"] = {f"{n}{text}": {"requests": 1, "bytes_saved": 1} for n in times}
    own = {f"{n}{text}": text for n in times} | {"total_conversations": 1500, "nested": {"left": "out"}, "yes": True}
    return {**shown, "saved": Today(None).saved(Snapshot({}), 1e9), "own": own}


def drawn(path="M0 0"):
    """Traces with a path for every line and strip."""
    lines = {f"{name}-{number}": path for name in FIGURES for number in range(2)}
    return Traces(
        lines, {"x": {"good": "M0 4H60", "bad": "M60 4H120"}, "&" * 200: dict.fromkeys(MARKS, 13 * "M100 4H103")}
    )


def rendered(shown, traces=None):
    return html_page(draw(shown, traces or Traces()).cards, ident="token.1", one_worker=False)


def test_the_page_is_well_formed_and_asks_for_nothing():
    """Tags nest, ids are unique, and no element names anything outside the page."""
    page = Reader(rendered(service("x"), drawn()).decode())
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "base", "form", "img"}
        assert attributes.get("href", "data:,") == "data:,"
        assert "src" not in attributes
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_the_policy_allows_the_one_script_and_the_one_style():
    """The hashes in the content security policy are those of the inline script and style, and nothing else may run."""
    page = Reader(rendered(service()).decode())
    policy = dict(page_headers())[b"content-security-policy"].decode()
    for tag, source in (("script", "script-src"), ("style", "style-src")):
        [text] = [data for within, data in page.text if within == tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_without_javascript_the_figures_are_there():
    """The first answer holds every figure as text and refreshes itself where no script runs."""
    page = Reader(rendered(service("/users")).decode())
    text = " ".join(data for within, data in page.text if within not in {"script", "style"})
    assert "1,500" in text
    assert "half-open" in text
    assert "12,346/s" in text
    refresh = [attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "refresh"]
    assert refresh == [{"http-equiv": "refresh", "content": "5"}]
    assert re.search(r"<noscript><meta http-equiv=\"refresh\"", rendered(service()).decode())


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT)
def test_no_label_can_become_markup(text):
    """Whatever a route, key, breaker or file is called, the page has the same elements as with a harmless name."""
    harmless = Reader(rendered(service("x")).decode())
    page = Reader(rendered(service(text)).decode())
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]


def test_an_attack_stays_text():
    """Markup in every label is shown as text, in the page and in the cards of the stream."""
    draft = draw(service(ATTACK), Traces())
    page = rendered(service(ATTACK)).decode()
    assert "<img" not in page
    assert page.count("<script>") == 1
    assert not any("<script" in html or "<img" in html for html in draft.cards.values())


def test_the_page_is_small_whatever_it_shows():
    """A thousand rows of long names that need escaping everywhere, with full lines, are still at most 40 kB."""
    line = "M" + "L".join(f"{number} 23" for number in range(0, 121, 2))
    assert len(rendered(service("&" * 200, 1000), drawn(line))) <= 40_000
    assert len(rendered(service("/a/plain/route", 10))) <= 25_000


def test_the_same_figures_have_the_same_shape():
    """Figures that change leave the shape of every card alone; another row changes the shape of its card only."""
    first, second = draw(service(rows=3), Traces()), draw(service(rows=3) | {"at": 5}, Traces())
    assert first.shapes == second.shapes
    other = service(rows=3)
    other["routes"] = other["routes"][:2]
    changed = draw(other, Traces())
    assert {name for name in changed.shapes if changed.shapes[name] != first.shapes[name]} == {"routes"}


def test_a_breakers_time_line_is_drawn_in_its_row():
    """The row of a breaker holds a picture of its states, by mark, and how often it opened."""
    page = rendered(service("x"), drawn()).decode()
    assert '<path id="p-br0-bad" d="M60 4H120"/>' in page
    assert '<path id="p-br0-warn" d=""/>' in page
    assert '<td id="br0-2">2</td>' in page


@pytest.mark.parametrize(("seconds", "text"), [(60, ""), (900, "15 min"), (7_100, "119 min"), (21_600, "6 h")])
def test_the_page_says_how_far_its_lines_go_back(seconds, text):
    """Under the lines stands what they span, in minutes, from two hours on in hours; two alike are one."""
    said = draw(service(), Traces(spans=(60.0, seconds))).cells["k-spans"]
    assert said == f"Lines: the last 1 min{f'; below: the last {text}' if text else ''}."


def test_every_figure_of_the_stream_has_its_element():
    """Each id that the stream may send exists in the page, as does each card."""
    draft = draw(service(), drawn())
    page = Reader(rendered(service(), drawn()).decode())
    assert set(draft.cells) | set(draft.cards) | {f"p-{name}" for name in draft.paths} <= set(page.ids)
    for ident in re.findall(r'at\("([a-z]+)"\)', asset("page.js")):
        assert ident in page.ids
