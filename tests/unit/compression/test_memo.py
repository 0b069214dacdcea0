"""The bounded memory of a pure function's answers."""

import pytest

from isp_perf.compression._memo import Memo


def test_an_answer_is_computed_once():
    """The second time the function is not called."""
    calls = []
    memo = Memo(lambda key: calls.append(key) or key * 2, 4)
    assert [memo[3], memo[3], memo[4]] == [6, 6, 8]
    assert calls == [3, 4]


def test_it_never_holds_more_than_its_size():
    """Strangers cannot fill the memory: a full one starts over."""
    memo = Memo(str, 4)
    for key in range(100):
        assert memo[key] == str(key)
        assert len(memo) <= 4


def test_an_error_is_not_remembered():
    """What the function raises is raised, and asked for again the next time."""
    memo = Memo({1: "one"}.__getitem__, 4)
    for _ in range(2):
        with pytest.raises(KeyError):
            memo[2]
    assert memo[1] == "one"
    assert len(memo) == 1
