"""Builds redis-py's connection pools from settings: handshake, TLS, ACL and Sentinel discovery stay redis-py's own."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool as AsyncPool
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import SSLConnection as AsyncTLSConnection
from redis.asyncio import UnixDomainSocketConnection as AsyncUnixConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool
from redis.utils import DEFAULT_RESP_VERSION

from isp_perf.redis._config import Address, RedisSettings, Target

__all__ = [
    "async_pool",
    "blocking_pool",
    "bound",
    "close_async",
    "close_blocking",
    "describe",
    "detach",
    "socket_of",
    "sockets",
    "transport_of",
]

# redis-py leaves these constructors without annotations.
_ASYNC_SENTINEL: Any = AsyncSentinel
_ASYNC_SENTINEL_POOL: Any = AsyncSentinelPool
_BLOCKING_POOL: Any = BlockingConnectionPool
_SENTINEL: Any = Sentinel
_SENTINEL_POOL: Any = SentinelConnectionPool

# The only private names of redis-py that are used; a test says so if one of them goes away.
_READER, _WRITER, _SOCKET = "_reader", "_writer", "_sock"
_IDLE, _USED, _ALL = "_available_connections", "_in_use_connections", "_connections"


def transport_of(connection: Any) -> asyncio.Transport:
    """Return the transport of a connected redis-py connection, to be given another protocol."""
    return cast("asyncio.Transport", getattr(connection, _WRITER).transport)


def detach(connection: Any) -> None:
    """Make redis-py's connection forget a transport that was closed by its new owner."""
    setattr(connection, _READER, None)
    setattr(connection, _WRITER, None)


def describe(target: Target, address: Address | None = None) -> str:
    """Return where a connection goes, for messages; never with user or password."""
    if target.path is not None:
        return f"unix:{target.path}"
    if target.kind == "sentinel":
        return f"sentinel:{target.service}"
    where = address or target.addresses[0]
    return f"{where.host}:{where.port}"


def _common(settings: RedisSettings, target: Target) -> dict[str, Any]:
    common: dict[str, Any] = {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "socket_connect_timeout": settings.connect_timeout,
        "health_check_interval": settings.health_check_interval,
        "client_name": target.options.get("client_name"),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if settings.protocol != DEFAULT_RESP_VERSION:  # asked for by name, the default would change redis-py's reply shapes
        common["protocol"] = settings.protocol
    if target.path is None:
        common["socket_keepalive"] = settings.socket_keepalive
    if target.tls:
        common |= {name: value for name, value in target.options.items() if name.startswith("ssl_")}
        if "ssl_check_hostname" in common:
            common["ssl_check_hostname"] = common["ssl_check_hostname"].lower() in {"1", "true", "yes", "on"}
    return common


def _place(target: Target, address: Address | None) -> dict[str, Any]:
    if target.path is not None:
        return {"path": target.path}
    where = address or target.addresses[0]
    return {"host": where.host, "port": where.port}


def async_pool(settings: RedisSettings, target: Target, address: Address | None = None) -> Any:
    """Return redis-py's asyncio pool for one server (``address`` for a node of a cluster). Nothing connects yet.

    Its connections have no read timeout of their own: the caller bounds every wait.
    """
    common = _common(settings, target) | {"retry": AsyncRetry(NoBackoff(), 0)}
    if target.kind == "sentinel":
        hosts = [(item.host, item.port) for item in target.addresses]
        limits = {"socket_timeout": settings.connect_timeout, "socket_connect_timeout": settings.connect_timeout}
        return _ASYNC_SENTINEL_POOL(
            target.service,
            _ASYNC_SENTINEL(hosts, sentinel_kwargs=limits),
            ssl=target.tls,
            socket_timeout=None,
            **common,
        )
    plain: Any = AsyncTLSConnection if target.tls else AsyncConnection
    kind = AsyncUnixConnection if target.path is not None else plain
    return AsyncPool(
        settings.max_connections,
        timeout=settings.timeout,
        connection_class=kind,
        socket_timeout=None,
        **common,
        **_place(target, address),
    )


def blocking_pool(settings: RedisSettings, target: Target, address: Address | None = None) -> Any:
    """Return redis-py's pool for threads for one server. Nothing connects yet."""
    common = _common(settings, target) | {"retry": Retry(NoBackoff(), 0), "socket_timeout": settings.timeout}
    if target.kind == "sentinel":
        hosts = [(item.host, item.port) for item in target.addresses]
        limits = {"socket_timeout": settings.connect_timeout, "socket_connect_timeout": settings.connect_timeout}
        return _SENTINEL_POOL(target.service, _SENTINEL(hosts, sentinel_kwargs=limits), ssl=target.tls, **common)
    plain: Any = SSLConnection if target.tls else Connection
    kind = UnixDomainSocketConnection if target.path is not None else plain
    return _BLOCKING_POOL(
        settings.max_connections, timeout=settings.timeout, connection_class=kind, **common, **_place(target, address)
    )


async def close_async(pool: Any) -> None:
    """Close every connection of an asyncio pool, and those to the sentinels it asks."""
    await pool.disconnect()
    for sentinel in _sentinels(pool):
        await sentinel.aclose()


def close_blocking(pool: Any) -> None:
    """Close every connection of a pool for threads, and those to the sentinels it asks."""
    pool.disconnect()
    for sentinel in _sentinels(pool):
        sentinel.close()


def _sentinels(pool: Any) -> Iterable[Any]:
    return getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())


def sockets(pool: Any) -> tuple[int, int]:
    """Return how many connections of a redis-py pool are open, and how many of those are idle."""
    waiting = getattr(pool, "pool", None)  # the blocking pool for threads keeps its idle connections in a queue
    if waiting is not None:
        return _count_open(getattr(pool, _ALL)), _count_open(waiting.queue)
    idle = _count_open(getattr(pool, _IDLE))
    return idle + _count_open(getattr(pool, _USED)), idle


def _count_open(connections: Iterable[Any]) -> int:
    return sum(_is_open(connection) for connection in list(connections))


def _is_open(connection: Any) -> bool:
    return getattr(connection, _WRITER, None) is not None or getattr(connection, _SOCKET, None) is not None


def socket_of(connection: Any) -> socket.socket:
    """Return the socket of a connected blocking connection."""
    return cast("socket.socket", getattr(connection, _SOCKET))


def bound(connection: Any, seconds: float | None) -> None:
    """Give the socket of a connected blocking connection another timeout (``None``: wait for ever)."""
    getattr(connection, _SOCKET).settimeout(seconds)
