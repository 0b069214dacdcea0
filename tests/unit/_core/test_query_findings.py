"""The pure part of detection: repeats, verdicts and what kind of statement a text is."""

import pytest

from isp_perf._core.query_findings import Entry, Finding, Repeats, require_budget, verb_of
from isp_perf.errors import ConfigurationError


@pytest.mark.parametrize(
    ("fingerprints", "verdicts"),
    [
        ([1, 2, 3], [None, None, "n_plus_one"]),
        ([1, 1, 1], [None, None, "repeated_read"]),
        ([1, 1, 1, 2], [None, None, "repeated_read", "n_plus_one"]),
        ([1, 2, 1], [None, None, "n_plus_one"]),
    ],
)
def test_reads_are_judged_at_the_third(fingerprints, verdicts):
    """Three reads with different parameters are N+1, with the same ones a repeated read."""
    repeats = Repeats()
    assert [repeats.add("read", number) for number in fingerprints] == verdicts


def test_writes_are_judged_at_the_fifth():
    """Five one-row writes are a loop, whatever their parameters."""
    repeats = Repeats()
    assert [repeats.add("write", 0) for _ in range(5)] == [None] * 4 + ["write_loop"]


def test_a_failed_statement_is_no_repetition():
    """What failed is taken back, so that retries never add up."""
    repeats = Repeats()
    for _ in range(5):
        assert repeats.add("read", 7) is None
        repeats.take_back(7)
    assert (repeats.total, repeats.hashes) == (0, {})
    repeats.add("read", 7)
    repeats.add("read", 7)
    repeats.take_back(7)
    assert (repeats.total, repeats.hashes) == (1, {7: 1})


def test_memory_is_bounded():
    """A million different parameters leave no more than 64 hashes."""
    repeats = Repeats()
    for number in range(1000):
        repeats.add("read", number)
    assert (repeats.total, len(repeats.hashes)) == (1000, 64)


def test_an_entry_settles_on_its_one_guilty_place():
    """After eight executions from one guilty place a text is only counted; from two places it is not."""
    entry = Entry("SELECT 1", "read")
    repeats = entry.at("here")
    repeats.kind = "n_plus_one"
    entry.count = 8
    entry.settle()
    assert (entry.settled, entry.quiet) == (repeats, True)
    other = Entry("SELECT 1", "read")
    other.count = 8
    other.at("here").kind = "n_plus_one"
    other.at("there")
    other.settle()
    assert (other.settled, other.quiet) == (None, False)


def test_a_part_of_a_batch_is_quiet_from_the_start():
    """A text whose executions are parts of something larger is never compared."""
    assert Entry("SELECT 1", "read", single=False).quiet


def test_a_finding_says_where_what_and_how_to_mend_it():
    """The text of a finding holds line, count, path, kind and fix."""
    entry = Entry("SELECT 1", "read")
    repeats = entry.at("here")
    assert list(entry.findings()) == []
    repeats.kind, repeats.path, repeats.fix, repeats.site = "n_plus_one", "A.b", "do it", ("f.py", 3, "f")
    repeats.total, repeats.nanoseconds = 4, 2_000_000_000
    (finding,) = entry.findings()
    assert finding == Finding("n_plus_one", "A.b", "f.py", 3, 4, 2.0, "do it", "f", "SELECT 1")
    assert str(finding) == "f.py:3: 4 x A.b (n_plus_one); do it"


def test_a_statement_record():
    """A line of the ledger is read as text, count, seconds and site."""
    entry = Entry("SELECT 1", "read")
    entry.count, entry.nanoseconds = 2, 500_000_000
    assert entry.statement().site == ""
    entry.site = ("f.py", 3, "f")
    assert (entry.statement().text, entry.statement().count, entry.statement().seconds) == ("SELECT 1", 2, 0.5)
    assert entry.statement().site == "f.py:3"


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("SELECT 1", "read"),
        ("  (select 1)", "read"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "read"),
        ("WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a", "write"),
        ("insert into a values (1)", "write"),
        ("UPDATE a SET b = 1", "write"),
        ("DELETE FROM a", "write"),
        ("SAVEPOINT x", "control"),
        ("COMMIT;", "control"),
        ("PRAGMA x", "other"),
        ("", "other"),
    ],
)
def test_the_verb_of_a_statement(text, verb):
    """The first word tells reads, writes and transaction control apart."""
    assert verb_of(text) == verb


@pytest.mark.parametrize("value", [-1, True, 1.5, "3", None])
def test_a_budget_is_a_whole_number(value):
    """Anything but a whole number from 0 on is refused, naming the setting."""
    require_budget("budget", 0)
    with pytest.raises(ConfigurationError, match=r"budget=.*whole number"):
        require_budget("budget", value)
