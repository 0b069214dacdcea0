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


CLASSES = {
    "MaxClientsError": "maxclients",
    "BusyLoadingError": "loading",
    "ReadOnlyError": "readonly",
    "OutOfMemoryError": "oom",
    "MasterDownError": "masterdown",
    "ClusterDownError": "masterdown",
    "AuthenticationError": "auth",
    "AuthorizationError": "auth",
    "NoPermissionError": "noperm",
    "MovedError": "moved",
    "AskError": "moved",
    "PoolBusyError": "busy",
    "InvalidResponse": "protocol",
    "TimeoutError": "timeout",
    "ConnectionRefusedError": "refused",
    "ConnectionResetError": "reset",
}
WORDS = {
    "LOADING": "loading",
    "READONLY": "readonly",
    "OOM": "oom",
    "MASTERDOWN": "masterdown",
    "MISCONF": "misconf",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "noperm",
    "BUSY": "busy",
    "MOVED": "moved",
    "CLUSTERDOWN": "masterdown",
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_drivers_are_known_by_name(name):
    """A driver's error class says what failed, and so does a class derived from it."""
    base = type(name, (Exception,), {})
    assert kind_of(base()) == kind_of(type("Derived", (base,), {})()) == CLASSES[name]
    assert CLASSES[name] in KINDS


@pytest.mark.parametrize("word", WORDS)
def test_the_first_word_of_an_answer_is_known(word):
    """A server's answer says it by its first word, with or without the marks of the protocol."""
    assert kind_of(named("ResponseError", f"{word} and some more words")) == WORDS[word]
    assert kind_of(named("ResponseError", f"-{word}: more")) == WORDS[word]
    assert kind_of(named("ResponseError", f"{word}? more")) == "other"
    assert kind_of(named("ResponseError", f"some {word}")) == "other"


def test_the_set_of_kinds_is_closed():
    """No kind goes by another name, and none is missing."""
    assert {*KINDS} == {*CLASSES.values(), *WORDS.values(), "other"}
    assert len(KINDS) == 15
    assert kind_of(named("ResponseError", "this user has no permissions")) == "noperm"


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
