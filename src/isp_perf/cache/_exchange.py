"""What one call exchanges with the remote level: bytes there, values here; flows for both colours."""

from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any

from isp_perf._core.frames import frame, unframe
from isp_perf._runtime.flights import Flight
from isp_perf.cache._ages import MISSING
from isp_perf.cache._codec import UNTYPED_SHAPE
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._tags import Versions, made_versions, read_tagged

__all__ = ["Flow", "decoded", "keep_remote", "remote_value"]

Flow = Generator[Callable[[], Any], Any, Any]


def remote_value(engine: Engine, call: Call, flight: Flight) -> Flow:
    """Return the remote level's value and the seconds it has left, or ``MISSING``; and the versions of the tags."""
    second, tags = engine.second, tuple(flight.tags)
    if second is None or call.source.local_only:
        return MISSING, {}
    key = call.key()
    ops = engine.ops(tasks=flight.loop is not None)
    data, versions = yield from read_tagged(second, ops, [key], tags=tags)
    result = decoded(engine, call, data[key], versions=versions) if key in data else MISSING
    if result is MISSING and tags:
        versions = yield from made_versions(second, ops, tags, versions=versions, ttl=call.source.policy.fresh)
    return result, versions


def decoded(engine: Engine, call: Call, data: bytes, *, versions: Versions) -> Any:
    """Return the value in ``data`` and the seconds it has left, or ``MISSING`` for anything that is not ours."""
    codec = call.source.codec
    framed = unframe(data, shape=getattr(codec, "shape", UNTYPED_SHAPE))
    if framed is None or any(versions.get(tag) != version for tag, version in framed.tags.items()):
        return MISSING
    rest = min(framed.expires - engine.wall(), call.source.policy.fresh)
    if rest <= 0:
        return MISSING
    with suppress(Exception):  # a codec may raise anything for foreign bytes: that is a miss
        return codec.decode(framed.payload), rest
    return MISSING


def keep_remote(engine: Engine, call: Call, flight: Flight, *, value: Any, ttl: float, versions: Versions) -> Flow:
    """Write the value to the remote level; taken back if the flight is detached meanwhile."""
    if engine.second is None or call.source.local_only or not flight.tags <= versions.keys():
        return  # the last: a tag that was added while loading, and nobody knows its version before the load
    codec = call.source.codec
    shape = getattr(codec, "shape", UNTYPED_SHAPE)
    data = frame(codec.encode(value), shape=shape, expires=engine.wall() + ttl, tags=versions)
    if flight.attached:
        ops = engine.ops(tasks=flight.loop is not None)
        valid = partial(getattr, flight, "attached")
        yield from engine.second.write(ops, call.key(), data, ttl=ttl, valid=valid)
