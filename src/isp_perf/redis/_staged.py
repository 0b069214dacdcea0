"""What pipelines of both colours share: what a transaction's answers mean, and which failure is raised first."""

from collections.abc import Callable
from typing import Any

from redis.client import EMPTY_RESPONSE
from redis.exceptions import ExecAbortError, ResponseError, WatchError

from isp_perf.errors import RemoteError
from isp_perf.redis._sender import Staged

__all__ = ["has_error", "raise_lost", "unit_commands", "unit_replies"]


def has_error(replies: list[Any]) -> bool:
    """Return whether there is an exception among replies."""
    return any(issubclass(kind, Exception) for kind in set(map(type, replies)))


def raise_lost(replies: list[Any]) -> None:
    """Raise the first failure among replies that is no answer of the server."""
    lost = next((reply for reply in replies if isinstance(reply, RemoteError)), None)
    if lost is not None:
        raise lost


def unit_commands(stack: list[Staged]) -> list[tuple[Any, ...]]:
    """Return what is sent for a transaction: MULTI, those commands that redis-py sends at all, EXEC."""
    return [("MULTI",), *(args for args, options in stack if EMPTY_RESPONSE not in options), ("EXEC",)]


def unit_replies(
    stack: list[Staged], answers: list[Any], annotate: Callable[[Exception, int, tuple[Any, ...]], None]
) -> list[Any]:
    """Return the raw replies of a transaction's commands, errors in their places, or raise what EXEC says."""
    first, *queued, outcome = answers
    errors: list[tuple[int, Any]] = [(0, first)] if isinstance(first, ResponseError) else []
    told = iter(queued)
    for i, (args, options) in enumerate(stack):
        if EMPTY_RESPONSE in options:
            errors.append((i, options[EMPTY_RESPONSE]))
            continue
        answer = next(told)
        if isinstance(answer, ResponseError):
            annotate(answer, i + 1, args)
            errors.append((i, answer))
    replies = _executed(outcome, errors)
    for position, error in errors:
        replies.insert(position, error)
    return replies


def _executed(outcome: Any, errors: list[tuple[int, Any]]) -> list[Any]:
    """Return what EXEC answered, or raise what it says."""
    if isinstance(outcome, ExecAbortError) and errors:
        raise errors[0][1] from outcome
    if isinstance(outcome, Exception):
        raise outcome
    if outcome is None:
        raise WatchError("Watched variable changed.")
    return list(outcome)
