"""Checked by mypy and pyright, never run: decorated functions keep their types, and gain typed operations."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from isp_perf import CircuitBreaker, CircuitConfig, cached, circuit_breaker


@cached("user_profile:{user_id}", ttl=1800)
async def profile(user_id: str, *, deep: bool = False) -> dict[str, int]:
    """Stand for a loader of a service."""
    return {user_id: int(deep)}


@cached(ttl=60)
def total(year: int) -> float:
    """Stand for a plain function."""
    return float(year)


class Service:
    """Stands for a class with a cached method."""

    @cached("plan:{self.name}:{year}")
    async def plan(self, year: int) -> str:
        """Stand for a method."""
        return str(year)

    name = "a"


@circuit_breaker("whatsapp_api", CircuitConfig(failure_threshold=3))
async def send(message: str) -> bool:
    """Stand for a call of a service."""
    return bool(message)


async def uses() -> None:
    """Name the type of every expression a user writes."""
    assert_type(await profile("a", deep=True), dict[str, int])
    assert_type(total(2026), float)
    assert_type(await Service().plan(2026), str)
    assert_type(await send("hello"), bool)
    state: str = CircuitBreaker("x", CircuitConfig()).state
    await profile.invalidate("a")
    await profile.refresh("a")
    total.invalidate(2026)
    key: str = profile.key("a")
    loader: Callable[[str], Awaitable[dict[str, int]]] = profile
    _ = key, loader, state
