"""Where a command belongs in a cluster: the slot of a key, and the first key of a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot as drivers_slot

from isp_perf._core.slots import SLOTS, first_key, key_slot

BRACED = st.lists(st.sampled_from([b"{", b"}", b"a", b"user", b"\xff", b"\x00"]), max_size=12).map(b"".join)


@given(st.binary(max_size=300) | BRACED)
def test_a_slot_is_the_one_redis_py_computes(key):
    """Any bytes have the slot that redis-py computes, hash tags of every shape included."""
    assert key_slot(key) == drivers_slot(key)
    assert 0 <= key_slot(key) < SLOTS


@given(tag=st.binary(min_size=1, max_size=30).filter(lambda tag: b"}" not in tag), rest=st.binary(max_size=30))
def test_keys_of_one_hash_tag_share_a_slot(tag, rest):
    """What stands behind a hash tag does not matter."""
    assert key_slot(b"{" + tag + b"}" + rest) == key_slot(b"{" + tag + b"}")


@pytest.mark.parametrize("streams", ["STREAMS", "streams", b"streams"])
def test_the_keys_of_streams_follow_their_word(streams):
    """The word that precedes the keys may be written in any way; without it there is no key."""
    assert first_key(("XREAD",), ("XREAD", "COUNT", 1, streams, "k", "0")) == "k"
    assert first_key(("XREAD",), ("XREAD", "COUNT", 1)) is None
    assert first_key(("XREAD",), ("XREAD", streams)) is None


@pytest.mark.parametrize("none", [0, "0", b"0"])
def test_a_script_without_keys_has_no_first_key(none):
    """However the number of keys is given, none means that the arguments are not taken for keys."""
    assert first_key(("EVAL",), ("EVAL", "return 1", none, "argument")) is None
    assert first_key(("EVAL",), ("EVAL", "return 1")) is None


def test_names_of_two_words_are_known_in_one_argument_or_two():
    """redis-py passes some names as one string; the key is found all the same."""
    assert first_key(("OBJECT", "ENCODING"), ("OBJECT ENCODING", "k")) == "k"
    assert first_key(("OBJECT",), ("OBJECT", "ENCODING", "k")) == "k"
    assert first_key(("GET",), ("GET", "k")) == "k"
    assert first_key(("PING",), ("PING", "text")) is None
