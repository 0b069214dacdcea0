from pathlib import Path

import pytest

from isp_perf._core.breaker_states import STATES, TRANSITIONS, mermaid, next_state


def test_every_state_is_in_the_table_and_can_be_left():
    """Each state can be entered and left, and the table leads to no unknown state."""
    for state in STATES:
        assert any(before == state and after != state for (before, _), after in TRANSITIONS.items())
        assert any(before != state and after == state for (before, _), after in TRANSITIONS.items())
    assert set(TRANSITIONS.values()) == set(STATES)


def test_transitions_by_hand_are_possible_from_everywhere():
    """isolate, disable, metrics_only and reset lead to their state from every state."""
    for state in STATES:
        assert state == "isolated" or next_state(state, "isolated") == "isolated"
        assert next_state(state, "disabled") == "disabled"
        assert next_state(state, "metrics_only") == "metrics_only"
        assert next_state(state, "reset") == "closed"
        assert next_state(state, "reconfigured") == state


@pytest.mark.parametrize(
    ("state", "cause"),
    [("open", "too_many_failures"), ("closed", "break_over"), ("isolated", "probe_failed"), ("isolated", "isolated")],
)
def test_transitions_that_are_not_in_the_table_do_not_exist(state, cause):
    """An open circuit cannot open, a closed one has no break, and probes do not touch an isolation."""
    with pytest.raises(KeyError):
        next_state(state, cause)


def test_diagram_in_the_documentation_is_the_table():
    """docs/breaker.md shows exactly the diagram that the transition table makes."""
    page = Path(__file__).parents[3] / "docs" / "breaker.md"
    assert f"```text\n{mermaid()}\n```\n" in page.read_text(encoding="utf-8")
