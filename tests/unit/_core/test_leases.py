"""What a reader makes of what is under a key, and what failures are called."""

import pytest

from isp_perf._core.leases import KINDS, Finding, backoff, classify, held_bytes, keeps_reading, kind_of, lease_token
from isp_perf.errors import MaybeExecutedError, NotSentError, PoolBusyError


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (None, Finding.GRANTED),
        (held_bytes(bytes(16)), Finding.LEASED),
        (b"L" + bytes(15), Finding.VALUE),
        (b"T" + bytes(8), Finding.INTENT),
        (b"T" + bytes(24), Finding.INTENT),
        (b"T" + bytes(9), Finding.VALUE),
        (b"T", Finding.VALUE),
        (b"N", Finding.NO_LEASE),
        (b"", Finding.VALUE),
        (b"ip\x02...", Finding.VALUE),
    ],
)
def test_what_is_under_a_key(data, finding):
    """Value, lease, intent and nothing are told apart by their first bytes and length."""
    assert classify(data) is finding


def test_a_lease_names_its_token():
    """The token of a lease is what was put in."""
    assert lease_token(held_bytes(b"t" * 16)) == b"t" * 16


def named(name, text=""):
    return type(name, (Exception,), {})(text)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PoolBusyError("redis"), "busy"),
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "reset"),
        (OSError(), "refused"),
        (NotSentError("x"), "refused"),
        (MaybeExecutedError("x"), "reset"),
        (named("OutOfMemoryError"), "oom"),
        (named("ReadOnlyError"), "readonly"),
        (named("ResponseError", "MISCONF snapshots"), "misconf"),
        (named("ResponseError", "BUSY script"), "busy"),
        (named("ResponseError", "ERR max number of clients reached"), "maxclients"),
        (named("ResponseError", "user can't run this command"), "noperm"),
        (ValueError(), "other"),
    ],
)
def test_every_failure_has_a_kind(error, kind):
    """Failures of our own, the system's and any driver's fall into one closed set."""
    assert kind_of(error) == kind
    assert kind in KINDS


def test_the_cause_says_more_than_the_wrapper():
    """A wrapper's kind is that of what is behind it."""
    error = NotSentError("not sent")
    error.__cause__ = named("BusyLoadingError")
    assert kind_of(error) == "loading"
    assert keeps_reading("oom")
    assert not keeps_reading("timeout")


def test_probes_come_often_while_somebody_waits():
    """Between 25 and 200 ms while there is traffic, up to 1 s when idle."""
    assert [backoff(attempt, 1.0, idle=False) for attempt in range(4)] == [0.05, 0.1, 0.2, 0.2]
    assert backoff(0, 0.0, idle=False) == 0.025
    assert backoff(50, 1.0, idle=True) == 1.0
