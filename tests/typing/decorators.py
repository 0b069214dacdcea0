"""Checked by mypy and pyright, never run: decorated functions keep their types, and gain typed operations."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from isp_perf import CircuitBreaker, CircuitConfig, cache_manager, cached, circuit_breaker
from isp_perf.cache import Explanation


@cached("user_profile:{user_id}", ttl=1800)
async def profile(user_id: str, *, deep: bool = False) -> dict[str, int]:
    """Stand for a loader of a service."""
    return {user_id: int(deep)}


@cached(ttl=60)
def total(year: int) -> float:
    """Stand for a plain function."""
    return float(year)


@cache_manager.cached_many("customer:{customer_id}")
async def customer(ids: list[int]) -> dict[int, str]:
    """Stand for a loader of many ids."""
    return dict.fromkeys(ids, "")


@cache_manager.cached_many("rate:{code}")
def rate(codes: list[str]) -> dict[str, float]:
    """Stand for a plain loader of many ids."""
    return dict.fromkeys(codes, 1.0)


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
    assert_type(await customer(1), str | None)
    assert_type(await customer.many([1, 2]), list[str | None])
    assert_type(rate("a"), float | None)
    assert_type(profile.explain("a"), Explanation)
    with cache_manager.bypass(), cache_manager.request_scope():
        await customer.invalidate(1)
    state: str = CircuitBreaker("x", CircuitConfig()).state
    await profile.invalidate("a")
    await profile.refresh("a")
    total.invalidate(2026)
    key: str = profile.key("a")
    loader: Callable[[str], Awaitable[dict[str, int]]] = profile
    _ = key, loader, state
