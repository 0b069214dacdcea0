"""Half-open arithmetic: who may probe, and when the probes have decided.

Exactly ``limit`` calls are admitted per round. A neutral outcome hands its permit back; a permit whose lease has run
out belongs to a hung call and counts as a failed probe (lending another one instead would feed a hung service one more
call per lease). The round is decided as early as it can be.
"""

from math import ceil

__all__ = ["CLOSE", "OPEN", "UNDECIDED", "Probes"]

UNDECIDED = 0
CLOSE = 1
OPEN = 2


class Probes:
    """One round of probes.

    Args:
        limit: probes per round (>= 1).
        lease: seconds a probe may take before it counts as failed.
        failure_ratio: the share of failed probes that re-opens; ``None``: the first one does.
        slow_ratio: the share of slow probes that re-opens; ``None``: slowness does not matter.
    """

    __slots__ = ("lease", "limit", "lost", "lost_limit", "out", "serial", "slow", "slow_limit", "won")

    def __init__(
        self, limit: int, lease: float, *, failure_ratio: float | None = None, slow_ratio: float | None = None
    ) -> None:
        self.limit = limit
        self.lease = lease
        self.lost_limit = 1 if failure_ratio is None else smallest_reaching(failure_ratio, limit)
        self.slow_limit = limit + 1 if slow_ratio is None else smallest_reaching(slow_ratio, limit)
        self.out: dict[int, float] = {}
        self.serial = 0
        self.won = 0
        self.lost = 0
        self.slow = 0

    def lend(self, now: float) -> int:
        """Return the token of a new permit, or 0 if every probe of this round is out or answered."""
        if len(self.out) + self.won + self.lost >= self.limit:
            return 0
        self.serial += 1
        self.out[self.serial] = now + self.lease
        return self.serial

    def hand_back(self, token: int) -> bool:
        """Take a permit back unused (a neutral outcome); false if it is not out any more."""
        return self.out.pop(token, None) is not None

    def settle(self, token: int, *, failed: bool, slow: bool) -> int | None:
        """Count an answered probe; the verdict, or ``None`` if the permit is not out any more."""
        if self.out.pop(token, None) is None:
            return None
        if failed:
            self.lost += 1
        else:
            self.won += 1
        self.slow += slow
        return self.verdict()

    def expire(self, now: float) -> int:
        """Count every permit whose lease is over as a failed probe; the verdict after that."""
        hung = [token for token, end in self.out.items() if now >= end]
        for token in hung:
            del self.out[token]
        self.lost += len(hung)
        return self.verdict() if hung else UNDECIDED

    def next_expiry(self) -> float | None:
        """Return the instant at which the first outstanding lease ends; ``None`` if no permit is out."""
        return next(iter(self.out.values()), None)

    def verdict(self) -> int:
        """Return ``OPEN`` once too many probes failed, ``CLOSE`` once that has become impossible."""
        if self.lost >= self.lost_limit or self.slow >= self.slow_limit:
            return OPEN
        left = self.limit - self.won - self.lost
        if self.lost + left < self.lost_limit and self.slow + left < self.slow_limit:
            return CLOSE
        return UNDECIDED


def smallest_reaching(ratio: float, limit: int) -> int:
    """Return the smallest count whose share of ``limit`` is at least ``ratio`` (above 0 up to 1)."""
    count = ceil(ratio * limit)
    # The product may be rounded to either side of a whole number.
    if (count - 1) / limit >= ratio:
        return count - 1
    return count if count / limit >= ratio else count + 1
