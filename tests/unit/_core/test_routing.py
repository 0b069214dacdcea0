"""The lane and the repeatability of commands."""

import pytest

from isp_perf._core.routing import Lane, blocks_for, is_read_only, plan, route


@pytest.mark.parametrize(
    ("name", "lane"),
    [
        ("GET", Lane.FAST),
        ("get", Lane.FAST),
        (b"SET", Lane.FAST),
        ("CONFIG GET", Lane.FAST),
        ("HGETALL", Lane.BULK),
        ("SCAN", Lane.BULK),
        ("BLPOP", Lane.DEDICATED),
        ("CLIENT SETNAME", Lane.DEDICATED),
        ("CLIENT LIST", Lane.FAST),
        ("AUTH", Lane.DEDICATED),
        ("SELECT", Lane.REFUSED),
        ("CLIENT REPLY", Lane.REFUSED),
        ("MULTI", Lane.REFUSED),
        ("NO.SUCH.COMMAND", Lane.FAST),
        ("", Lane.FAST),
    ],
)
def test_a_name_decides_the_lane(name, lane):
    """Short commands share the fast lane, large replies the bulk lane, blocking ones get a connection, some none."""
    assert plan(name).lane is lane


def test_arguments_move_a_stream_read_to_its_own_connection():
    """XREAD blocks only with BLOCK, so only then it leaves the shared link."""
    found = plan("XREAD")
    assert route(found, ("XREAD", "COUNT", 1, "STREAMS", "s", "0")) is Lane.FAST
    assert route(found, ("XREAD", b"BLOCK", 100, "STREAMS", "s", "$")) is Lane.DEDICATED


def test_client_given_as_two_arguments_is_looked_at():
    """CLIENT with its part in the second argument takes the lane of the two words."""
    assert route(plan("CLIENT"), ("CLIENT", "REPLY", "OFF")) is Lane.REFUSED
    assert route(plan("CLIENT"), ("CLIENT", "ID")) is Lane.FAST


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("BLPOP", "a", 2), 2.0),
        (("BLPOP", "a", 0), None),
        (("BLMPOP", "1.5", 1, "a", "LEFT"), 1.5),
        (("WAIT", 1, 200), 0.2),
        (("XREAD", "BLOCK", 300, "STREAMS", "s", "$"), 0.3),
        (("XREAD", "BLOCK", 0, "STREAMS", "s", "$"), None),
        (("XREAD", "STREAMS", "s", "0"), 0.0),
        (("BLPOP", "a", "nonsense"), 0.0),
        (("BLMPOP",), 0.0),
        (("GET", "a"), 0.0),
    ],
)
def test_blocking_time_is_read_from_the_arguments(args, expected):
    """The time a command may block on the server is added to its deadline; without limit it has none."""
    assert blocks_for(plan(args[0]), args) == expected


def test_only_commands_known_to_read_are_read_only():
    """An unknown command is taken for one that writes, so it is never repeated after a lost answer."""
    assert is_read_only("get")
    assert is_read_only("EVAL_RO")
    assert not is_read_only("INCR")
    assert not is_read_only("EVAL")
    assert not is_read_only("NO.SUCH.COMMAND")
