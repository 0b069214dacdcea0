"""The rules by which a worker follows its fleet, one by one."""

import pytest

from isp_perf._core.breaker_fleet import View, followed
from isp_perf._core.breaker_states import STATES

OTHER = {"other": (5.0, "deploy")}
MINE = {"me": (None, "mine")}


def ruled(view, local="closed", *, known=0, own=False):
    return followed(view, known=known, me="me", local=local, own=own)


@pytest.mark.parametrize("local", STATES)
@pytest.mark.parametrize("known", [7, 8])
def test_what_is_known_or_older_changes_nothing(local, known):
    """A record whose version is not above the one followed before is ignored in every state."""
    assert ruled(View(7, state="open", by="other"), local, known=known) is None
    assert ruled(View(7, mode="isolated", held=OTHER, by="other"), local, known=known) is None


@pytest.mark.parametrize("local", STATES)
def test_what_this_worker_changed_is_done_already(local):
    """A worker never follows its own change, however new the version is."""
    assert ruled(View(9, state="open", why="opened", by="me"), local) is None
    assert ruled(View(9, why="reset", by="me"), local) is None
    assert ruled(View(9, mode="disabled", by="me"), local) is None


@pytest.mark.parametrize("local", STATES)
def test_an_opening_is_followed_from_every_state(local):
    """An open record opens the circuit, and moves the end of a break that runs already."""
    assert ruled(View(9, state="open", why="opened", by="other"), local) == "open"
    assert ruled(View(9, state="open", why="opened", by="other"), local, own=True) == "open"


@pytest.mark.parametrize(
    ("local", "own", "why", "expected"),
    [
        ("closed", False, "closed", None),
        ("open", False, "closed", "closed"),
        ("half_open", False, "closed", "closed"),
        ("open", False, "ramp", "ramp"),
        ("half_open", False, "ramp", "ramp"),
        ("open", True, "closed", None),
        ("half_open", True, "closed", None),
        ("open", True, "ramp", None),
        ("isolated", False, "released", "closed"),
        ("isolated", True, "ramp", "closed"),
        ("disabled", False, "closed", "closed"),
        ("disabled", True, "ramp", "closed"),
        ("metrics_only", True, "ramp", "closed"),
    ],
)
def test_a_closing_ends_what_the_fleet_opened(local, own, why, expected):
    """A closed record closes, with its ramp; an opening of the worker's own goes on until its own probe passes."""
    assert ruled(View(9, why=why, by="other"), local, own=own) == expected


@pytest.mark.parametrize("local", STATES)
@pytest.mark.parametrize("own", [False, True])
def test_a_reset_closes_everything(local, own):
    """What a person resets is closed at every worker, an opening of its own included."""
    assert ruled(View(9, why="reset", by="other"), local, own=own) == "closed"


@pytest.mark.parametrize("mode", ["disabled", "metrics_only"])
@pytest.mark.parametrize("local", STATES)
def test_what_a_person_set_holds_everywhere(mode, local):
    """Every worker takes the mode of the record, unless it is in it."""
    assert ruled(View(9, mode=mode, why=mode, by="other"), local) == (None if local == mode else mode)


@pytest.mark.parametrize("local", STATES)
def test_isolations_of_others_are_joined(local):
    """An isolation of another worker isolates; one of our own alone asks nothing, but may let others go."""
    assert ruled(View(9, mode="isolated", held=OTHER, by="other"), local) == "isolated"
    assert ruled(View(9, mode="isolated", held=OTHER | MINE, by="me"), local) == "isolated"
    alone = ruled(View(9, mode="isolated", held=MINE, by="other"), local)
    assert alone == ("isolated" if local == "isolated" else None)


def test_record_that_the_store_does_not_have_says_nothing():
    """A view of an unknown circuit is version 0, closed, and asks nobody to wait."""
    assert View(0) == View(0, "auto", "closed", "", "", 0.0, 0, None, {}, 0.0)


def test_isolations_of_others_are_told_apart():
    """The worker's own isolation is not among those of the others."""
    view = View(9, mode="isolated", held=OTHER | MINE)
    assert view.held_by_others("me") == OTHER
    assert view.held_by_others("other") == MINE
