"""What a reader makes of what is under a key, and what failures are called."""

import itertools

import pytest

from isp_perf._core.leases import (
    KINDS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Finding,
    backoff,
    classify,
    held_bytes,
    keeps_reading,
    kind_of,
    lease_token,
)
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


# What drivers and servers say about the same failure, each in its own way: its kind is what an operator needs to know.
SAID = {
    "maxclients": [named("MaxClientsError"), named("ResponseError", "ERR max number of clients reached")],
    "loading": [named("BusyLoadingError"), named("ResponseError", "LOADING Redis is loading the dataset in memory")],
    "readonly": [named("ReadOnlyError"), named("ResponseError", "READONLY You can't write against a replica.")],
    "oom": [
        named("OutOfMemoryError"),
        named("ResponseError", "OOM command not allowed when used memory is high"),
    ],
    "masterdown": [
        named("MasterDownError"),
        named("ClusterDownError"),
        named("ResponseError", "MASTERDOWN no link"),
    ],
    "misconf": [named("ResponseError", "MISCONF Errors writing to the AOF file")],
    "auth": [named("AuthenticationError"), named("AuthorizationError"), named("ResponseError", "WRONGPASS invalid")],
    "noperm": [named("NoPermissionError"), named("ResponseError", "this user has no permissions to run 'get'")],
    "busy": [named("PoolBusyError"), named("ResponseError", "BUSY Redis is busy running a script")],
    "moved": [named("MovedError"), named("AskError"), named("ResponseError", "MOVED 3999 127.0.0.1:6381")],
    "protocol": [named("InvalidResponse")],
    "timeout": [named("TimeoutError")],
    "refused": [named("ConnectionRefusedError")],
    "reset": [named("ConnectionResetError")],
}


@pytest.mark.parametrize("kind", SAID)
def test_a_failure_has_one_kind_however_it_is_said(kind):
    """A driver's class, one derived from it and the words of a server mean the same."""
    for error in SAID[kind]:
        derived = type("Derived", (type(error),), {})(*error.args)
        assert kind_of(error) == kind_of(derived) == kind, repr(error)


@pytest.mark.parametrize("word", ["LOADING", "NOAUTH", "CLUSTERDOWN", "NOPERM"])
def test_only_the_first_word_of_an_answer_counts(word):
    """It may carry the marks of the protocol; further on it is part of a text."""
    kind = kind_of(named("ResponseError", f"{word} and some more words"))
    assert kind != "other"
    assert kind_of(named("ResponseError", f"-{word}: more")) == kind
    assert kind_of(named("ResponseError", f"{word}? more")) == "other"
    assert kind_of(named("ResponseError", f"some {word}")) == "other"


def test_the_set_of_kinds_is_closed():
    """Every kind but the last has an example here, and every example a kind."""
    assert {*KINDS} == {*SAID, "other"}
    assert len(KINDS) == len({*KINDS})


def test_only_so_many_causes_are_looked_at():
    """The deepest of five errors that is known decides; a chain that is longer ends there."""
    chain = [ValueError() for _ in range(5)] + [named("ReadOnlyError")]
    for outer, inner in itertools.pairwise(chain):
        outer.__cause__ = inner
    assert kind_of(chain[0]) == "other"
    assert kind_of(chain[1]) == "readonly"
    named_twice = named("ReadOnlyError")
    named_twice.__cause__ = ValueError()
    assert kind_of(named_twice) == "readonly"


@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_reads_alone(kind):
    """A store that was refused for want of memory, disk or rights, or by our own limit, leaves reads as they are."""
    assert keeps_reading(kind) == (kind in ("oom", "misconf", "noperm", "busy"))


def test_a_lease_outlives_two_renewals_and_ends_within_two_seconds():
    """A killed holder is replaced within 2 s; a living one may miss a renewal."""
    assert LEASE_SECONDS == 1.8
    assert round(RENEW_SECONDS * 3, 9) == LEASE_SECONDS
    names = {"granted", "leased", "intent", "no lease", "value"}
    assert {finding.value for finding in Finding} == names
