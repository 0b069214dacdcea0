"""Every setting of the toolkit in one frozen record, read from the environment; all mistakes reported at once."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from isp_perf.errors import ConfigurationError
from isp_perf.metrics._naming import Naming, checked
from isp_perf.redis import RedisSettings

__all__ = ["Settings", "SettingsError"]

T = TypeVar("T")

_HIDDEN: Final = "***"
_SHORTEST_KEY: Final = 16  # bytes
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_PREFIX: Final = "ISP_PERF_"


class SettingsError(ConfigurationError):
    """One or more settings are wrong; the message has one line for each of them.

    Attributes:
        problems: one ``ConfigurationError`` per wrong setting, with its variable, the value seen, the rule and a fix.
    """

    code = "settings"

    def __init__(self, problems: tuple[ConfigurationError, ...]) -> None:
        names = ", ".join(problem.setting for problem in problems)
        super().__init__(names, len(problems), "wrong settings", "correct each of them")
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([f"{len(self.problems)} wrong settings:", *(f"- {problem}" for problem in self.problems)])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """What a ``Toolkit`` is built from.

    Args:
        redis: where Redis is, and how it is treated; without a server everything works in memory.
        database_url: the application's database, kept here so that one object holds all settings; ``None``: none.
        namespace: first part of every cache key in Redis; default ``"isp"``. Not empty, no colon.
        schema: second part; change it and all old entries are misses; default ``"1"``.
        cache_max_entries: room in the local level of the cache, >= 1; default 10,000.
        cache_ttl: seconds a value is fresh where a function says nothing else, >= 0; default 300.
        cache_audit: share of the cache's hits (0-1) whose loaders are called again, in the background and once a second
            at most, to find values that are no longer true; default 0: none.
        compression: whether responses are compressed; default true.
        compression_minimum_size: bytes from which a body is compressed, >= 0; default 1024.
        ops: path under which the monitoring endpoints stand; default ``"/"``. Starts with a slash.
        secret: keys of 16 or more bytes that seal cached values in Redis: the first one signs, all are accepted;
            default none: damage and mix-ups are found, forgery is not.
        share_circuits: whether the circuits of all processes open, probe and close together over Redis; default false.
        slow_ms: milliseconds (>= 0) from which ``Toolkit.queries`` has a statement logged as slow; default none.
        naming: further names that ``/metrics`` shows the figures under, ``"micrometer"``, ``"resilience4j"`` or both,
            so that published Grafana boards find them; default none.

    Raises:
        SettingsError: a field is out of its range; all of them are named.
    """

    redis: RedisSettings = field(default_factory=RedisSettings)
    database_url: str | None = None
    namespace: str = "isp"
    schema: str = "1"
    cache_max_entries: int = 10_000
    cache_ttl: float = 300.0
    cache_audit: float = 0.0
    compression: bool = True
    compression_minimum_size: int = 1024
    ops: str = "/"
    secret: tuple[bytes, ...] = ()
    share_circuits: bool = False
    slow_ms: float | None = None
    naming: tuple[Naming, ...] = ()

    def __post_init__(self) -> None:
        problems = [problem for check in _CHECKS if (problem := check(self)) is not None]
        if problems:
            raise SettingsError(tuple(problems))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, dotenv: str | None = ".env") -> "Settings":
        """Return the settings of the environment; an empty variable is an unset one.

        The variables are ``REDIS_URL``, ``REDIS_CLUSTER_NODES``, ``REDIS_SENTINELS``, ``DATABASE_URL``, and
        ``ISP_PERF_`` plus ``NAMESPACE``, ``SCHEMA``, ``CACHE_MAX_ENTRIES``, ``CACHE_TTL``, ``CACHE_AUDIT``,
        ``COMPRESSION``, ``COMPRESSION_MINIMUM_SIZE``, ``OPS``, ``SECRET``, ``SHARE_CIRCUITS``, ``SLOW_MS`` and
        ``NAMING``; several keys of ``SECRET`` or names of ``NAMING`` are joined by commas.
        No input makes it raise anything but ``SettingsError``.

        Args:
            environ: the environment; default ``os.environ``.
            dotenv: a file of further variables, read if python-dotenv is installed and no ``environ`` was given; a
                variable of the environment itself comes first. ``None``: no file.

        Raises:
            SettingsError: one or more variables are wrong; all of them are named, no secret is shown.
        """
        if environ is None:
            environ = {**_from_file(dotenv), **os.environ}
        reader = _Reader(environ)
        values = {
            "redis": reader.parsed(lambda: RedisSettings.from_env(environ)),
            "database_url": environ.get("DATABASE_URL", "").strip() or None,
            "namespace": reader.text("NAMESPACE"),
            "schema": reader.text("SCHEMA"),
            "cache_max_entries": reader.number("CACHE_MAX_ENTRIES", int),
            "cache_ttl": reader.number("CACHE_TTL", float),
            "cache_audit": reader.number("CACHE_AUDIT", float),
            "compression": reader.switch("COMPRESSION"),
            "compression_minimum_size": reader.number("COMPRESSION_MINIMUM_SIZE", int),
            "ops": reader.text("OPS"),
            "secret": reader.keys("SECRET"),
            "share_circuits": reader.switch("SHARE_CIRCUITS"),
            "slow_ms": reader.number("SLOW_MS", float),
            "naming": reader.words("NAMING"),
        }
        return reader.built(cls, {name: value for name, value in values.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; passwords are masked."""
        return {
            "redis": self.redis.as_dict(),
            "database_url": None if self.database_url is None else _masked(self.database_url),
            **{name: getattr(self, name) for name in _PLAIN},
            "naming": list(self.naming),
            "secret": _HIDDEN if self.secret else None,
        }

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


