"""What became of a warm-up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["WarmReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmReport:
    """What ``warm_cache`` did.

    Attributes:
        loaded: names whose values are in the cache now.
        failed: name -> error of those whose loader failed.
        seconds: how long it took.
    """

    loaded: tuple[str, ...] = ()
    failed: Mapping[str, Exception] = field(default_factory=dict[str, Exception])
    seconds: float = 0.0
