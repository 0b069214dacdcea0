"""The states of a circuit breaker and the one table of its transitions.

Rules first, transitions as data. ``next_state`` is the only way from one state to the next; the state machine test
and the diagram in the documentation are made from ``TRANSITIONS``, so neither can drift from the code.

- *closed*: calls are made and counted.
- *open*: calls are rejected until an instant. No timer runs: the first arrival after it makes the circuit half-open.
- *half_open*: a few probes decide. With ``ramp`` the state goes on after they passed, with a growing share of calls.
- *isolated*: opened by hand.
- *disabled*: calls are made and not counted.
- *metrics_only*: calls are made, counted and reported, never rejected.
"""

from typing import Final, Literal

__all__ = ["STATES", "TRANSITIONS", "Cause", "State", "mermaid", "next_state"]

State = Literal["closed", "open", "half_open", "isolated", "disabled", "metrics_only"]

Cause = Literal[
    "too_many_failures",
    "too_many_slow_calls",
    "server_asked",
    "break_over",
    "probes_passed",
    "probe_failed",
    "probe_hung",
    "ramp_begins",
    "ramp_over",
    "isolated",
    "released",
    "reset",
    "disabled",
    "metrics_only",
    "reconfigured",
    "probe_returned",
    "fleet_open",
    "fleet_closed",
    "fleet_ramp",
    "fleet_isolated",
    "fleet_disabled",
    "fleet_metrics_only",
]

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"
ISOLATED: Final = "isolated"
DISABLED: Final = "disabled"
METRICS_ONLY: Final = "metrics_only"

STATES: Final[tuple[State, ...]] = (CLOSED, OPEN, HALF_OPEN, ISOLATED, DISABLED, METRICS_ONLY)

_AUTOMATIC: dict[tuple[State, Cause], State] = {
    (CLOSED, "too_many_failures"): OPEN,
    (CLOSED, "too_many_slow_calls"): OPEN,
    (CLOSED, "server_asked"): OPEN,
    (OPEN, "break_over"): HALF_OPEN,
    (HALF_OPEN, "probes_passed"): CLOSED,
    (HALF_OPEN, "probe_failed"): OPEN,
    (HALF_OPEN, "probe_hung"): OPEN,
    (HALF_OPEN, "server_asked"): OPEN,
    (HALF_OPEN, "ramp_begins"): HALF_OPEN,
    (HALF_OPEN, "ramp_over"): CLOSED,
    (HALF_OPEN, "too_many_failures"): OPEN,
    (HALF_OPEN, "too_many_slow_calls"): OPEN,
    (ISOLATED, "released"): CLOSED,
    (HALF_OPEN, "probe_returned"): OPEN,
    (OPEN, "fleet_ramp"): HALF_OPEN,
    (HALF_OPEN, "fleet_ramp"): HALF_OPEN,
}

_BY_HAND: dict[Cause, State] = {
    "isolated": ISOLATED,
    "reset": CLOSED,
    "disabled": DISABLED,
    "metrics_only": METRICS_ONLY,
}

_BY_FLEET: dict[Cause, State] = {
    "fleet_open": OPEN,
    "fleet_closed": CLOSED,
    "fleet_isolated": ISOLATED,
    "fleet_disabled": DISABLED,
    "fleet_metrics_only": METRICS_ONLY,
}

TRANSITIONS: Final[dict[tuple[State, Cause], State]] = {
    **_AUTOMATIC,
    **{
        (state, cause): target
        for state in STATES
        for cause, target in (_BY_HAND | _BY_FLEET).items()
        if target != ISOLATED or state != ISOLATED  # a second isolation joins the first
    },
    **{(state, "reconfigured"): state for state in STATES},
}
"""``(state, cause) -> state``. By hand, and by what other workers decided, everything is reachable from everywhere; the
rest happens by itself."""


def next_state(state: State, cause: Cause) -> State:
    """Return the state that ``cause`` leads to from ``state``.

    Raises:
        KeyError: the pair is not in the table; that is a fault of ours, never of a caller.
    """
    return TRANSITIONS[state, cause]


def mermaid() -> str:
    """Return the table as a Mermaid state diagram; what is possible by hand from every state is drawn once."""
    lines = ["stateDiagram-v2", "    [*] --> closed"]
    lines += [f"    {state} --> {target}: {cause}" for (state, cause), target in _AUTOMATIC.items()]
    lines += ["    state any <<choice>>"]
    lines += [f"    any --> {target}: {cause}" for cause, target in (_BY_HAND | _BY_FLEET).items()]
    return "\n".join(lines)
