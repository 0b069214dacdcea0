"""The families of Redis, read from every ``RedisPool`` that is alive."""

from typing import TYPE_CHECKING

from isp_perf.metrics._snapshot import Readings, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.redis import RedisPool
    from isp_perf.redis._stats import LaneStats

__all__ = ["REDIS"]

_COMMANDS = Spec("isp_redis_commands_total", "counter", "Commands sent.", ("lane",))
_BATCHES = Spec("isp_redis_batches_total", "counter", "Writes that carried those commands.", ("lane",))
_BATCH_SIZE = Spec(
    "isp_redis_batch_size",
    "histogram",
    "Commands per write.",
    ("lane",),
    bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    whole=True,
)
_SAVED = Spec("isp_redis_round_trips_saved_total", "counter", "Commands that shared another's round trip.", ("lane",))
_BYTES = Spec("isp_redis_bytes_total", "counter", "Bytes on the wire.", ("lane", "direction"))
_CONNECTS = Spec("isp_redis_connects_total", "counter", "Attempts to connect.", ("lane", "result"))
_LOST = Spec("isp_redis_lost_links_total", "counter", "Connections that broke.", ("lane",))
_RETRIES = Spec("isp_redis_retries_total", "counter", "Repetitions, by why they were safe.", ("lane", "kind"))
_TIMEOUTS = Spec("isp_redis_timeouts_total", "counter", "Timeouts, by where the time went.", ("lane", "where"))
_CANCELLED = Spec("isp_redis_cancelled_total", "counter", "Commands cancelled before they were sent.", ("lane",))
_DISCARDED = Spec("isp_redis_discarded_replies_total", "counter", "Answers nobody waited for any more.", ("lane",))
_PUSHES = Spec("isp_redis_pushes_total", "counter", "Messages the server sent unasked.", ("lane",))
_CONNECTIONS = Spec(
    "isp_redis_pool_connections", "gauge", "Open sockets; available ones would take a command.", ("state",)
)
_PING = Spec("isp_redis_ping_seconds", "gauge", "Round trip measured last.", merge="max")
_IN_FLIGHT = Spec("isp_redis_in_flight", "gauge", "Commands sent and not yet answered.")
_QUEUED = Spec("isp_redis_queued", "gauge", "Commands waiting to be sent.")


def _read(pool: "RedisPool", readings: Readings) -> None:
    if not pool.enabled:
        return
    stats = pool.stats()
    for name, lane in stats.lanes.items():
        _lane(name, lane, readings)
    readings.add(_IN_FLIGHT, stats.in_flight)
    readings.add(_QUEUED, stats.queued)
    created, available = pool.sockets()
    readings.add(_CONNECTIONS, created, "created")
    readings.add(_CONNECTIONS, available, "available")
    ping = pool.last_ping
    if ping is not None:
        readings.add(_PING, ping)


def _lane(name: str, lane: "LaneStats", readings: Readings) -> None:
    readings.add(_COMMANDS, lane.commands, name)
    readings.add(_BATCHES, lane.batches, name)
    readings.add_histogram(_BATCH_SIZE, lane.batch_sizes, lane.commands, name)
    readings.add(_SAVED, max(0, lane.commands - lane.batches), name)
    readings.add(_BYTES, lane.bytes_in, name, "in")
    readings.add(_BYTES, lane.bytes_out, name, "out")
    readings.add(_CONNECTS, lane.connects, name, "ok")
    readings.add(_CONNECTS, lane.failed_connects, name, "failed")
    readings.add(_LOST, lane.lost_links, name)
    for kind in ("unsent", "read", "refused"):
        readings.add(_RETRIES, getattr(lane, f"retries_{kind}"), name, kind)
    for where in ("queue", "server", "client"):
        readings.add(_TIMEOUTS, getattr(lane, f"timeouts_{where}"), name, where)
    readings.add(_CANCELLED, lane.cancelled_unsent, name)
    readings.add(_DISCARDED, lane.discarded_replies, name)
    readings.add(_PUSHES, lane.pushes, name)


REDIS = Feature(
    "isp_perf.redis._pool",
    "pools",
    read=_read,
    specs=(
        _COMMANDS,
        _BATCHES,
        _BATCH_SIZE,
        _SAVED,
        _BYTES,
        _CONNECTS,
        _LOST,
        _RETRIES,
        _TIMEOUTS,
        _CANCELLED,
        _DISCARDED,
        _PUSHES,
        _CONNECTIONS,
        _PING,
        _IN_FLIGHT,
        _QUEUED,
    ),
)