_PLAIN: Final = (
    "namespace",
    "schema",
    "cache_max_entries",
    "cache_ttl",
    "cache_audit",
    "compression",
    "compression_minimum_size",
    "ops",
    "share_circuits",
    "slow_ms",
)


class _Reader:
    """Reads variables one by one and keeps every mistake."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[ConfigurationError] = []

    def text(self, name: str) -> str | None:
        """Return a variable; ``None`` if it is unset or empty."""
        return self._environ.get(_PREFIX + name, "").strip() or None

    def parsed(self, parse: Callable[[], T]) -> T | None:
        """Return what ``parse`` returns; keep its mistake and return ``None`` if it refuses."""
        try:
            return parse()
        except ConfigurationError as error:
            self._problems.append(error)
            return None

    def keys(self, name: str) -> tuple[bytes, ...] | None:
        """Return a variable as keys, which commas separate."""
        words = self.words(name)
        return None if words is None else tuple([word.encode() for word in words])

    def words(self, name: str) -> tuple[str, ...] | None:
        """Return a variable as words, which commas separate."""
        text = self.text(name)
        return None if text is None else tuple([part.strip() for part in text.split(",")])

    def number(self, name: str, kind: type[int] | type[float]) -> float | None:
        """Return a variable as a number."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return kind(text)
        except ValueError:
            rule = "a whole number" if kind is int else "a number"
            self._problems.append(ConfigurationError(_PREFIX + name, _short(text), rule, "correct or unset it"))
            return None

    def switch(self, name: str) -> bool | None:
        """Return a variable as true or false."""
        text = self.text(name)
        if text is None:
            return None
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        self._problems.append(ConfigurationError(_PREFIX + name, _short(text), "on or off", "write 1 or 0"))
        return None

    def built(self, kind: type[Settings], values: Mapping[str, Any]) -> Settings:
        """Return the settings, or raise everything that was wrong with variables and values together."""
        try:
            settings = kind(**values)
        except SettingsError as error:
            named = [_as_variable(problem) for problem in error.problems]
            raise SettingsError((*self._problems, *named)) from None
        if self._problems:
            raise SettingsError(tuple(self._problems))
        return settings


def _as_variable(problem: ConfigurationError) -> ConfigurationError:
    return ConfigurationError(_PREFIX + problem.setting.upper(), problem.value, problem.rule, problem.fix)


