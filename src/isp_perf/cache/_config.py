"""What a cached function promises: the frozen policy."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from isp_perf._core.durations import seconds
from isp_perf.errors import ConfigurationError
from isp_perf.typing import Codec

__all__ = ["CachePolicy", "PolicyOptions", "policy_with"]


class PolicyOptions(TypedDict, total=False):
    """The fields of ``CachePolicy`` as keywords; those not given come from the manager's policy."""

    ttl: float | timedelta
    l1_ttl: float | timedelta | None
    jitter: float
    cache_none: bool | float
    private: bool
    typed: bool
    when: Callable[[Any], bool] | None
    codec: Codec | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CachePolicy:
    """How long and under which conditions results are kept.

    Every field is also a keyword of ``cached`` and ``get_or_set``. Durations are seconds or ``timedelta``.

    Attributes:
        ttl: seconds a value is fresh, in the remote level and, without ``l1_ttl``, in the local one. Default 300,
            range >= 0; 0 keeps nothing but still merges concurrent loads.
        l1_ttl: seconds in the local level, >= 0; default ``None``: as ``ttl``. Never outlives the remote entry.
        jitter: share of the ttl by which it is shortened at random, so that entries stored together do not expire
            together. Default 0.0, range 0 to 1. It never lengthens.
        cache_none: ``True`` (default): ``None`` is a value like any other; a number: its own ttl in seconds;
            ``False``: ``None`` is not stored.
        private: the key must name whose data it is: a template without a field is refused. Default ``False``.
        typed: keep arguments apart in templates that Python calls equal, such as 1, ``True`` and 1.0.
            Default ``False``; ``{hash}`` always does.
        when: store a result only if this returns true for it; default ``None``: store all. Runs outside every lock.
        codec: how values become bytes for the remote level; default ``None``: msgspec MessagePack, typed by the
            function's return annotation.

    Raises:
        ConfigurationError: a field is out of range.
    """

    ttl: float | timedelta = 300.0
    l1_ttl: float | timedelta | None = None
    jitter: float = 0.0
    cache_none: bool | float = True
    private: bool = False
    typed: bool = False
    when: Callable[[Any], bool] | None = None
    codec: Codec | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ttl", seconds("ttl", self.ttl))
        if self.l1_ttl is not None:
            object.__setattr__(self, "l1_ttl", seconds("l1_ttl", self.l1_ttl))
        if not isinstance(self.cache_none, bool):
            object.__setattr__(self, "cache_none", seconds("cache_none", self.cache_none))
        if isinstance(self.jitter, bool) or not 0 <= self.jitter <= 1:
            raise ConfigurationError("jitter", self.jitter, "a share between 0 and 1", "pass for example 0.1")
        if self.when is not None and not callable(self.when):
            raise ConfigurationError("when", type(self.when).__name__, "a function of the result", "pass a callable")

    @property
    def fresh(self) -> float:
        """The ttl in seconds."""
        return seconds("ttl", self.ttl)

    @property
    def local(self) -> float | None:
        """The local ttl in seconds, ``None`` if there is no own one."""
        return None if self.l1_ttl is None else seconds("l1_ttl", self.l1_ttl)


_FIELDS = frozenset(field.name for field in fields(CachePolicy))


def policy_with(policy: CachePolicy, **options: Unpack[PolicyOptions]) -> CachePolicy:
    """Return ``policy`` with ``options`` in place of its fields.

    Raises:
        ConfigurationError: an option that is no field, or a value out of range.
    """
    for name in options:
        if name not in _FIELDS:
            raise ConfigurationError(
                name, "given", "this is no field of CachePolicy", f"use one of {', '.join(sorted(_FIELDS))}"
            )
    return replace(policy, **options) if options else policy
