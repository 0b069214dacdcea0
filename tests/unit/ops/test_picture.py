"""The picture of a service: rates of a window, quantiles of what happened in it, totals and savings."""

import os
import time

import pytest

from isp_perf.metrics import MetricRegistry, _from_cache, _from_queries
from isp_perf.metrics._http import HttpMetrics
from isp_perf.metrics._snapshot import Column, Snapshot
from isp_perf.ops._history import Checkpoints, History, Today, Traces, started_at
from isp_perf.ops._picture import STREAM_ROUTE, picture, savings
from isp_perf.ops._sections import draw

EMPTY = Snapshot({})


def column(module, name, series):
    spec = next(value for value in vars(module).values() if getattr(value, "name", None) == name)
    return Column(spec, sorted(series), [series[key] for key in sorted(series)])


def cache_snapshot(hits, misses, key="user:{id}", seconds=1.0):
    series = {
        "isp_cache_gets_total": {("default", "l1", "hit"): hits, ("default", "none", "miss"): misses},
        "isp_cache_function_gets_total": {("default", key, "hit"): hits, ("default", key, "miss"): misses},
        "isp_cache_function_loads_total": {("default", key): misses},
        "isp_cache_function_load_seconds_total": {("default", key): seconds},
        "isp_cache_misses_total": {("default", "absent"): misses - 1, ("default", "expired"): 1},
        "isp_cache_double_size_hit_ratio": {("default",): 0.95},
    }
    return Snapshot({name: column(_from_cache, name, given) for name, given in series.items()}, 1_000_000_000)


def http_snapshots():
    """Two snapshots of one registry, ten requests and one failure apart."""
    registry = MetricRegistry()
    metrics = HttpMetrics(registry)

    def requests(count, status, seconds, route="/users/{id}"):
        cells = metrics.cells("GET", route, status)
        for _ in range(count):
            cells.requests.n += 1
            cells.duration.observe(seconds)

    requests(1000, 200, 5.0)
    before = registry.collect("worker")
    requests(9, 200, 0.010)
    requests(1, 503, 0.100)
    requests(3, 200, 9.0, STREAM_ROUTE)
    return before, registry.collect("worker")


def test_rates_and_quantiles_are_of_the_window():
    """What happened before the window counts in the totals only, and streams count nowhere."""
    before, now = http_snapshots()
    requests = picture(now, before, 5.0)["requests"]
    assert (requests["total"], requests["per_second"], requests["errors_per_second"]) == (1010, 2.0, 0.2)
    assert requests["error_ratio"] == 0.1
    assert requests["p50_seconds"] == pytest.approx(0.010, rel=0.0625)
    assert requests["p99_seconds"] == pytest.approx(0.100, rel=0.0625)
    [route] = picture(now, before, 5.0)["routes"]
    assert (route["method"], route["route"], route["requests"]) == ("GET", "/users/{id}", 1010)


def test_the_first_look_tells_no_rates():
    """With nothing to compare with, rates and quantiles are unknown, and unknown is not zero."""
    _, now = http_snapshots()
    requests = picture(now, now, 0.0)["requests"]
    assert [requests[name] for name in ("per_second", "error_ratio", "p99_seconds")] == [None, None, None]


def test_a_counter_that_began_anew_gives_no_negative_rate():
    """Totals smaller than before (a restarted group) are a rate of zero."""
    before, now = http_snapshots()
    assert picture(before, now, 5.0)["requests"]["per_second"] == 0.0


def test_nothing_used_is_a_picture_too():
    """A service that used no feature has every part of the picture, and every card."""
    empty = picture(EMPTY, EMPTY, 0.0)
    assert empty["caches"] == empty["hot_keys"] == empty["breakers"] == empty["routes"] == []
    draft = draw({**empty, "saved": Today(None).saved(EMPTY, 1e9), "own": {}}, Traces())
    assert "No request yet." in draft.cards["routes"]


def test_hot_keys_are_templates_by_what_they_saved():
    """A hot key is named by its template and stands with hits, mean load and the time it saved."""
    now = cache_snapshot(90, 10, seconds=2.0)
    [row] = picture(now, EMPTY, 1.0)["hot_keys"]
    assert (row["key"], row["hits"], row["misses"], row["hit_ratio"]) == ("user:{id}", 90, 10, 0.9)
    assert (row["load_seconds_mean"], row["saved_seconds"]) == (0.2, 18.0)
    assert savings(now)["load_seconds"] == 18.0


def test_a_cache_stands_with_its_reasons_and_its_outlook():
    """Misses are told by reason, and the estimates for another room where there are any."""
    [row] = picture(cache_snapshot(90, 10), EMPTY, 1.0)["caches"]
    assert row["misses_by"] == {"absent": 9, "expired": 1}
    assert (row["double_size_hit_ratio"], row["half_size_hit_ratio"]) == (0.95, None)


def test_the_loop_s_lag_and_the_statements_not_sent():
    """The process tells how late its event loop is; loads answered for several objects are statements not sent."""
    registry = MetricRegistry()
    HttpMetrics(registry).lag.observe(0.2)
    shown = picture(registry.collect("worker"), EMPTY, 5.0)
    assert shown["process"]["loop_lag_p99_seconds"] == pytest.approx(0.2, rel=0.0625)
    series = {"isp_queries_preloaded_total": {(): 40}, "isp_queries_batches_total": {(): 3}}
    now = Snapshot({name: column(_from_queries, name, given) for name, given in series.items()})
    assert savings(now)["statements"] == 37


