from hypothesis import given
from hypothesis import strategies as st

from isp_perf._core.backoff import exponential, full_jitter, spread_down


def test_backoff_grows_by_its_factor_up_to_its_maximum():
    """Each attempt waits factor times as long as the one before, and never longer than the maximum."""
    assert [exponential(0.5, 2.0, 3.0, attempt=n) for n in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_backoff_never_overflows():
    """An absurd number of attempts gives the maximum, not an OverflowError."""
    assert exponential(1.0, 1e300, 60.0, attempt=10**9) == 60.0


@given(st.floats(0.001, 1000), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_jitter_spreads_downwards_within_its_share(delay, share, draw):
    """The jittered delay lies between (1 - share) times the delay and the delay itself."""
    assert delay * (1 - share) <= spread_down(delay, share, draw) * (1 + 1e-12)
    assert spread_down(delay, share, draw) <= delay


@given(st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_full_jitter_stays_below_the_exponential_delay(attempt, draw):
    """Full jitter draws from zero up to the exponential delay and never beyond."""
    assert 0 <= full_jitter(0.1, 20.0, attempt=attempt, draw=draw) <= exponential(0.1, 2.0, 20.0, attempt=attempt)
