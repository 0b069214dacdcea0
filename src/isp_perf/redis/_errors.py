"""The failures the pool raises: ours by meaning, redis-py's by class, so that code written for either catches them."""

from typing import Any

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf.errors import MaybeExecutedError, NotSentError, RejectedError, RemoteError
from isp_perf.redis._entry import LinkLostError, VetoedError

__all__ = [
    "UNEXECUTED",
    "LoginNotSentError",
    "LostMaybeExecutedError",
    "LostNotSentError",
    "TimedOutMaybeExecutedError",
    "TimedOutNotSentError",
    "is_veto",
    "lost_error",
    "settled",
    "vetoed",
]

UNEXECUTED = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
"""Answers by which the server says that it did not execute the command."""


class LostNotSentError(NotSentError, DriverConnectionError):
    """No connection carried the command to the server: it was surely not executed."""


class TimedOutNotSentError(NotSentError, DriverTimeoutError, TimeoutError):
    """The time was over before the command could be sent: it was surely not executed."""


class LostMaybeExecutedError(MaybeExecutedError, DriverConnectionError):
    """The connection was lost after the command was sent and before its answer came."""


class TimedOutMaybeExecutedError(MaybeExecutedError, DriverTimeoutError, TimeoutError):
    """The command was sent, and its answer did not come in time."""


class LoginNotSentError(NotSentError, AuthenticationError):
    """The server refuses user or password: nothing was executed."""


def lost_error(name: str, node: str, lost: LinkLostError, *, elapsed: float) -> RemoteError:
    """Return the public error for an entry that got no reply; it names command, node, phase and time, nothing else."""
    if isinstance(lost, VetoedError):
        return vetoed(f"{name} on {node}: not sent, rejected by the guard", lost.cause)
    phase = "sent, no answer" if lost.written else "not sent"
    text = f"{name} on {node}: {phase} after {elapsed:.3f} s"
    if lost.timeout:
        text += f" (timeout: {lost.timeout})"
    if lost.written:
        error: RemoteError = (TimedOutMaybeExecutedError if lost.timeout else LostMaybeExecutedError)(text)
    else:
        error = (TimedOutNotSentError if lost.timeout else LostNotSentError)(text, 0.0)
    error.__cause__ = lost.cause
    return error


def is_veto(error: BaseException) -> bool:
    """Return whether a failure is the guard's doing: repeating it at once is of no use."""
    return isinstance(error.__cause__, RejectedError)


def vetoed(text: str, veto: BaseException | None) -> NotSentError:
    error = LostNotSentError(text, getattr(veto, "retry_after", None) or 0.0)
    error.__cause__ = veto
    return error


def settled(error: Any) -> Any:
    """Return ``NotSentError`` for an answer by which the server says that it does not work now, else the argument."""
    if not isinstance(error, UNEXECUTED):
        return error
    refused = LostNotSentError(f"refused by the server: {type(error).__name__}")
    refused.__cause__ = error
    return refused
