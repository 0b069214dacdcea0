"""The journal: the newest intention wins, and it never grows without bound."""

from hypothesis import given
from hypothesis import strategies as st

from isp_perf._core.journal import MOST_KEYS, Journal


def test_keys_leave_when_they_are_delivered():
    """What was added later stands later; what was delivered is gone; patterns stand beside."""
    journal = Journal("isp:%epoch")
    journal.add(["a", "b", "a"])
    journal.add_glob("x*")
    assert journal.chunk() == ("b", "a")
    assert "a" in journal
    assert len(journal) == 3
    journal.delivered(["a"], ["x*"])
    assert journal.chunk() == ("b",)
    assert journal.globs() == ()


def test_overflow_becomes_one_removal_of_everything():
    """More than it can hold is replaced by the version key of the namespace, patterns included."""
    journal = Journal("isp:%epoch", limit=3)
    journal.add_glob("x*")
    journal.add("abcd")
    assert journal.chunk() == ("isp:%epoch",)
    assert journal.globs() == ()
    assert journal.overflowed == 1
    globs = Journal("isp:%epoch")
    for number in range(1001):
        globs.add_glob(str(number))
    assert globs.chunk() == ("isp:%epoch",)


def test_chunks_are_bounded():
    """A hundred keys at a time, or as many hundreds as asked for."""
    journal = Journal("e")
    journal.add(map(str, range(1000)))
    assert len(journal.chunk()) == 100
    assert len(journal.chunk(5)) == 500


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=60), st.integers(1, 6))
def test_nothing_is_lost(steps, limit):
    """Whatever was added and not delivered since is in the journal, or everything is."""
    journal, owed = Journal("everything", limit=limit), {}
    for add, key in steps:
        if add:
            journal.add([key])
            owed[key] = True
        else:
            journal.delivered([key])
            owed.pop(key, None)
        held = set(journal.chunk())
        assert owed.keys() <= held or "everything" in held
        assert len(held) <= limit + 1


def test_a_key_that_was_added_while_it_was_delivered_stays():
    """A removal that was carried out before the newest intention says nothing about it."""
    journal = Journal("e")
    journal.add("ab")
    journal.add_glob("x*")
    sent, keys, globs = journal.moment, journal.chunk(), journal.globs()
    journal.add("b")
    journal.add_glob("x*")
    journal.delivered(keys, globs, sent=sent)
    assert journal.chunk() == ("b",)
    assert journal.globs() == ("x*",)


def test_limits_are_exact():
    """As much as the limit says is held; one more is the removal of everything."""
    journal = Journal("e", limit=3)
    journal.add("abc")
    assert journal.chunk() == ("a", "b", "c")
    globs = Journal("e")
    for number in range(1000):
        globs.add_glob(str(number))
    assert len(globs.globs()) == 1000
    assert (journal.overflowed, globs.overflowed) == (0, 0)
    assert MOST_KEYS == 100_000


def test_moments_grow_with_everything_that_is_added():
    """Each addition has a moment of its own, patterns too; what was asked for at that very moment is covered."""
    journal = Journal("e")
    assert journal.moment == 0
    journal.add("ab")
    first = journal.moment
    journal.add_glob("x*")
    second = journal.moment
    assert (first, second) == (1, 2)
    journal.delivered("ab", ["x*"], sent=first)
    assert journal.chunk() == ()
    assert journal.globs() == ("x*",)
    journal.delivered(["unknown"], ["unknown", "x*"], sent=second)
    assert not len(journal)


def test_what_was_served_past_the_level_is_known_until_it_is_removed():
    """Only keys that were added so are past, and no longer once they are delivered or everything is removed."""
    journal = Journal("e", limit=3)
    journal.add("a")
    journal.add("b", past=True)
    assert [journal.is_past(key) for key in "abc"] == [False, True, False]
    journal.delivered("b")
    assert journal.is_past("b") is False
    journal.add("b", past=True)
    journal.add("cdef")
    assert not journal.is_past("b")
