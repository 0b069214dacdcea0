"""The failures the pool raises: ours by meaning, redis-py's by class, so that code written for either catches them."""

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import TimeoutError as DriverTimeoutError

from isp_perf.errors import MaybeExecutedError, NotSentError

__all__ = [
    "LoginNotSentError",
    "LostMaybeExecutedError",
    "LostNotSentError",
    "TimedOutMaybeExecutedError",
    "TimedOutNotSentError",
]


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