def _from_file(path: str | None) -> dict[str, str]:
    """Return the variables of a file, if there is one and python-dotenv is installed."""
    if path is None or not Path(path).is_file() or find_spec("dotenv") is None:
        return {}
    found: Mapping[str, str | None] = import_module("dotenv").dotenv_values(path)
    return {name: value for name, value in found.items() if value is not None}


def _short(text: str) -> str:
    """Return a value fit to be printed."""
    limit = 40
    return text if len(text) <= limit else f"{text[:limit]}..."


def _masked(url: str) -> str:
    """Return a URL without its password and query; hide it whole if it cannot be taken apart."""
    try:
        parts = urlsplit(url)
        password, host = parts.password, parts.netloc.rpartition("@")[2]
    except ValueError:
        return _HIDDEN
    if not parts.scheme or not (parts.netloc or parts.path):
        return _HIDDEN
    login = f"{parts.username}:{_HIDDEN}@" if password is not None else parts.netloc.removesuffix(host)
    return urlunsplit((parts.scheme, login + host, parts.path, _HIDDEN if parts.query else "", ""))


def _namespace(settings: Settings) -> ConfigurationError | None:
    if settings.namespace and ":" not in settings.namespace:
        return None
    return ConfigurationError("namespace", _short(settings.namespace), "not empty, no colon", 'write for example "isp"')


def _schema(settings: Settings) -> ConfigurationError | None:
    if settings.schema and ":" not in settings.schema:
        return None
    return ConfigurationError("schema", _short(settings.schema), "not empty, no colon", 'write for example "1"')


def _cache_max_entries(settings: Settings) -> ConfigurationError | None:
    if settings.cache_max_entries >= 1:
        return None
    return ConfigurationError("cache_max_entries", settings.cache_max_entries, "at least 1", "raise it")


def _cache_ttl(settings: Settings) -> ConfigurationError | None:
    if math.isfinite(settings.cache_ttl) and settings.cache_ttl >= 0:
        return None
    return ConfigurationError("cache_ttl", settings.cache_ttl, "seconds >= 0", "write for example 300")


def _cache_audit(settings: Settings) -> ConfigurationError | None:
    if 0 <= settings.cache_audit <= 1:
        return None
    return ConfigurationError("cache_audit", settings.cache_audit, "a share from 0 to 1", "write for example 0.001")


def _compression_minimum_size(settings: Settings) -> ConfigurationError | None:
    if settings.compression_minimum_size >= 0:
        return None
    value = settings.compression_minimum_size
    return ConfigurationError("compression_minimum_size", value, "bytes >= 0", "write for example 1024")


def _ops(settings: Settings) -> ConfigurationError | None:
    if settings.ops.startswith("/"):
        return None
    return ConfigurationError("ops", _short(settings.ops), "a path that starts with a slash", f"write /{settings.ops}")


def _secret(settings: Settings) -> ConfigurationError | None:
    if all(len(key) >= _SHORTEST_KEY for key in settings.secret):
        return None
    return ConfigurationError("secret", "(hidden)", "keys of 16 or more bytes", "write secrets.token_hex(32)")


def _slow_ms(settings: Settings) -> ConfigurationError | None:
    if settings.slow_ms is None or (math.isfinite(settings.slow_ms) and settings.slow_ms >= 0):
        return None
    return ConfigurationError("slow_ms", settings.slow_ms, "milliseconds >= 0", "write for example 200")


def _share_circuits(settings: Settings) -> ConfigurationError | None:
    if not settings.share_circuits or settings.redis.target is not None:
        return None
    return ConfigurationError("share_circuits", value=True, rule="circuits are shared over Redis", fix="set REDIS_URL")


def _naming(settings: Settings) -> ConfigurationError | None:
    try:
        checked(settings.naming)
    except ConfigurationError as error:
        return ConfigurationError("naming", _short(str(error.value)), error.rule, error.fix)
    return None


_CHECKS: Final = (
    _namespace,
    _schema,
    _cache_max_entries,
    _cache_ttl,
    _cache_audit,
    _compression_minimum_size,
    _ops,
    _secret,
    _share_circuits,
    _slow_ms,
    _naming,
)
