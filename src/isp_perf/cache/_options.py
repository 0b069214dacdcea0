"""What a manager is built from: the keywords of ``CacheManager``, checked in one place."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, cast

from isp_perf._core.ranges import one_of, whole
from isp_perf.cache._config import CachePolicy, PolicyOptions
from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.typing import Clock, Observer, RemoteLevel

__all__ = ["ROOM", "ManagerOptions", "check_options", "check_secret", "options_for"]

ROOM: Final = 10_000
_SHORTEST_SECRET: Final = 16


class ManagerOptions(TypedDict, total=False):
    """The keywords of ``CacheManager``."""

    redis: "RemoteLevel | str | None"
    namespace: str
    schema: int | str
    max_entries: int
    max_bytes: int | None
    l1: MutableMapping[Any, Any] | None
    policy: CachePolicy
    secret: bytes | Sequence[bytes] | None
    after_outage: Literal["flush", "trust"]
    clock: "Clock"
    observer: "Observer | None"


def check_options(options: Mapping[str, object]) -> None:
    """Raise ``ConfigurationError`` for a setting out of range, or one that does not exist."""
    if unknown := set(options) - ManagerOptions.__optional_keys__:
        raise ConfigurationError(
            min(unknown), "given", "no setting of CacheManager", f"use {sorted(ManagerOptions.__optional_keys__)}"
        )
    whole("max_entries", options.get("max_entries", ROOM))
    if options.get("max_bytes") is not None:
        whole("max_bytes", options["max_bytes"])
    one_of("after_outage", options.get("after_outage", "flush"), ("flush", "trust"))
    for setting, check in _CHECKS.items():
        if options.get(setting) is not None:
            check(options[setting])
    if not callable(options.get("clock", monotonic)):
        raise ConfigurationError("clock", options["clock"], "a function that returns seconds", "pass time.monotonic")


def _check_namespace(namespace: object) -> None:
    if not isinstance(namespace, str) or not namespace or ":" in namespace:
        raise ConfigurationError("namespace", namespace, "a text without a colon, not empty", 'pass for example "isp"')


def _check_l1(level: object) -> None:
    kind = type(level)
    if not issubclass(kind, MutableMapping) or not hasattr(level, "maxsize"):
        raise ConfigurationError(
            "l1", kind.__name__, "a cache of the cachetools package", "pass for example LRUCache(1000)"
        )


def check_secret(secret: object) -> None:
    """Raise ``ConfigurationError`` unless ``secret`` is one key, or several; no part of it enters the message."""
    parts = list(cast("Sequence[object]", secret)) if isinstance(secret, list | tuple) else [secret]
    if not parts or not all(isinstance(part, bytes) and len(part) >= _SHORTEST_SECRET for part in parts):
        raise ConfigurationError(
            "secret", "(hidden)", "bytes of 16 or more, or a sequence of such", "pass secrets.token_bytes(32)"
        )


def _check_observer(observer: object) -> None:
    if not callable(getattr(observer, "event", None)):
        raise ConfigurationError(
            "observer",
            type(observer).__name__,
            "an object with event(name, attributes)",
            "see isp_perf.typing.Observer",
        )


_CHECKS: Final[Mapping[str, Callable[[object], None]]] = {
    "namespace": _check_namespace,
    "l1": _check_l1,
    "secret": check_secret,
    "observer": _check_observer,
}


def options_for(ttl: float | None, tags: Sequence[str] = ()) -> PolicyOptions:
    """Return what ``set`` was told as fields of a policy."""
    options: PolicyOptions = {}
    if ttl is not None:
        options["ttl"] = ttl
    if tags:
        options["tags"] = tags
    return options
