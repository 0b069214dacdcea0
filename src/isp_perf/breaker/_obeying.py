"""What a circuit does when its fleet has decided; see ``_core.breaker_fleet`` for what the fleet may ask."""

from isp_perf._core.breaker_fleet import Target, View
from isp_perf._core.breaker_states import Cause, State
from isp_perf._core.ranges import seconds
from isp_perf.breaker._eras import DisabledEra, IsolatedEra
from isp_perf.breaker._machine import Machine

__all__ = ["obey_locked", "return_locked"]

_STATES: dict[Target, State] = {"closed": "closed", "ramp": "closed", "metrics_only": "metrics_only"}
_CAUSES: dict[Target, Cause] = {
    "closed": "fleet_closed",
    "ramp": "fleet_closed",
    "disabled": "fleet_disabled",
    "metrics_only": "fleet_metrics_only",
}


def obey_locked(machine: Machine, target: Target, view: View) -> None:
    """Go to the state that the fleet asks for. An isolation begins without holders: the caller puts them in."""
    now = machine.clock()
    if target == "open":
        machine.round = view.round
        opened = machine.open_era(now + view.left, cause=view.error, counts=machine.present_counts(now))
        machine.swap_locked(opened, "fleet_open", view.error)
    elif target == "isolated":
        if not isinstance(machine.era, IsolatedEra):
            machine.swap_locked(IsolatedEra(machine), "fleet_isolated")
    elif target == "ramp" and machine.config.ramp:
        end = now + seconds("ramp", machine.config.ramp)
        machine.swap_locked(machine.closed_era("half_open", end), "fleet_ramp")
    else:
        machine.round = 0
        era = DisabledEra() if target == "disabled" else machine.closed_era(_STATES[target])
        machine.swap_locked(era, _CAUSES[target])


def return_locked(machine: Machine) -> None:
    """Go from half-open back to open, with the break over: no probe is out, and another worker may have the right."""
    machine.swap_locked(machine.open_era(machine.clock(), cause=None, counts=(0, 0)), "probe_returned")
