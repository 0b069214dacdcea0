"""A clock that moves only when it is told to."""

from isp_perf.errors import ConfigurationError


class ManualClock:
    """A monotonic clock for tests: it stands still until ``advance`` is called.

    Hand it in wherever a ``clock=`` is accepted. With it, expiry is exact: an entry is served up to, and never at or
    after, its last moment.

    Args:
        start: the first reading, in seconds; any finite number.

    Example:
        >>> clock = ManualClock()
        >>> clock.advance(1.5)
        1.5
        >>> clock()
        1.5
    """

    __slots__ = ("_now",)

    def __init__(self, start: float = 0.0) -> None:
        self._now = float(start)

    def __call__(self) -> float:
        """Return the present reading in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move the clock forward by ``seconds`` (>= 0) and return the new reading.

        Raises:
            ConfigurationError: ``seconds`` is negative; a monotonic clock never goes back.
        """
        if not seconds >= 0:
            raise ConfigurationError("seconds", seconds, "a monotonic clock never goes back", "pass a number >= 0")
        self._now += seconds
        return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"
