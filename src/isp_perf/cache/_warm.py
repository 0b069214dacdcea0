"""Warm-up: load before anybody asks."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, cast

from isp_perf._runtime.drive import adrive, drive
from isp_perf.cache._config import CachePolicy, PolicyOptions, policy_with
from isp_perf.cache._keyed import Keys
from isp_perf.cache._report import WarmReport
from isp_perf.errors import ConfigurationError

__all__ = ["Plan", "warm", "warm_here", "warm_plan"]

_ANY_ERROR: Final = Exception  # a loader may raise anything; the report says what


@dataclass(frozen=True, slots=True)
class Plan:
    """What to load for one name, and how long to keep it."""

    load: Callable[[], Any]
    options: PolicyOptions
    policy: CachePolicy


def warm_plan(name: str, source: Mapping[str, Any], policy: CachePolicy) -> Plan:
    """Return the plan that ``source`` describes.

    Raises:
        ConfigurationError: no ``fetch_func``, or an unknown field.
    """
    options = dict(source)
    load = options.pop("fetch_func", None)
    if not callable(load):
        raise ConfigurationError(
            f"{name}.fetch_func", type(load).__name__, "a function without arguments", 'write {"fetch_func": load}'
        )
    chosen = cast("PolicyOptions", options)
    policy_with(policy, **chosen)
    return Plan(load, chosen, policy)


async def warm(
    keys: Keys, plans: Mapping[str, Plan], *, concurrency: int, progress: Callable[[int, int], None] | None
) -> WarmReport:
    """Run the loaders and store what they return under their names."""
    gate = asyncio.Semaphore(concurrency)
    done: list[str] = []
    started = monotonic()

    async def fill(name: str) -> None:
        try:
            async with gate:
                await _fill(keys, name, plans[name])
        finally:
            done.append(name)
            if progress is not None:
                progress(len(done), len(plans))

    outcomes = dict(zip(plans, await asyncio.gather(*map(fill, plans), return_exceptions=True), strict=True))
    _raise_fatal(outcomes)
    failed = {name: error for name, error in outcomes.items() if isinstance(error, Exception)}
    loaded = tuple(name for name in plans if name not in failed)
    return WarmReport(loaded=loaded, failed=failed, seconds=monotonic() - started)


def warm_here(keys: Keys, plans: Mapping[str, Plan], *, progress: Callable[[int, int], None] | None) -> WarmReport:
    """Run the loaders in this thread, one after the other, and store what they return under their names."""
    failed: dict[str, Exception] = {}
    started = monotonic()
    for done, (name, plan) in enumerate(plans.items(), 1):
        try:
            drive(keys.write(name, plan.load(), plan.policy, options=plan.options, tasks=False))
        except _ANY_ERROR as error:
            failed[name] = error
        if progress is not None:
            progress(done, len(plans))
    loaded = tuple(name for name in plans if name not in failed)
    return WarmReport(loaded=loaded, failed=failed, seconds=monotonic() - started)


async def _fill(keys: Keys, name: str, plan: Plan) -> None:
    value = plan.load()
    value = await value if inspect.isawaitable(value) else value
    await adrive(keys.write(name, value, plan.policy, options=plan.options, tasks=True))


def _raise_fatal(outcomes: Mapping[str, BaseException | None]) -> None:
    """Raise what is no error of a loader: cancellation, interruption."""
    for error in outcomes.values():
        if error is not None and not isinstance(error, Exception):
            raise error
