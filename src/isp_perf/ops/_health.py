"""Health checks: each within its own deadline, each asked at most once a second however many ask."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, Literal, TypeAlias

from isp_perf.typing import Clock

__all__ = ["Check", "Checks", "Verdict"]

Verdict: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
Check: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns ``{"status": "healthy" | "degraded" | "unhealthy" | "disabled", ...}``; raising means unhealthy."""

_DEADLINE: Final = 0.25  # seconds a check may take
_KEPT: Final = 1.0  # seconds an answer is served again
_WORST_LAST: Final = ("healthy", "degraded", "unhealthy")


class _Kept:
    """One check with its last answer; all who ask while it runs wait for the same run."""

    def __init__(self, check: Check, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._answer: Mapping[str, Any] = {}
        self._until = float("-inf")
        self._running: asyncio.Task[Mapping[str, Any]] | None = None

    async def answer(self) -> Mapping[str, Any]:
        if self._clock() < self._until:
            return self._answer
        if self._running is None or self._running.done() or self._running.get_loop() is not asyncio.get_running_loop():
            self._running = asyncio.create_task(self._run())
        # Shielded: a probe that gives up must not take the answer away from the others.
        return await asyncio.shield(self._running)

    async def _run(self) -> Mapping[str, Any]:
        try:
            answer = await asyncio.wait_for(_started(self._check), _DEADLINE)
        except TimeoutError:
            answer = {"status": "unhealthy", "reason": f"no answer within {_DEADLINE:g} s"}
        self._answer = answer
        self._until = self._clock() + _KEPT
        return answer


async def _started(check: Check) -> Mapping[str, Any]:
    """Return the check's answer; an error becomes one, without its message, which may hold secrets."""
    results = await asyncio.gather(check(), return_exceptions=True)
    [result] = results
    if isinstance(result, BaseException):
        return {"status": "unhealthy", "reason": type(result).__name__}
    return result


class Checks:
    """All checks of a service.

    Args:
        optional: dependencies the service works without: down means degraded.
        required: dependencies it does not work without: down means unhealthy.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, optional: Mapping[str, Check], required: Mapping[str, Check], clock: Clock = monotonic
    ) -> None:
        self._required = frozenset(required)
        self._kept = {name: _Kept(check, clock) for name, check in {**optional, **required}.items()}

    async def report(self) -> dict[str, Any]:
        """Return ``{"status", "checks": {name: {"status", ...}}}``."""
        answers = await asyncio.gather(*(kept.answer() for kept in self._kept.values()))
        checks = dict(zip(self._kept, map(dict, answers), strict=True))
        verdicts = ["healthy", *(self._verdict(name, answer) for name, answer in checks.items())]
        return {"status": max(verdicts, key=_WORST_LAST.index), "checks": checks}

    def _verdict(self, name: str, answer: Mapping[str, Any]) -> Verdict:
        status = answer.get("status")
        if status in {"healthy", "disabled"}:
            return "healthy"
        return "unhealthy" if name in self._required and status != "degraded" else "degraded"
