"""How long to wait before the next attempt: exponential growth, a cap, and jitter.

Pure arithmetic. The random number is handed in, so that tests decide it and callers choose their own source.
Jitter spreads downwards from the computed delay ("full jitter" is a share of 1), because clients that failed together
must not come back together; see Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

__all__ = ["exponential", "full_jitter", "spread_down"]

_LARGEST_ROUND = 1024
"""Exponents are cut here: no cap is that far away, and the power would overflow a float."""


def exponential(base: float, factor: float, maximum: float, /, *, attempt: int) -> float:
    """Return ``min(maximum, base * factor ** attempt)`` seconds, ``attempt`` counted from 0, without overflow."""
    try:
        return min(maximum, base * factor ** min(attempt, _LARGEST_ROUND))
    except OverflowError:
        return maximum


def spread_down(delay: float, share: float, draw: float) -> float:
    """Return ``delay`` less up to ``share`` (0-1) of it, as the random number ``draw`` from [0, 1) says."""
    return delay * (1.0 - share * draw)


def full_jitter(base: float, maximum: float, *, attempt: int, draw: float, factor: float = 2.0) -> float:
    """Return a delay drawn evenly between 0 and the exponential one; ``draw`` is a random number from [0, 1)."""
    return exponential(base, factor, maximum, attempt=attempt) * draw
