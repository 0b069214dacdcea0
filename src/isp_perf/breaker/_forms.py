"""Calls that are not wrapped functions: the block, the permit in two steps, and the awaitable of a plain function."""

from collections.abc import Awaitable, Callable
from types import CoroutineType, TracebackType
from typing import Any, Self, TypeVar

from isp_perf.breaker._half_open import turn
from isp_perf.breaker._machine import Machine
from isp_perf.breaker._shared_open import WAIT
from isp_perf.errors import CircuitOpenError, ConfigurationError

__all__ = ["BreakerBlock", "Permit", "admit", "aenter", "enter", "follow"]

T = TypeVar("T")


async def follow(era: Any, work: Awaitable[T]) -> T:
    """Await what a plain function returned, so that its outcome counts."""
    try:
        result = await work
    except BaseException as error:
        era.fail(error)
        raise
    era.ok += 1
    if era.dirty:
        era.settle(result)
    return result


def admit(breaker: Machine) -> Any:
    """Return what a plain call settles into; ``None``: take the fallback.

    Raises:
        RejectedError: the call may not be made.
        ConfigurationError: the breaker has a ``timeout``, which cannot interrupt a plain call.
    """
    if breaker.config.timeout is not None:
        raise ConfigurationError(
            "timeout", breaker.config.timeout, "a plain call cannot be interrupted", "use acall or an async def"
        )
    return breaker.era.admit()


def enter(breaker: Machine) -> Any:
    """Return what a block or a permit settles into; there a fallback has no place, so it raises all the same."""
    era = breaker.era
    found = era.admit() if era.shut else era
    return _or_raise(breaker, found)


async def aenter(breaker: Machine, *, fallback: bool = False) -> Any:
    """Do the same for a coroutine, waiting where the configuration says so; ``fallback``: it may answer ``None``."""
    era = breaker.era
    found = era.aadmit() if era.shut else era
    if found is WAIT:
        found = await turn(breaker)
    return found if fallback else _or_raise(breaker, found)


def _or_raise(breaker: Machine, found: Any) -> Any:
    if found is None:
        raise CircuitOpenError(breaker.name, getattr(breaker, "retry_after", None))
    return found


class BreakerBlock:
    """One use of a breaker as a block: ``with breaker.guard():`` or ``async with breaker.guard():``.

    The block's outcome counts like a function's. A ``timeout`` of the configuration is kept by ``async with`` only.
    """

    __slots__ = ("_breaker", "_era")

    def __init__(self, breaker: Machine) -> None:
        self._breaker = breaker
        self._era: Any = None

    def __enter__(self) -> Self:
        """Ask for admission.

        Raises:
            RejectedError: the block may not run.
            ConfigurationError: the breaker has a ``timeout``, which needs ``async with``.
        """
        if self._breaker.config.timeout is not None:
            raise ConfigurationError(
                "timeout", self._breaker.config.timeout, "a plain block cannot be interrupted", "use async with"
            )
        self._era = enter(self._breaker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count the outcome."""
        era, self._era = self._era, None
        if error is not None:
            era.fail(error)
            return
        era.ok += 1
        if era.dirty:
            era.settle(None)

    async def __aenter__(self) -> Self:
        """Ask for admission, waiting for it if ``overflow="wait"``."""
        self._era = await aenter(self._breaker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count the outcome."""
        self.__exit__(kind, error, trace)


class Permit:
    """An admission in two steps: ask now, tell the outcome later. The first settlement counts, others do nothing.

    Made by ``CircuitBreaker.permit``; ``era`` is what it settles into.

    A permit that is collected without a settlement releases itself: that is a neutral outcome.
    """

    __slots__ = ("_era",)

    def __init__(self, era: Any) -> None:
        self._era = era

    def _take(self) -> Any:
        era, self._era = self._era, None
        return era

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function`` and settle with its outcome."""
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self.failed(error)
            raise
        if result.__class__ is CoroutineType:
            return follow(self._take(), result)
        self.ok(result)
        return result

    def ok(self, result: Any = None) -> None:
        """Count a success; ``result`` is judged by ``bad_result`` if that is set."""
        era = self._take()
        if era is not None:
            era.ok += 1
            if era.dirty:
                era.settle(result)

    def failed(self, error: BaseException) -> None:
        """Count ``error`` as it would be counted if a call had raised it."""
        era = self._take()
        if era is not None:
            era.fail(error)

    def release(self) -> None:
        """Give the permit back unused: a neutral outcome."""
        era = self._take()
        if era is not None:
            era.forgo(None)

    def __del__(self) -> None:
        self.release()
