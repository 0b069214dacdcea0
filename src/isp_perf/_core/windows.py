"""What the closed state remembers: three records of recent calls, each with the same two questions.

A record answers "did that failure make it too many?" (``failed``) and takes note of a success (``passed``). Its owner
adds 1 to ``ok`` for every success and calls ``passed`` only while ``dirty`` is true. That split is what makes a
healthy call cheap: while a record holds no failure there is nothing for a success to change, so one integer addition
is all that happens, with no call, no lock and no clock.

- ``Streak``: failures in a row.
- ``CountRing``: the last ``size`` calls, one bit each, in one integer. While the integer is 0 shifting it would not
  change it, so successes skip it altogether.
- ``TimeRing``: the calls of the last ``seconds``, in equal buckets. The successes of a bucket are the difference of
  the running ``ok`` at the bucket's two edges, so that a success pays one comparison of the clock.

Nothing here reads a clock or takes a lock: ``now`` is an argument, the owner brings the lock.
"""

__all__ = ["CountRing", "Streak", "TimeRing"]


class Streak:
    """Failures in a row; a success ends the row.

    Args:
        limit: how many failures in a row are too many (>= 1).
    """

    __slots__ = ("bad", "dirty", "limit", "ok", "streak")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ok = 0
        self.bad = 0
        self.streak = 0
        self.dirty = False

    def passed(self, _now: float = 0.0, /) -> None:
        """End the row: the call that was just added to ``ok`` succeeded."""
        self.streak = 0
        self.dirty = False

    def failed(self, _now: float = 0.0, /) -> bool:
        """Add a failure; true if the row has reached the limit."""
        self.bad += 1
        self.dirty = True
        self.streak = streak = self.streak + 1
        return streak >= self.limit

    def counted(self, _now: float = 0.0, /) -> tuple[int, int]:
        """Return ``(failures that count now, calls they are compared with)``."""
        return self.streak, self.streak


class CountRing:
    """The last ``size`` calls, judged by the share of failures among them.

    Args:
        size: how many calls are remembered (>= 1).
        ratio: the share (0-1] of failures that is too much.
        minimum: with fewer calls than this nothing is judged (1 .. size).
    """

    __slots__ = ("bad", "bits", "dirty", "mask", "minimum", "ok", "ratio", "size")

    def __init__(self, size: int, ratio: float, minimum: int) -> None:
        self.size = size
        self.ratio = ratio
        self.minimum = minimum
        self.mask = (1 << size) - 1
        self.bits = 0
        self.ok = 0
        self.bad = 0
        self.dirty = False

    def passed(self, _now: float = 0.0, /) -> None:
        """Shift in the success that was just added to ``ok``."""
        self.bits = bits = self.bits << 1 & self.mask
        self.dirty = bits != 0

    def failed(self, _now: float = 0.0, /) -> bool:
        """Shift in a failure; true if the share has reached the ratio and enough calls were seen."""
        self.bad += 1
        self.dirty = True
        self.bits = bits = (self.bits << 1 | 1) & self.mask
        seen = self.ok + self.bad
        seen = min(seen, self.size)
        return seen >= self.minimum and bits.bit_count() >= self.ratio * seen

    def counted(self, _now: float = 0.0, /) -> tuple[int, int]:
        """Return ``(failures, calls)`` in the ring."""
        return self.bits.bit_count(), min(self.ok + self.bad, self.size)


class TimeRing:
    """The calls of the last ``seconds``, in ``BUCKETS`` buckets, judged by the share of failures among them.

    Bucket ``k`` is the half-open interval from ``start + k * span`` up to ``start + (k + 1) * span``. The present
    bucket and the ``BUCKETS - 1`` before it count.

    Args:
        seconds: length of the window (> 0).
        ratio: the share (0-1] of failures that is too much.
        minimum: with fewer calls than this nothing is judged (>= 1).
        start: the instant of construction, in the clock that ``now`` comes from.
    """

    BUCKETS = 10

    __slots__ = ("bad", "current", "dirty", "edge", "index", "mark", "minimum", "ok", "older", "ratio", "span", "start")

    def __init__(self, seconds: float, ratio: float, *, minimum: int, start: float) -> None:
        self.span = seconds / self.BUCKETS
        self.ratio = ratio
        self.minimum = minimum
        self.start = start
        self.index = 0
        self.edge = start + self.span
        self.older: list[tuple[int, int]] = []
        self.mark = 0
        self.current = 0
        self.ok = 0
        self.bad = 0
        self.dirty = True

    def passed(self, now: float, /) -> None:
        """Put the success that was just added to ``ok`` into the bucket of ``now``."""
        if now >= self.edge:
            self.roll(now, self.ok - 1)

    def failed(self, now: float, /) -> bool:
        """Add a failure at ``now``; true if the share has reached the ratio and enough calls were seen."""
        if now >= self.edge:
            self.roll(now, self.ok)
        self.bad += 1
        self.current += 1
        failures, seen = self._sums()
        return seen >= self.minimum and failures >= self.ratio * seen

    def counted(self, now: float, /) -> tuple[int, int]:
        """Return ``(failures, calls)`` in the window that ends at ``now``."""
        if now >= self.edge:
            self.roll(now, self.ok)
        return self._sums()

    def roll(self, now: float, ok: int) -> None:
        """Close the present bucket at a running total of ``ok`` successes and open the one that holds ``now``."""
        index = int((now - self.start) / self.span)
        # Division and multiplication round differently; the edges are defined by multiplication.
        while self.start + (index + 1) * self.span <= now:
            index += 1
        while index > self.index and self.start + index * self.span > now:
            index -= 1
        idle = index - self.index - 1
        if idle >= self.BUCKETS - 1:
            self.older = []
        elif idle >= 0:
            closed = [(ok - self.mark, self.current), *((0, 0),) * idle]
            self.older = (self.older + closed)[-(self.BUCKETS - 1) :]
        self.mark = ok
        self.current = 0
        self.index = index
        self.edge = self.start + (index + 1) * self.span

    def _sums(self) -> tuple[int, int]:
        failures = self.current
        seen = self.ok - self.mark + failures
        for passed, failed in self.older:
            failures += failed
            seen += passed + failed
        return failures, seen
