"""Why entries left, remembered for a while."""

from isp_perf._core.departures import ABSENT, EXPIRED, INVALIDATED, Departures


def test_the_last_reason_is_remembered():
    """A later reason takes the place of an earlier one, and what was forgotten is absent."""
    departures = Departures(10)
    departures.note(1, EXPIRED)
    departures.note(1, INVALIDATED)
    departures.note_all([2, 3], EXPIRED)
    assert [departures.last(mark) for mark in (1, 2, 4)] == [INVALIDATED, EXPIRED, ABSENT]
    departures.forget(2)
    assert departures.last(2) == ABSENT


def test_memory_is_bounded_and_the_latest_stay():
    """No more than two generations are kept, and the last ``size`` marks always are."""
    departures = Departures(100)
    for mark in range(10_000):
        departures.note(mark, EXPIRED)
        assert len(departures) <= 200
    assert all(departures.last(mark) == EXPIRED for mark in range(9_900, 10_000))
    assert departures.last(0) == ABSENT
