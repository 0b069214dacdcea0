"""What compressing will cost, predicted before it is done: the choice of coding, level and place.

The model is a table of speeds (bytes per microsecond) per coding and level. Real timings correct it slowly and within
limits, so that one hiccup of the machine cannot turn the policy. No clock in here: timings are handed in.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = [
    "BEST_LEVELS",
    "FASTEST",
    "FAST_LEVELS",
    "LEVELS",
    "OBSERVED_FROM",
    "Choice",
    "CostModel",
    "LoadSteps",
    "level_for",
]

Recipe = tuple[str, int]

LEVELS: Final[Mapping[str, int]] = {"br": 4, "zstd": 3, "gzip": 6, "deflate": 6}
"""The level of each coding for ordinary bodies."""
FAST_LEVELS: Final[Mapping[str, int]] = {"br": 1, "zstd": 1, "gzip": 1, "deflate": 1}
"""The level of each coding when time counts more than bytes."""

BEST_LEVELS: Final[Mapping[str, int]] = {"br": 11, "zstd": 19, "gzip": 9, "deflate": 9}
"""The level of each coding when only bytes count: for variants that are kept."""

_SMALL_BODY = 4096  # below it, brotli 5 costs as much as 4 and is some 3 % smaller
_SMALL_BROTLI = 5
OBSERVED_FROM: Final = 8192
"""Bytes from which a timing teaches: smaller bodies measure the set-up, not the speed."""
_WEIGHT = 0.1
_LEEWAY = 4.0
_DEFAULT_RATE = 50.0
_ZSTD_FIRST = 2
FASTEST: Final = 3
"""The last load step: whatever is fastest."""


class Choice(NamedTuple):
    """One decision: the coding, its level, and whether to run it on the event loop."""

    coding: str
    level: int
    inline: bool


def level_for(coding: str, size: int, step: int) -> int:
    """Return the level for a body of ``size`` bytes at load step ``step``."""
    if step >= FASTEST:
        return FAST_LEVELS[coding]
    if coding == "br" and step == 0 and size < _SMALL_BODY:
        return _SMALL_BROTLI
    return LEVELS[coding]


class CostModel:
    """Speeds per coding and level: shipped figures, corrected by what is measured.

    Args:
        shipped: bytes per microsecond by (coding, level).
    """

    __slots__ = ("_here", "_rates", "_shipped")

    def __init__(self, shipped: Mapping[Recipe, float]) -> None:
        self._shipped = dict(shipped)
        self._rates = dict(shipped)
        self._here = {recipe: Choice(*recipe, inline=True) for recipe in shipped}

    def predict(self, coding: str, level: int, size: int) -> float:
        """Return the predicted time for ``size`` bytes, in microseconds."""
        return size / self._rates.get((coding, level), _DEFAULT_RATE)

    def observe(self, choice: Choice, size: int, seconds: float) -> None:
        """Learn from one timing; small bodies and impossible times are ignored, the rest is clipped to 4x."""
        if size < OBSERVED_FROM or seconds <= 0:
            return
        recipe = (choice.coding, choice.level)
        shipped = self._shipped.get(recipe)
        if shipped is None:
            return
        rate = size / (seconds * 1e6)
        mixed = self._rates[recipe] + _WEIGHT * (rate - self._rates[recipe])
        self._rates[recipe] = min(max(mixed, shipped / _LEEWAY), shipped * _LEEWAY)

    def choose(self, candidates: Sequence[str], size: int, *, budget_us: float, step: int) -> Choice:
        """Choose among codings that the client likes equally (at least one).

        The first, in order, that fits into the budget runs inline. If none fits, the first one runs elsewhere. Load
        steps 2 and 3 change the order: zstd first, then whatever is fastest.
        """
        order = self._ordered(candidates, size, step) if step >= _ZSTD_FIRST else candidates
        rates = self._rates
        for coding in order:
            recipe = (coding, level_for(coding, size, step))
            if size <= budget_us * rates.get(recipe, _DEFAULT_RATE):
                return self._here.get(recipe) or Choice(*recipe, inline=True)
        return Choice(order[0], level_for(order[0], size, step), inline=False)

    def _ordered(self, candidates: Sequence[str], size: int, step: int) -> list[str]:
        if step >= FASTEST:
            return sorted(candidates, key=lambda coding: self.predict(coding, FAST_LEVELS[coding], size))
        return sorted(candidates, key=lambda coding: coding != "zstd")


class LoadSteps:
    """How far compression has stepped down because its threads cannot follow, with hysteresis.

    Step 0 is normal, 1 leaves brotli 5 out, 2 prefers zstd, 3 takes what is fastest. A step is taken when the load
    passes its limit, and given back when the load has fallen below half of that limit.

    Args:
        fixed: never move from this step; ``None`` follows the load.
    """

    __slots__ = ("_fixed", "moves", "step")
    _LIMITS: Final = (1.0, 2.0, 4.0)

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed is not None
        self.step = fixed or 0
        self.moves = 0

    def update(self, load: float) -> int:
        """Take note of the load (jobs waiting per thread, or the wait in units of 10 ms) and return the step."""
        if self._fixed:
            return self.step
        if self.step < FASTEST and load > self._LIMITS[self.step]:
            self.step += 1
            self.moves += 1
        elif self.step > 0 and load < self._LIMITS[self.step - 1] / 2:
            self.step -= 1
            self.moves += 1
        return self.step
