"""Outcomes that nobody was admitted for."""

from typing import Any

from isp_perf.breaker._eras import Owner

__all__ = ["Stray"]


class Stray:
    """Where an outcome settles that nobody was admitted for: it is late, and only the totals hear of it."""

    __slots__ = ("_machine", "ok")

    dirty = True

    def __init__(self, machine: Owner) -> None:
        self._machine = machine
        self.ok = 0

    def settle(self, _result: Any, /) -> None:
        """Count a late success."""
        with self._machine.lock:
            self._machine.late_locked(failed=False)

    def fail(self, error: BaseException, /) -> None:
        """Count a late failure."""
        if self._machine.config.judge.failed(error):
            with self._machine.lock:
                self._machine.late_locked(failed=True)
        else:
            self._machine.forgo(error)
