import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isp_perf.errors import ConfigurationError
from isp_perf.testing import History, ManualClock, ReadRecord, Verdict, WriteRecord, check

pytest_plugins = ["pytester"]

WRITES = [
    WriteRecord("w", "k", "v1", 1.0, 1.1, 1.2, 1.2),
    WriteRecord("w", "k", "v2", 2.0, 2.1, 2.2, 2.2),
    WriteRecord("w", "k", "v3", 3.0, 3.1, None, 3.2),
    WriteRecord("w", "j", "other", 1.0, 1.1, 1.2, 1.2),
]


def history(*reads, writes=WRITES, initial=None):
    """A history of reads, each (session, value, start) of ``k`` and a tenth of a second long."""
    made = History({"k": "v0", "j": "j0"} if initial is None else initial)
    made.add([(session, "k", value, start, start + 0.1, "") for session, value, start in reads], writes)
    return made


def found(*reads, **options):
    writes = options.pop("writes", WRITES)
    return dict(check(history(*reads, writes=writes), **options).counts)


def test_a_true_history_is_believed():
    """What follows the writes, and what lags behind them within the bound, is no violation."""
    verdict = check(history(("a", "v0", 0.5), ("a", "v0", 1.25), ("a", "v1", 1.5), ("a", "v1", 2.25), ("a", "v3", 4.0)))
    assert verdict.ok
    assert (verdict.reads, verdict.writes, verdict.stale_reads) == (5, 4, 2)
    assert verdict.worst_stale == pytest.approx(0.05)
    assert "no promise broken" in str(verdict)


@pytest.mark.parametrize(
    ("promise", "reads", "options"),
    [
        ("stale", [("a", "v0", 1.5)], {}),
        ("stale", [("a", "v1", 2.25)], {"max_stale": 0}),
        ("stale", [("a", "v0", 2.5)], {"max_stale": 1}),
        ("backwards", [("a", "v2", 2.15), ("a", "v1", 2.28)], {}),
        ("own write", [("w", "v2", 3.3)], {}),
        ("invented", [("a", "never", 1.0)], {}),
        ("invented", [("a", "v3", 2.5)], {}),
        ("wrong key", [("a", "other", 1.5)], {}),
        ("wrong key", [("a", "j0", 0.5)], {}),
        ("diverged", [("a", "v2", 5.0)], {"converged_after": 4.0}),
    ],
)
def test_each_planted_violation_is_found(promise, reads, options):
    """Every promise is looked at: one read that breaks it is found, under its name, and nothing else."""
    assert found(*reads, **options) == {promise: 1}


def test_a_read_that_raised_is_found():
    """Readers get no error; one is a violation of its own."""
    made = history()
    with pytest.raises(OSError, match="refused"), made.session("a").reading("k"):
        raise OSError("refused")
    verdict = check(made)
    assert verdict.counts == {"raised": 1}
    assert "OSError" in str(verdict)


def test_nothing_is_found_where_it_is_not_looked_for():
    """Sessions that move between processes need neither monotonic reads nor their own writes."""
    assert found(("a", "v2", 2.15), ("a", "v1", 2.28), monotonic_reads=False) == {}
    assert found(("w", "v2", 3.3), read_your_writes=False) == {}


def test_concurrent_reads_of_a_session_may_end_in_any_order():
    """Going back is judged between reads that followed one another."""
    assert found(("a", "v2", 2.15), ("a", "v1", 2.2)) == {}


def test_a_write_of_unknown_outcome_may_be_read_or_not():
    """A writer that was killed before its commit was certain proves nothing; other values stay in their order."""
    unknown = WriteRecord("w", "k", "perhaps", 3.5, None, None, 3.6)
    reads = [("a", "perhaps", 3.7), ("a", "v3", 3.9), ("a", "v0", 4.0)]
    assert found(*reads, writes=[*WRITES, unknown], converged_after=3.95) == {"stale": 1, "backwards": 1}


def test_versions_outrank_commits():
    """Where the truth numbers its values, the order is the truth's, not that of the clocks."""
    writes = [
        WriteRecord("w", "k", "second", 1.0, 1.1, 1.2, 1.2, version=2),
        WriteRecord("x", "k", "first", 1.0, 1.15, 1.2, 1.2, version=1),
    ]
    assert found(("a", "second", 2.0), writes=writes, max_stale=0) == {}
    assert found(("a", "first", 2.0), writes=writes, max_stale=0) == {"stale": 1}


