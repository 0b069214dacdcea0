"""What a cached function promises: the frozen policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

from isp_perf._core.ranges import one_of, seconds, share
from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.typing import Codec

__all__ = ["CachePolicy", "PolicyOptions", "policy_with"]


class PolicyOptions(TypedDict, total=False):
    """The fields of ``CachePolicy`` as keywords; those not given come from the manager's policy."""

    ttl: float | timedelta
    l1_ttl: float | timedelta | None
    jitter: float
    stale_while_revalidate: float | timedelta
    stale_if_error: float | timedelta
    early_refresh: Literal["off", "xfetch"] | float
    soft_timeout: float | timedelta | None
    hard_timeout: float | timedelta | None
    cache_errors: Mapping[type[BaseException], float]
    cache_none: bool | float
    tags: Sequence[str]
    single_flight: Literal["process", "cluster"]
    max_stale: float | timedelta
    private: bool
    typed: bool
    isolate: Literal["copy", "share"]
    when: Callable[[Any], bool] | None
    codec: "Codec | None"


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
        stale_while_revalidate: seconds after the ttl in which the old value is returned at once while one caller
            refreshes it in the background (RFC 5861). Default 0, range >= 0.
        stale_if_error: seconds after the ttl in which the old value is returned if the load fails (RFC 5861); after a
            failure the next attempt waits min(1 s, ttl/10). Never after an invalidation. Default 0, range >= 0.
        early_refresh: refresh in the background before the end of the ttl: ``"off"`` (default); a share of the ttl
            after which it begins, between 0 and 1; ``"xfetch"``: one random moment per entry, the earlier the longer
            the load took.
        soft_timeout: seconds after which a waiting caller gets a stale value, if one may be returned; the load goes
            on and is stored. Default ``None``: wait. Range >= 0.
        hard_timeout: seconds after which a waiting caller gets ``TimeoutError``; the load goes on only if others
            wait for it. Default ``None``: wait. Range >= 0.
        cache_errors: exception type -> seconds (>= 0) for which such an error is raised again from the local level
            instead of calling the function. Default: none.
        cache_none: ``True`` (default): ``None`` is a value like any other; a number: its own ttl in seconds;
            ``False``: ``None`` is not stored.
        tags: names under which results can be invalidated together; for decorated functions templates with fields, as
            the key, without ``{hash}``. Default: none.
        single_flight: ``"cluster"`` (default): with a remote level, one load for all processes; ``"process"``: one for
            each.
        max_stale: seconds (>= 0) within which every other process notices an invalidation: its local level is served
            only while that can be proved. 0: no local level for this function, each call is proved by the remote one.
            Default 0.1; below 0.01 as 0.01.
        private: the key must name whose data it is: a template without a field is refused. Default ``False``.
        typed: keep arguments apart in templates that Python calls equal, such as 1, ``True`` and 1.0.
            Default ``False``; ``{hash}`` always does.
        isolate: ``"share"`` (default): every caller gets the stored object, so nobody may change it; ``"copy"``: every
            caller gets an object of its own. Immutable values are never copied.
        when: store a result only if this returns true for it; default ``None``: store all. Runs outside every lock.
        codec: how values become bytes for the remote level; default ``None``: msgspec MessagePack, typed by the
            function's return annotation.

    Raises:
        ConfigurationError: a field is out of range.
    """

    ttl: float | timedelta = 300.0
    l1_ttl: float | timedelta | None = None
    jitter: float = 0.0
    stale_while_revalidate: float | timedelta = 0.0
    stale_if_error: float | timedelta = 0.0
    early_refresh: Literal["off", "xfetch"] | float = "off"
    soft_timeout: float | timedelta | None = None
    hard_timeout: float | timedelta | None = None
    cache_errors: Mapping[type[BaseException], float] = field(default_factory=dict[type[BaseException], float])
    cache_none: bool | float = True
    tags: Sequence[str] = ()
    single_flight: Literal["process", "cluster"] = "cluster"
    max_stale: float | timedelta = 0.1
    private: bool = False
    typed: bool = False
    isolate: Literal["copy", "share"] = "share"
    when: Callable[[Any], bool] | None = None
    codec: "Codec | None" = None

    def __post_init__(self) -> None:
        self._take_durations()
        self._check_early()
        if isinstance(self.tags, str):
            raise ConfigurationError("tags", self.tags, "a sequence of texts", f"write tags=({self.tags!r},)")
        object.__setattr__(self, "tags", tuple(self.tags))
        if not isinstance(self.cache_none, bool):
            object.__setattr__(self, "cache_none", seconds("cache_none", self.cache_none, zero=True))
        share("jitter", self.jitter, zero=True)
        one_of("single_flight", self.single_flight, ("cluster", "process"))
        one_of("isolate", self.isolate, ("share", "copy"))
        if self.when is not None and not callable(self.when):
            raise ConfigurationError("when", type(self.when).__name__, "a function of the result", "pass a callable")

    def _take_durations(self) -> None:
        for name in _DURATIONS:
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, seconds(name, given, zero=True))
        for kind, duration in self.cache_errors.items():
            seconds(f"cache_errors[{kind.__name__}]", duration, zero=True)

    def _check_early(self) -> None:
        early: object = self.early_refresh
        if early in {"off", "xfetch"}:
            return
        if isinstance(early, bool) or not isinstance(early, int | float) or not 0 < early < 1:
            raise ConfigurationError(
                "early_refresh", early, '"off", "xfetch" or a share of the ttl between 0 and 1', "pass for example 0.8"
            )

    @property
    def staged(self) -> bool:
        """Whether entries have more ages than fresh and expired."""
        return self.early_refresh != "off" or bool(self.stale_while_revalidate or self.stale_if_error)

    @property
    def stale_seconds(self) -> tuple[float, float]:
        """``stale_while_revalidate`` and ``stale_if_error`` in seconds."""
        return cast("float", self.stale_while_revalidate), cast("float", self.stale_if_error)

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """``soft_timeout`` and ``hard_timeout`` in seconds."""
        return cast("float | None", self.soft_timeout), cast("float | None", self.hard_timeout)

    @property
    def timed(self) -> bool:
        """Whether callers wait with a limit."""
        return self.soft_timeout is not None or self.hard_timeout is not None

    @property
    def bound(self) -> float:
        """``max_stale`` in seconds."""
        return cast("float", self.max_stale)

    @property
    def fresh(self) -> float:
        """The ttl in seconds."""
        return cast("float", self.ttl)

    @property
    def local(self) -> float | None:
        """The local ttl in seconds, ``None`` if there is no own one."""
        return cast("float | None", self.l1_ttl)

    @property
    def steady(self) -> float | None:
        """The local ttl in seconds if it is the same for every value, otherwise ``None``."""
        if self.jitter or not isinstance(self.cache_none, bool):
            return None
        return self.fresh if self.local is None else min(self.fresh, self.local)


_DURATIONS = ("ttl", "l1_ttl", "stale_while_revalidate", "stale_if_error", "soft_timeout", "hard_timeout", "max_stale")
_FIELDS = frozenset(each.name for each in fields(CachePolicy))


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