def test_reads_without_a_function_save_time_too():
    """Hits and loads of get_or_set count with their own mean, beside those of cached functions."""
    now = cache_snapshot(90, 10, seconds=2.0)
    now.columns["isp_cache_gets_total"] = column(
        _from_cache, "isp_cache_gets_total", {("default", "l1", "hit"): 100, ("default", "none", "miss"): 12}
    )
    now.columns["isp_cache_loads_total"] = column(_from_cache, "isp_cache_loads_total", {("default", "ok"): 12})
    now.columns["isp_cache_load_seconds_total"] = column(
        _from_cache, "isp_cache_load_seconds_total", {("default",): 3.0}
    )
    assert savings(now)["load_seconds"] == pytest.approx(90 * 0.2 + 10 * 0.5)


def test_sites_of_queries_are_listed_with_their_line():
    """Lines that send one statement per object stand in the picture, most frequent first."""
    series = {("n_plus_one", "Conversa.mensagens", "main.py:1"): 2, ("write_loop", "Conversa", "main.py:9"): 5}
    name = "isp_queries_site_findings_total"
    now = Snapshot({name: column(_from_queries, name, series)})
    sites = picture(now, EMPTY, 1.0)["queries"]["sites"]
    assert [(site["site"], site["findings"]) for site in sites] == [("main.py:9", 5), ("main.py:1", 2)]


def test_the_window_is_about_ten_seconds():
    """The present is compared with ten seconds ago, or with the oldest there is; few snapshots are kept."""
    kept = Checkpoints()
    snapshots = [Snapshot({}, number) for number in range(200)]
    assert kept.before(0.0, snapshots[0]) == (0.0, snapshots[0])
    for number in range(1, 200):
        at, _ = kept.before(number * 0.25, snapshots[number])
        assert number * 0.25 - at <= 12.5
        assert at == 0.0 or number * 0.25 - at >= 9.5
        assert len(kept._kept) <= 8


def test_today_begins_at_midnight_or_with_the_service():
    """What was saved before midnight does not count; a service started today counts from its start."""
    noon = 1_700_000_000.0
    born = Today(noon - 3600)
    assert born.saved(cache_snapshot(90, 10), noon)["loads"] == 90
    old = Today(noon - 10 * 86_400)
    assert old.saved(cache_snapshot(90, 10), noon)["loads"] == 0
    assert old.saved(cache_snapshot(100, 10), noon + 60)["loads"] == 10
    tomorrow = old.saved(cache_snapshot(120, 10), noon + 86_400)
    assert (tomorrow["loads"], tomorrow["since"] > noon) == (0, True)
    unknown = Today(None)
    assert unknown.saved(cache_snapshot(5, 1), noon)["loads"] == 0
    assert "since " in unknown.saved(cache_snapshot(5, 1), noon)["since_text"]


def test_a_process_knows_when_it_started():
    """The start of this process lies in the past; of a process that does not exist nothing is told."""
    started = started_at(os.getpid())
    assert started is None or 0 <= time.time() - started < 86_400
    assert started_at(2**22 + 1) is None


def test_lines_hold_the_means_of_their_parts():
    """Of the samples of one part of a line the mean is kept, for minutes and for hours; unknown values add nothing."""
    history = History()
    before, now = http_snapshots()
    shown = picture(now, before, 5.0)
    for number in range(9):
        shown["requests"]["per_second"] = float(number)
        traces = history.add(number * 2.5, shown)
    minutes, hours = history._lines["rate"]
    assert [mean for _, mean, _ in minutes._points] == [float(number) for number in range(9)]
    assert [(mean, weight) for _, mean, weight in hours._points] == [(4.0, 9)]
    assert traces.lines["rate-0"].startswith("M")
    assert traces.lines["rate-1"] == ""
    assert traces.lines["hits-0"] == ""
    assert traces.spans == (60.0, 60.0)


def test_six_hours_are_remembered_in_few_points():
    """However long it runs, a line holds 360 points, which reach back over its span."""
    history = History()
    before, now = http_snapshots()
    shown = picture(now, before, 5.0)
    for number in range(8 * 60):
        traces = history.add(60.0 * number, shown)
    minutes, hours = history._lines["rate"]
    assert len(hours._points) == len(minutes._points) == 360
    assert hours._points[-1][0] - hours._points[0][0] == 21_600 - 60
    assert traces.lines["rate-1"].startswith("M")
    assert traces.spans == (900.0, 21_600.0)


def breaker_row(state, opened=0):
    return {"breaker": "whatsapp_api", "state": state, "opened": opened}


def test_a_breakers_states_are_a_time_line():
    """Each state is a stretch of the strip in its mark, at its time; the present one reaches the right edge."""
    history = History()
    shown = picture(EMPTY, EMPTY, 0.0)
    states = [(0.0, "closed", 0), (30.0, "open", 1), (45.0, "half_open", 1), (60.0, "half_open", 1)]
    for at, state, opened in states:
        traces = history.add(at, {**shown, "breakers": [breaker_row(state, opened)]})
    assert traces.strips["whatsapp_api"] == {"good": "M0 4H60", "bad": "M60 4H90", "warn": "M90 4H120"}


def test_an_opening_between_two_samples_is_not_lost():
    """A breaker that opened and closed while nobody sampled is marked as open for a moment."""
    history = History()
    shown = picture(EMPTY, EMPTY, 0.0)
    for at, opened in ((0.0, 3), (30.0, 4), (60.0, 4)):
        traces = history.add(at, {**shown, "breakers": [breaker_row("closed", opened)]})
    assert traces.strips["whatsapp_api"]["bad"] == "M60 4H63"
    assert history.add(70.0, shown).strips == {}