def test_sessions_record_on_one_clock():
    """What the contexts note is when things began, were committed, acknowledged and ended."""
    clock = ManualClock()
    made = History(clock=clock)
    session, other = made.session(), made.session()
    assert session.name != other.name
    with session.writing("k", [1]) as write:
        clock.advance(1)
        write.committed(7)
        clock.advance(1)
        write.acknowledged()
        clock.advance(1)
    with session.reading("k") as read:
        clock.advance(1)
        read.value = [1]
    start = made.writes[0].start
    assert made.writes == [WriteRecord(session.name, "k", [1], start, start + 1, start + 2, start + 3, 7)]
    assert made.reads == [ReadRecord(session.name, "k", [1], start + 3, start + 4)]
    assert check(made).ok


def test_a_failed_write_is_recorded_as_unknown():
    """An exception before the commit leaves a write whose outcome is not known."""
    made = History()
    with pytest.raises(LookupError), made.session().writing("k", 1):
        raise LookupError
    assert made.writes[0].commit is made.writes[0].acknowledged is None


def test_verdicts_add_up():
    """Counts of several histories are one verdict, and the worst is the worst of all."""
    one, other = check(history(("a", "v0", 1.5))), check(history(("a", "v0", 1.7), ("a", "never", 2)))
    both = one + other
    assert both.counts == {"stale": 2, "invented": 1}
    assert (both.reads, both.stale_reads, len(both.violations)) == (3, 2, 3)
    assert both.worst_stale == pytest.approx(0.5)
    assert str(both).count("\n") == 3
    assert dataclasses.replace(Verdict()).ok


def test_a_bound_below_zero_is_refused():
    """A bound is a number of seconds."""
    with pytest.raises(ConfigurationError):
        check(History(), max_stale=-1)


def naive(made, bound):
    """The promises, word by word, without any index."""
    values = [("v0", 0.0, 0.0, 0.0)] + [(w.value, w.commit, w.acknowledged, w.end) for w in made.writes]
    place = {value: number for number, (value, *_) in enumerate(values)}
    writer = {w.value: w.session for w in made.writes}
    counts = {"stale": 0, "backwards": 0, "own write": 0}
    for read in made.reads:
        newer = [v for v in values[1:] if place[v[0]] > place[read.value]]
        counts["stale"] += any(v[2] is not None and read.start > v[2] + bound for v in newer)
        counts["own write"] += any(writer[v[0]] == read.session and v[3] < read.start for v in newer)
        counts["backwards"] += any(
            other.session == read.session and other.end <= read.start and place[other.value] > place[read.value]
            for other in made.reads
        )
    return {promise: count for promise, count in counts.items() if count}


@given(st.data(), st.integers(0, 6), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_checker_agrees_with_the_promises_read_word_by_word(data, number, bound):
    """Whatever was written and read, both find the same violations."""
    made = History({"k": "v0"})
    moment = 0
    for index in range(number):
        start = moment
        moment += 3
        acknowledged = data.draw(st.sampled_from([None, start + 2, start + 5, start + 9]))
        end = max(start + 2, acknowledged or 0)
        session = data.draw(st.sampled_from("ab"))
        made.writes.append(WriteRecord(session, "k", f"v{index + 1}", start, start + 1, acknowledged, end))
    for _ in range(data.draw(st.integers(0, 12))):
        start = data.draw(st.integers(0, 30))
        value = data.draw(st.integers(0, min(number, start // 3 + 1)))
        end = start + data.draw(st.integers(0, 4))
        made.reads.append(ReadRecord(data.draw(st.sampled_from("ab")), "k", f"v{value}", start, end))
    counts = check(made, max_stale=bound).counts
    assert counts["invented"] == sum(r.end < w.start for r in made.reads for w in made.writes if w.value == r.value)
    if not counts["invented"]:
        assert dict(counts) == naive(made, bound)


def test_the_fixture_judges_at_the_end_of_the_test(pytester):
    """`cache_history` fails the test whose reads broke a promise; `max_stale` sets the bound."""
    pytester.makepyfile("""
        import pytest
        from isp_perf.testing import ReadRecord, WriteRecord

        def record(history):
            history.writes.append(WriteRecord("w", "k", 1, 1.0, 1.0, 1.0, 1.0))
            history.writes.append(WriteRecord("w", "k", 2, 2.0, 2.0, 2.0, 2.0))
            history.reads.append(ReadRecord("r", "k", 1, 2.5, 2.5))

        def test_stale(cache_history):
            record(cache_history)

        @pytest.mark.max_stale(1)
        def test_bounded(cache_history):
            record(cache_history)
    """)
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:randomly")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 stale*"])
