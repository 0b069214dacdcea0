"""Checks end in time, are asked once for many, and say what kind of trouble it is."""

import asyncio

import pytest

from isp_perf.ops._health import Checks
from isp_perf.testing import ManualClock


def answering(answer, calls=None, delay=0.0):
    async def check():
        if calls is not None:
            calls.append(1)
        await asyncio.sleep(delay)
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    return check


@pytest.mark.parametrize(
    ("optional", "required", "status"),
    [
        ("healthy", "healthy", "healthy"),
        ("disabled", "healthy", "healthy"),
        ("degraded", "healthy", "degraded"),
        ("unhealthy", "healthy", "degraded"),
        (OSError("secret"), "healthy", "degraded"),
        ("healthy", "degraded", "degraded"),
        ("healthy", "unhealthy", "unhealthy"),
        ("unhealthy", OSError("secret"), "unhealthy"),
    ],
)
async def test_optional_dependencies_degrade_and_required_ones_fail(optional, required, status):
    """An optional dependency that is down means degraded, a required one unhealthy; no error text gets out."""
    checks = Checks(optional={"redis": answering(optional)}, required={"database": answering(required)})
    report = await checks.report()
    assert report["status"] == status
    assert "secret" not in str(report)


async def test_a_check_that_hangs_is_cut_off():
    """A check has a quarter of a second; then it counts as down."""
    checks = Checks(optional={}, required={"database": answering("healthy", delay=60)})
    report = await asyncio.wait_for(checks.report(), 2)
    assert report["status"] == "unhealthy"
    assert "0.25" in report["checks"]["database"]["reason"]


async def test_a_storm_of_probes_costs_one_check():
    """A hundred probes at once and in the second after share one run; the next second asks again."""
    clock, calls = ManualClock(), []
    checks = Checks(optional={"redis": answering("healthy", calls, 0.01)}, required={}, clock=clock)
    await asyncio.gather(*(checks.report() for _ in range(100)))
    await checks.report()
    assert len(calls) == 1
    clock.advance(1.01)
    await checks.report()
    assert len(calls) == 2


async def test_a_probe_that_gives_up_leaves_the_answer_to_the_others():
    """Cancelling one of several waiting probes does not cancel the check."""
    checks = Checks(optional={"redis": answering("healthy", delay=0.05)}, required={})
    first, second = asyncio.create_task(checks.report()), asyncio.create_task(checks.report())
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second)["status"] == "healthy"
