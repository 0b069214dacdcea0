"""The way to the remote level, imported when there is one: a manager without one never loads what it consists of."""

from isp_perf._runtime.flights import Flight
from isp_perf.cache._claim import Claim
from isp_perf.cache._engine import Call, Engine, Flow

__all__ = ["abandon", "claimed", "given_up", "keep_remote", "kept_locked", "looked_up", "passed"]


def claimed(engine: Engine, call: Call, flight: Flight, *, reload: bool) -> Flow:
    """Return what this load may do; see ``_exchange``."""
    if engine.second is None:
        return Claim()
    from isp_perf.cache import _exchange

    return (yield from _exchange.claimed(engine, call, flight, reload=reload))


def kept_locked(engine: Engine, call: Call, claim: Claim) -> bool:
    """Return whether the local level may keep the value; see ``_filling``."""
    if engine.second is None:
        return True
    from isp_perf.cache import _filling

    return _filling.kept_locked(engine, call, claim)


def keep_remote(engine: Engine, call: Call, flight: Flight, *, claim: Claim, value: object, ttl: float) -> Flow:
    """Fill the lease with ``value``; see ``_filling``."""
    if engine.second is not None:
        from isp_perf.cache import _filling

        yield from _filling.keep_remote(engine, call, flight, claim=claim, value=value, ttl=ttl)


def passed(engine: Engine, call: Call, flight: Flight) -> None:
    """Take note that a value goes to callers past the remote level; see ``_filling``."""
    if engine.second is not None:
        from isp_perf.cache import _filling

        _filling.passed(engine, call, flight)


def given_up(engine: Engine, call: Call, flight: Flight) -> Flow:
    """Give the lease of a load that failed back; see ``_filling``."""
    if engine.second is not None:
        from isp_perf.cache import _filling

        yield from _filling.given_up(engine, call, flight)


def abandon(engine: Engine, call: Call, flight: Flight) -> None:
    """As ``given_up``, in the background; see ``_filling``."""
    if engine.second is not None:
        from isp_perf.cache import _filling

        _filling.abandon(engine, call, flight)


def looked_up(engine: Engine, calls: dict[str, Call], *, tasks: bool) -> Flow:
    """Return what the remote level has of ``calls`` by logical key; see ``_reading``."""
    if engine.second is None:
        return {}
    from isp_perf.cache import _reading

    return (yield from _reading.looked_up(engine, calls, tasks=tasks))
