"""Redis globs."""

import pytest

from isp_perf._core.globs import glob_pattern


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("user:*", ["user:", "user:1:x\n"], ["users:1", "xuser:1"]),
        ("h?llo", ["hello"], ["hllo", "heello"]),
        ("h[ae]llo", ["hello", "hallo"], ["hillo"]),
        ("h[^e]llo", ["hallo"], ["hello"]),
        ("h[a-b]llo", ["hallo", "hbllo"], ["hcllo"]),
        (r"a\*b", ["a*b"], ["axb"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a[", ["a["], ["a"]),
    ],
)
def test_matches_what_redis_matches(glob, yes, no):
    """Stars, question marks, classes and backslashes mean what they mean to Redis."""
    matches = glob_pattern(glob).fullmatch
    assert all(matches(key) for key in yes)
    assert not any(matches(key) for key in no)
