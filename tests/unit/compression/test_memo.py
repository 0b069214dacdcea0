"""The bounded memory of a pure function's answers."""

import pytest

from isp_perf.compression._memo import Memo


def test_an_answer_is_computed_once():
    """The second time the function is not called."""
    calls = []
    memo = Memo(lambda key: calls.append(key) or key, 4)
    assert [memo[b"a"], memo[b"a"], memo[None], memo[None]] == [b"a", b"a", None, None]
    assert calls == [b"a", None]


def test_it_never_holds_more_than_its_size():
    """Strangers cannot fill the memory: a full one starts over."""
    memo = Memo(int, 4)
    for key in range(100):
        assert memo[b"%d" % key] == key
        assert len(memo) <= 4


def test_an_error_is_not_remembered():
    """What the function raises is raised, and asked for again the next time."""
    memo = Memo({b"1": "one"}.__getitem__, 4)
    for _ in range(2):
        with pytest.raises(KeyError):
            memo[b"2"]
    assert memo[b"1"] == "one"
    assert len(memo) == 1


def test_a_long_value_is_not_kept():
    """A value above 256 bytes is answered and forgotten."""
    memo = Memo(len, 4)
    assert [memo[b"a" * 256], memo[b"a" * 257]] == [256, 257]
    assert list(memo) == [b"a" * 256]
