"""The arithmetic of one half-open round, step by step; against a model it is in tests/property."""

from math import nextafter

import pytest

from isp_perf._core.breaker_probes import CLOSE, OPEN, UNDECIDED, Probes, smallest_reaching


def test_permits_are_numbered_from_one():
    """Tokens count up from 1; 0 says that there is none."""
    probes = Probes(3, 5.0)
    assert [probes.lend(0.0) for _ in range(5)] == [1, 2, 3, 0, 0]


def test_verdicts_are_told_apart():
    """The three verdicts are three values."""
    assert len({UNDECIDED, CLOSE, OPEN}) == 3


@pytest.mark.parametrize("failed", [True, False])
def test_answered_probes_use_their_permits_up(failed):
    """Whether a probe passed or failed, its permit is not lent again in that round."""
    probes = Probes(3, 5.0, failure_ratio=1.0, slow_ratio=1.0)
    assert probes.settle(probes.lend(0.0), failed=failed, slow=True) == UNDECIDED
    assert [probes.lend(0.0), probes.lend(0.0), probes.lend(0.0)] == [2, 3, 0]


def test_without_ratios_one_failure_opens_and_slowness_does_not_matter():
    """The first failed probe re-opens; slow ones close like any other."""
    probes = Probes(2, 5.0)
    assert probes.settle(probes.lend(0.0), failed=False, slow=True) == UNDECIDED
    assert probes.settle(probes.lend(0.0), failed=False, slow=True) == CLOSE
    probes = Probes(2, 5.0)
    assert probes.settle(probes.lend(0.0), failed=True, slow=False) == OPEN


def test_hung_probe_is_counted_once():
    """A lease that is over counts as one failed probe, however often it is looked at, and to the instant."""
    probes = Probes(3, 5.0, failure_ratio=0.5)
    token = probes.lend(10.0)
    assert probes.next_expiry() == 15.0
    assert probes.expire(nextafter(15.0, 0.0)) == UNDECIDED
    assert (probes.expire(15.0), probes.expire(99.0)) == (UNDECIDED, UNDECIDED)
    assert (probes.lost, probes.next_expiry()) == (1, None)
    assert probes.settle(token, failed=False, slow=False) is None
    assert probes.lend(99.0) == 2
    assert probes.expire(104.0) == OPEN


def test_first_expiry_is_that_of_the_oldest_permit():
    """Whoever waits for a decision waits for the oldest permit that is out."""
    probes = Probes(2, 5.0)
    first, second = probes.lend(1.0), probes.lend(2.0)
    assert probes.next_expiry() == 6.0
    probes.hand_back(first)
    assert probes.next_expiry() == 7.0
    probes.hand_back(second)
    assert probes.next_expiry() is None


def test_round_closes_as_soon_as_it_can_no_longer_open():
    """With ratios the round is decided when the probes that are left cannot reach them, and not before."""
    probes = Probes(4, 5.0, failure_ratio=1.0, slow_ratio=0.5)
    verdicts = [probes.settle(probes.lend(0.0), failed=False, slow=False) for _ in range(3)]
    assert verdicts == [UNDECIDED, UNDECIDED, CLOSE]
    probes = Probes(4, 5.0, failure_ratio=0.5, slow_ratio=1.0)
    verdicts = [probes.settle(probes.lend(0.0), failed=False, slow=False) for _ in range(3)]
    assert verdicts == [UNDECIDED, UNDECIDED, CLOSE]


def test_tolerated_failures_count_as_answers():
    """A failed probe that is tolerated leaves one answer less to wait for."""
    probes = Probes(4, 5.0, failure_ratio=0.75)
    verdicts = [probes.settle(probes.lend(0.0), failed=failed, slow=False) for failed in (True, False, False)]
    assert verdicts == [UNDECIDED, UNDECIDED, CLOSE]


def test_slow_probes_open_from_their_share_on():
    """The share of slow probes re-opens even if all passed."""
    probes = Probes(4, 5.0, slow_ratio=0.5)
    verdicts = [probes.settle(probes.lend(0.0), failed=False, slow=slow) for slow in (True, False, True)]
    assert verdicts == [UNDECIDED, UNDECIDED, OPEN]


@pytest.mark.parametrize("limit", range(1, 120))
def test_smallest_count_is_exact_on_both_sides_of_every_share(limit):
    """For each share that a count can have, and the numbers next to it, the count is the first that reaches it."""
    for count in range(1, limit + 1):
        share = count / limit
        for ratio in (nextafter(share, 0.0), share, nextafter(share, 1.0)):
            expected = next(n for n in range(limit + 1) if n / limit >= ratio)
            assert smallest_reaching(ratio, limit) == expected
