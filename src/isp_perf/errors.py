"""The error hierarchy: what went wrong, whose fault it is, and whether trying again is safe.

::

    PerfError
     +- ConfigurationError(ValueError)     a setting or argument that no state could make right
     +- RejectedError                      the call was not made; ``retry_after`` says when it may be
     |   +- CircuitOpenError
     |   |   +- CircuitIsolatedError       opened by hand
     |   |   +- ProbeLimitError            half-open, every probe is out
     |   +- BulkheadFullError
     |   +- PoolBusyError(TimeoutError)
     +- RemoteError                        the remote level failed; the driver's error is ``__cause__``
     |   +- NotSentError                   surely not executed: safe to repeat
     |   +- MaybeExecutedError             sent, no answer: repeat only what is idempotent
     +- CodecError                         a value that cannot or must not be cached
     +- CacheRecursionError                a loader asked for the key it is loading
     +- QueryBudgetError
     +- NPlusOneError

Errors of user code pass through unwrapped. No message, ``repr`` or log line of this package holds a cached value,
a key with personal data, or a password.
"""

from typing import Any, ClassVar

__all__ = [
    "BulkheadFullError",
    "CacheRecursionError",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "CodecError",
    "ConfigurationError",
    "MaybeExecutedError",
    "NPlusOneError",
    "NotSentError",
    "PerfError",
    "PoolBusyError",
    "ProbeLimitError",
    "QueryBudgetError",
    "RejectedError",
    "RemoteError",
]


class PerfError(Exception):
    """Base of every error this package raises on its own behalf.

    Attributes:
        code: stable identifier of the error class, for logs, alerts and the docs page ``errors.md#<code>``.
    """

    code: ClassVar[str] = "perf-error"


class ConfigurationError(PerfError, ValueError):
    """A setting is wrong, and no later state can make it right.

    Raised at construction, at decoration, or by a call whose argument can never be valid.

    Args:
        setting: name of the setting or parameter, as the user wrote it.
        value: what was given, already safe to print (no secret, no cached value).
        rule: what is allowed.
        fix: what to write instead.
    """

    code = "configuration"

    def __init__(self, setting: str, value: object, rule: str, fix: str) -> None:
        super().__init__(setting, value, rule, fix)
        self.setting = setting
        self.value = value
        self.rule = rule
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.setting}={self.value!r}: {self.rule}; {self.fix}"


class RejectedError(PerfError):
    """The call was not made, because something in front of it said no.

    Args:
        name: the breaker, bulkhead or pool that refused.
        retry_after: seconds (>= 0) until a new call may be let through; ``None`` if unknown.
        cause: class name of the failure behind it; ``None`` if there is none.
    """

    code = "rejected"
    reason: ClassVar[str] = "rejected the call"

    def __init__(self, name: str, retry_after: float | None = None, cause: str | None = None) -> None:
        # The properties read ``args``, which ``__new__`` has set already: where every rejection is counted in
        # nanoseconds, ``CircuitOpenError.__new__(CircuitOpenError, name, retry_after, cause)`` alone makes a whole one.
        super().__init__(name, retry_after, cause)

    @property
    def name(self) -> str:
        """The breaker, bulkhead or pool that refused."""
        return str(self.args[0])

    @property
    def retry_after(self) -> float | None:
        """Seconds (>= 0) until a new call may be let through, at the moment of the rejection; ``None`` if unknown."""
        wait: float | None = (*self.args, None, None)[1]
        return wait

    @property
    def cause(self) -> str | None:
        """Class name of the failure that is behind the rejection; ``None`` if there is none. Never its text."""
        cause: str | None = (*self.args, None, None)[2]
        return cause

    def __str__(self) -> str:
        wait = "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"
        return f"{self.name} {self.reason}{wait}"


class CircuitOpenError(RejectedError):
    """The circuit breaker is open: the service behind it failed too often and is left alone for a while."""

    code = "circuit-open"
    reason = "is open"


class CircuitIsolatedError(CircuitOpenError):
    """The circuit breaker was opened by hand and stays so until it is reset."""

    code = "circuit-isolated"
    reason = "is isolated"


class ProbeLimitError(CircuitOpenError):
    """The circuit breaker is half-open and every probe it may send is already out."""

    code = "probe-limit"
    reason = "is half-open and all of its probes are out"


class BulkheadFullError(RejectedError):
    """All places of the bulkhead are taken, and no place became free within its wait limit."""

    code = "bulkhead-full"
    reason = "is full"


class PoolBusyError(RejectedError, TimeoutError):
    """The Redis pool has as many commands in flight as it may have, and waiting was not allowed or took too long."""

    code = "pool-busy"
    reason = "is busy"

    def __init__(self, name: str, retry_after: float | None = None, cause: str | None = None) -> None:
        super().__init__(name, retry_after, cause)
        # An OSError takes a third argument for a file's name, and drops it.
        self.args: tuple[Any, ...] = (name, retry_after, cause)


class RemoteError(PerfError):
    """The remote level (Redis) could not answer; the driver's own error is ``__cause__``.

    Args:
        message: command, node, phase and elapsed time; never a key or a value.
        retry_after: seconds (>= 0) until another attempt makes sense; ``None`` if unknown.
    """

    code = "remote"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class NotSentError(RemoteError):
    """The command never reached the server, so repeating it is safe."""

    code = "not-sent"


class MaybeExecutedError(RemoteError):
    """The command was sent and its answer was lost: it may have been executed once."""

    code = "maybe-executed"


class CodecError(PerfError):
    """A value cannot be encoded for the cache, or must not be (an ORM instance, a coroutine, a generator)."""

    code = "codec"


class CacheRecursionError(PerfError):
    """A loader asked, directly or through another cached function, for the very key it is loading."""

    code = "cache-recursion"


class _FindingsError(PerfError):
    """Base of the errors that carry what query detection found."""

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message, findings)
        self.message = message
        self.findings = findings

    def __str__(self) -> str:
        return self.message


class QueryBudgetError(_FindingsError):
    """More statements were sent than the query budget allows; ``findings`` says from where."""

    code = "query-budget"


class NPlusOneError(_FindingsError):
    """One statement per object of a list was seen; ``findings`` names the line and the preload to add."""

    code = "n-plus-one"
