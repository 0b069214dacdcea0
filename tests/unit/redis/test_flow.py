"""The bulk operations as flows: what they send, and what they make of the answers."""

import os

import pytest

from isp_perf.errors import ConfigurationError, NotSentError
from isp_perf.redis import _flow


def drive(flow, answer):
    """Run a flow, asking ``answer`` for the reply of each command; return its result and the commands."""
    sent = []
    try:
        commands = next(flow)
        while True:
            sent.append(list(commands))
            commands = flow.send([answer(args) for args in sent[-1]])
    except StopIteration as end:
        return end.value, sent


def test_get_many_asks_each_key_once_in_chunks():
    """Duplicates are asked once, chunks hold at most 500 keys, absent keys are left out."""
    keys = [f"k{i}" for i in range(1100)]
    found, sent = drive(_flow.get_many([*keys, "k1"]), lambda args: [b"v" if k != "k3" else None for k in args[1:]])
    assert [len(args) - 1 for args in sent[0]] == [500, 500, 100]
    assert len(found) == 1099
    assert "k3" not in found


def test_get_many_raises_the_first_failure():
    """One failed chunk fails the call, because a missing key would be taken for an absent one."""
    with pytest.raises(NotSentError):
        drive(_flow.get_many(["a"]), lambda _args: NotSentError("x"))


def test_nothing_to_do_sends_nothing():
    """Empty input needs no round trip."""
    assert drive(_flow.get_many([]), None) == ({}, [])
    assert drive(_flow.delete_many([]), None) == (0, [])
    result, sent = drive(_flow.set_many({}, _flow.Life(None, 0.0), draw=None, together=True), None)
    assert (result.stored, result.ok, sent) == (0, True, [])


def test_set_many_reports_per_key():
    """A key that failed stands in errors; the others are stored."""
    refused = NotSentError("x")
    flow = _flow.set_many({"a": b"1", "b": b"2"}, _flow.Life(2.0, 0.0), draw=None, together=False)
    result, sent = drive(flow, lambda args: refused if args[1] == "b" else True)
    assert sent == [[("SET", "a", b"1", "PX", 2000), ("SET", "b", b"2", "PX", 2000)]]
    assert (result.stored, dict(result.errors), bool(result)) == (1, {"b": refused}, False)


def test_keys_with_one_ttl_share_commands_where_the_server_can():
    """MSETEX and MSET carry many keys each; a failed one marks exactly its own."""
    items = {f"k{i}": b"x" for i in range(600)}
    refused = NotSentError("x")
    flow = _flow.set_many(items, _flow.Life(1.5, 0.0), draw=None, together=True)
    result, sent = drive(flow, lambda args: refused if args[1] == 100 else 1)
    assert [args[:3] + args[-2:] for args in sent[0]] == [
        ("MSETEX", 500, "k0", "PX", 1500),
        ("MSETEX", 100, "k500", "PX", 1500),
    ]
    assert result.stored == 500
    assert set(result.errors) == {f"k{i}" for i in range(500, 600)}
    flow = _flow.set_many({"a": b"1"}, _flow.Life(None, 0.0), draw=None, together=True)
    assert drive(flow, lambda _args: True)[1] == [[("SET", "a", b"1")]]


def test_large_values_make_smaller_commands():
    """A command carries at most 256 KiB of values, or one value."""
    items = {f"k{i}": b"x" * 200_000 for i in range(3)}
    flow = _flow.set_many(items, _flow.Life(None, 0.0), draw=None, together=True)
    assert len(drive(flow, lambda _args: True)[1][0]) == 3


def half(count):
    """Random bytes that are all 128: the middle of every range."""
    return b"\x80" * count


@pytest.mark.parametrize("together", [True, False])
def test_jitter_takes_off_up_to_its_share(together):
    """The ttl is spread downwards by the share that was asked for."""
    flow = _flow.set_many({"a": b"1"}, _flow.Life.of(10, 0.5), draw=half, together=together)
    ((command,),) = drive(flow, lambda _args: True)[1]
    assert command == ("SET", "a", b"1", "PX", 7490)
    with pytest.raises(ConfigurationError):
        _flow.Life.of(10, 1.5)


def test_keys_that_share_a_command_share_a_step_of_the_jitter():
    """Ten thousand keys need about 64 commands, whose ttls are spread over the whole share, and none is left out."""
    items = {f"k{i}": b"x" for i in range(10_000)}
    flow = _flow.set_many(items, _flow.Life.of(10, 0.5), draw=os.urandom, together=True)
    result, (sent,) = drive(flow, lambda _args: 1)
    assert result.stored == 10_000
    assert 60 <= len(sent) <= 68
    assert {key for args in sent for key in args[2:-2:2]} == set(items)
    lives = [args[-1] for args in sent]
    assert 5_000 <= min(lives) < 6_500
    assert 8_500 < max(lives) <= 10_000


def test_what_might_not_be_packed_is_packed_before_anything_is_sent():
    """Commands of plain values are made while they are sent; others are handed over complete."""
    life = _flow.Life(None, 0.0)
    assert not isinstance(next(_flow.set_many({"a": b"1"}, life, draw=None, together=True)), list)
    assert isinstance(next(_flow.set_many({"a": object()}, life, draw=None, together=True)), list)


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), "5", True])
def test_a_ttl_must_be_a_number_above_zero(ttl):
    """A ttl of zero or less, or none at all, is refused instead of stored for ever."""
    with pytest.raises(ConfigurationError):
        _flow.set_arguments("k", b"v", ttl)


def test_a_short_ttl_is_rounded_up_to_a_millisecond():
    """The server's resolution never turns a ttl into 0."""
    assert _flow.set_arguments("k", b"v", 0.0001, nx=True) == ("SET", "k", b"v", "PX", 1, "NX")


def scan(pages):
    """Answer SCAN by pages and count what UNLINK removes."""
    gone = set()

    def answer(args):
        if args[0] == "SCAN":
            page = int(args[1])
            return (page + 1) % len(pages), pages[page]
        fresh = set(args[1:]) - gone
        gone.update(fresh)
        return len(fresh)

    return answer


def test_delete_pattern_removes_every_page():
    """The keys of one page are removed together with the next scan; a key met twice counts once."""
    removed, sent = drive(
        _flow.delete_pattern("a*", dry_run=False, force=False), scan([[b"a1", b"a2"], [b"a2", b"a3"], []])
    )
    assert removed == 3
    assert [args[0] for args in sent[1]] == ["SCAN", "UNLINK"]


def test_delete_pattern_only_counts_in_a_dry_run():
    """A dry run removes nothing and counts each key once."""
    removed, sent = drive(_flow.delete_pattern("a*", dry_run=True, force=False), scan([[b"a1", b"a2"], [b"a2"]]))
    assert removed == 2
    assert all(args[0] == "SCAN" for batch in sent for args in batch)


@pytest.mark.parametrize("glob", ["*", "", "**", b"*"])
def test_a_pattern_for_everything_needs_force(glob):
    """Emptying the database by accident is refused."""
    with pytest.raises(ConfigurationError):
        _flow.check_glob(glob, force=False)
    _flow.check_glob(glob, force=True)
