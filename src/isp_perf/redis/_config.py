"""Settings of the pool: where the server is and how patient to be, checked completely when they are made."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from isp_perf._core.ranges import one_of, seconds, whole
from isp_perf.errors import ConfigurationError

__all__ = ["Address", "RedisSettings", "RetryPolicy", "Target"]

_SCHEMES = ("redis", "rediss", "unix")
_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379
_MOST_SENTINEL_PARTS = 2  # service and database
_OPTIONS = re.compile(r"db|client_name|ssl_(keyfile|certfile|cert_reqs|ca_(certs|data|path)|check_hostname|password)")
_URL_FIX = 'write "redis://[user:password@]host:port/db", "rediss://..." for TLS or "unix:///path?db=0"'
_LIST_FIX = 'write "host:port,host:port", with "user:password@" or "rediss://" in front if needed'


def _mask(text: str) -> str:
    """Return a URL or node list without user, password and other secrets."""
    head, at, tail = text.rpartition("@")
    if at:
        scheme, slashes, _ = head.partition("//")
        text = f"{scheme}{slashes}***@{tail}" if slashes else f"***@{tail}"
    return re.sub(r"(password=)[^&]*", r"\1***", text)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a call is repeated when that is safe, and how often a lost server is tried again.

    Args:
        attempts: most repetitions of one call, 0-100 (default 3); all of them within the call's own ``timeout``.
        base: ceiling of the first wait in seconds, above 0 (default 0.01); it doubles with each attempt.
        maximum: ceiling of every wait in seconds, from ``base`` on (default 1.0). Waits are drawn with full jitter.

    Raises:
        ConfigurationError: a number outside its range.
    """

    attempts: int = 3
    base: float = 0.01
    maximum: float = 1.0

    def __post_init__(self) -> None:
        whole("retry.attempts", self.attempts, least=0, most=100)
        seconds("retry.base", self.base)
        if seconds("retry.maximum", self.maximum) < self.base:
            raise ConfigurationError("retry.maximum", self.maximum, "must be at least retry.base", "raise it")


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of one server."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL or a list of nodes says, taken apart; it holds the password, so it is never printed."""

    kind: Literal["single", "cluster", "sentinel"]
    addresses: tuple[Address, ...] = ()
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    db: int = 0
    service: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RedisSettings:
    """Where Redis is, and how the pool treats it. Without ``url``, ``nodes`` and ``sentinel`` the pool is disabled.

    Args:
        url: one server: ``redis://[user:password@]host:port/db``, ``rediss://`` for TLS, ``unix:///path?db=0``. Query
            options: ``db``, ``client_name`` and redis-py's ``ssl_*``.
        nodes: seed nodes of a cluster, ``"a:6379,b:6379"`` or a sequence of ``"host:port"``; ``user:password@`` and
            ``rediss://`` may stand in front of the first one.
        sentinel: sentinels and the service they watch: ``"s1:26379,s2:26379/mymaster"``, optionally ``/db`` after it;
            ``user:password@`` in front is for the server, not for the sentinels.
        max_connections: most connections of the dedicated lane (blocking commands, WATCH, pub/sub) for one event
            loop, and of the blocking client; 1-10,000 (default 30).
        socket_keepalive: TCP keep-alive on every connection (default on).
        health_check_interval: seconds of silence after which a connection is checked with a PING; 0 switches the
            check off (default 30).
        connect_timeout: seconds for DNS, connect, TLS and handshake together, above 0 (default 0.25).
        timeout: seconds for a whole call: waiting, connecting, sending, answer and retries, above 0 (default 1.0).
        in_flight: most commands on one link without an answer, 1-1,000,000 (default 10,000).
        overflow: above ``in_flight``, ``"wait"`` queues callers in order within their timeout (default), ``"error"``
            raises ``PoolBusyError`` at once.
        on_down: what the pool's own methods do while the server cannot be reached: ``"raise"`` (default) raises
            ``NotSentError``; ``"miss"`` answers reads as absent and writes as not stored.
        coalesce: concurrent GETs of one tick become one MGET, and each key is asked once (default off). Meant for
            caches: a key of a wrong type answers as absent.
        protocol: RESP version, 3 (default) or 2.
        retry: a ``RetryPolicy``.

    Raises:
        ConfigurationError: a setting outside its range, a malformed URL, or more than one of url, nodes, sentinel.
    """

    url: str | None = None
    nodes: str | Sequence[str] | None = None
    sentinel: str | None = None
    max_connections: int = 30
    socket_keepalive: bool = True
    health_check_interval: float = 30
    connect_timeout: float = 0.25
    timeout: float = 1.0
    in_flight: int = 10_000
    overflow: Literal["wait", "error"] = "wait"
    on_down: Literal["raise", "miss"] = "raise"
    coalesce: bool = False
    protocol: Literal[2, 3] = 3
    retry: RetryPolicy = RetryPolicy()
    target: Target | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        whole("max_connections", self.max_connections, least=1, most=10_000)
        whole("in_flight", self.in_flight, least=1, most=1_000_000)
        for name in ("connect_timeout", "timeout"):
            object.__setattr__(self, name, seconds(name, getattr(self, name)))
        interval = seconds("health_check_interval", self.health_check_interval, zero=True)
        object.__setattr__(self, "health_check_interval", interval)
        one_of("overflow", self.overflow, ("wait", "error"))
        one_of("on_down", self.on_down, ("raise", "miss"))
        one_of("protocol", self.protocol, (2, 3))
        object.__setattr__(self, "target", self._parse())

    def _parse(self) -> Target | None:
        given = [name for name in ("url", "nodes", "sentinel") if getattr(self, name)]
        if len(given) > 1:
            raise ConfigurationError(
                " and ".join(given), "both set", "exactly one of url, nodes and sentinel may be set", f"drop {given[1]}"
            )
        if self.url:
            return _parse_url(self.url)
        if self.nodes:
            text = self.nodes if isinstance(self.nodes, str) else ",".join(self.nodes)
            return _parse_list("nodes", text, _DEFAULT_PORT)
        if self.sentinel:
            return _parse_list("sentinel", self.sentinel, _DEFAULT_SENTINEL_PORT)
        return None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "RedisSettings":
        """Return settings from REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINELS; an empty variable is an unset one.

        The lists are written like ``nodes`` and ``sentinel``: ``REDIS_CLUSTER_NODES=redis1:6379,redis2:6379``, with
        ``rediss://`` and ``user:password@`` in front of the first node where every node wants them.

        Args:
            environ: the environment to read; default ``os.environ``.

        Raises:
            ConfigurationError: more than one of them is set, or one is malformed; the error names the variable.
        """
        env = os.environ if environ is None else environ
        names = {"url": "REDIS_URL", "nodes": "REDIS_CLUSTER_NODES", "sentinel": "REDIS_SENTINELS"}
        found = {setting: value for setting, name in names.items() if (value := env.get(name, "").strip())}
        try:
            return cls(url=found.get("url"), nodes=found.get("nodes"), sentinel=found.get("sentinel"))
        except ConfigurationError as error:
            setting = " and ".join(names.get(part, part) for part in error.setting.split(" and "))
            raise ConfigurationError(setting, error.value, error.rule, error.fix) from None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; passwords are masked."""
        shown = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "target"}
        for name in ("url", "nodes", "sentinel"):
            if shown[name] is not None:
                shown[name] = _mask(shown[name] if isinstance(shown[name], str) else ",".join(shown[name]))
        return shown | {"retry": asdict(self.retry)}

    def __repr__(self) -> str:
        shown = self.as_dict() | {"retry": self.retry}
        return f"RedisSettings({', '.join(f'{name}={value!r}' for name, value in shown.items() if value is not None)})"


def _parse_url(url: str) -> Target:
    wrong = partial(_wrong_url, url)
    parts, port = _split_url(url, wrong)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(name for name in options if not _OPTIONS.fullmatch(name))
    if unknown:
        raise wrong(f"unknown option {unknown[0]!r} in the URL: only db, client_name and ssl_* may stand there")
    unix = parts.scheme == "unix"
    db = _database(options.pop("db", "" if unix else parts.path.strip("/")), wrong)
    username, password = _login(parts)
    return Target(
        kind="single",
        addresses=() if unix else (Address(unquote(parts.hostname or ""), port),),
        path=unquote(parts.path) if unix else None,
        username=username,
        password=password,
        tls=parts.scheme == "rediss",
        db=db,
        options=options,
    )


def _wrong_url(url: str, rule: str) -> ConfigurationError:
    return ConfigurationError("url", _mask(url), rule, _URL_FIX)


def _split_url(url: str, wrong: Callable[[str], ConfigurationError]) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise wrong("must have a port from 1 to 65535 and a well-formed host") from None
    if parts.scheme not in _SCHEMES:
        raise wrong(f"must start with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise wrong("must have a path" if parts.scheme == "unix" else "must name a host")
    return parts, port


def _database(text: str, wrong: Callable[[str], ConfigurationError]) -> int:
    if text and not text.isdecimal():
        raise wrong("the database must be a whole number")
    return int(text or "0")


def _login(parts: SplitResult) -> tuple[str | None, str | None]:
    username = unquote(parts.username) if parts.username else None
    return username, unquote(parts.password) if parts.password else None


def _parse_list(setting: str, text: str, default_port: int) -> Target:
    wrong = partial(_wrong_list, setting, text)
    scheme, login, hosts, path = _split_list(text)
    if scheme not in ("", "redis", "rediss"):
        raise wrong("may only start with redis:// or rediss://")
    if len(path) > (_MOST_SENTINEL_PARTS if setting == "sentinel" else 0):
        raise wrong("has a path that means nothing here")
    addresses = tuple(_address(item, default_port, wrong) for item in filter(str.strip, hosts.split(",")))
    if not addresses:
        raise wrong("must name at least one host")
    service, db = [*path, "", ""][:2]
    username, password = _login(urlsplit(f"//{login}@host"))
    return Target(
        kind="cluster" if setting == "nodes" else "sentinel",
        addresses=addresses,
        username=username,
        password=password,
        tls=scheme == "rediss",
        db=_database(db, wrong),
        service=service or "mymaster",
    )


def _split_list(text: str) -> tuple[str, str, str, list[str]]:
    """Return scheme, login, hosts and the parts of the path."""
    scheme, _, rest = text.rpartition("://")
    login, _, hosts = rest.rpartition("@")
    hosts, *path = hosts.split("/")
    return scheme, login, hosts, path


def _wrong_list(setting: str, text: str, rule: str) -> ConfigurationError:
    return ConfigurationError(setting, _mask(text), rule, _LIST_FIX)


def _address(text: str, default_port: int, wrong: Callable[[str], ConfigurationError]) -> Address:
    try:
        parts = urlsplit(f"//{text.strip()}")
        port = parts.port or default_port
    except ValueError:
        raise wrong("has a host whose port is not a number from 1 to 65535") from None
    if not parts.hostname:
        raise wrong("has an entry without a host")
    return Address(parts.hostname, port)
