"""Reads from a failure, or from a response, for how long the service asked to be left alone."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

__all__ = ["retry_after"]


def retry_after(outcome: Any) -> float | None:
    """Return the seconds that ``outcome``, an exception or a response, asks to wait; ``None`` if it does not say.

    For ``CircuitConfig(retry_after=...)``. Understands an attribute ``retry_after`` with a number, and the header
    ``Retry-After`` (RFC 9110, 10.2.3: seconds or an HTTP date) on the object itself or on its ``response``, as the
    errors and responses of httpx, requests and aiohttp have it.

    Example:
        >>> class Busy(Exception):
        ...     retry_after = 2.5
        >>> retry_after(Busy())
        2.5
    """
    told = getattr(outcome, "retry_after", None)
    if isinstance(told, int | float) and not isinstance(told, bool):
        return float(told)
    for holder in (outcome, getattr(outcome, "response", None)):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            text = cast("Mapping[str, Any]", headers).get("Retry-After") or cast("Mapping[str, Any]", headers).get(
                "retry-after"
            )
            if text is not None:
                return _read(str(text))
    return None


def _read(text: str) -> float | None:
    """Return the seconds that a header's text means, from now on for a date."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
