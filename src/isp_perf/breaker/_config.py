"""What a circuit breaker is told: one frozen, validated record, and the seed's four ready ones."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from isp_perf._core.backoff import exponential, spread_down
from isp_perf._core.ranges import Seconds, seconds, share, whole
from isp_perf.breaker._outcomes import ErrorSpec, Judge, check_spec
from isp_perf.errors import ConfigurationError

__all__ = [
    "AI_CIRCUIT_CONFIG",
    "DATABASE_CIRCUIT_CONFIG",
    "REDIS_CIRCUIT_CONFIG",
    "WHATSAPP_CIRCUIT_CONFIG",
    "Backoff",
    "CircuitConfig",
    "CountWindow",
    "SlowCall",
    "TimeWindow",
]

DEFAULT_FAILURE_THRESHOLD = 5
_LARGEST_WINDOW = 1_000_000


def _is_a(value: object, kind: Any) -> bool:
    """``isinstance`` for what the type checker already believes: not every caller has one."""
    return isinstance(value, kind)


@dataclass(frozen=True, slots=True)
class CountWindow:
    """Judge the share of failures among the last ``size`` completed calls; neutral outcomes do not enter.

    Attributes:
        size: completed calls that are remembered; 1 .. 1,000,000, default 100.
        failure_ratio: share of failures that opens the circuit; above 0 up to 1, default 0.5, compared with ``>=``.
        minimum_throughput: with fewer remembered calls nothing is judged; 1 .. ``size``, default 10.

    Raises:
        ConfigurationError: a value is out of its range, or ``minimum_throughput > size`` (it could never open).
    """

    size: int = 100
    failure_ratio: float = 0.5
    minimum_throughput: int = 10

    def __post_init__(self) -> None:
        whole("size", self.size, most=_LARGEST_WINDOW)
        share("failure_ratio", self.failure_ratio)
        whole("minimum_throughput", self.minimum_throughput)
        if self.minimum_throughput > self.size:
            raise ConfigurationError(
                "minimum_throughput",
                self.minimum_throughput,
                f"a window of {self.size} calls never holds that many, so the circuit could never open",
                "make it <= size",
            )


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Judge the share of failures among the calls completed in the last ``seconds``, in ten buckets.

    Attributes:
        seconds: length of the window; > 0, default 10.
        failure_ratio: share of failures that opens the circuit; above 0 up to 1, default 0.5, compared with ``>=``.
        minimum_throughput: with fewer calls in the window nothing is judged; >= 1, default 10.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    seconds: Seconds = 10.0
    failure_ratio: float = 0.5
    minimum_throughput: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", seconds("seconds", self.seconds))
        share("failure_ratio", self.failure_ratio)
        whole("minimum_throughput", self.minimum_throughput)


@dataclass(frozen=True, slots=True)
class SlowCall:
    """Open the circuit on slow answers, too.

    The share is taken over the window of the configuration; without a window over the last 10 completed calls, from
    the fifth on. A caller's cancellation after ``duration`` counts as a failure and a slow call: the caller's own
    deadline ran out on a service that does not answer.

    Attributes:
        duration: seconds from which on a call is slow; > 0.
        ratio: share of slow calls that opens the circuit; above 0 up to 1, default 0.5, compared with ``>=``.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    duration: Seconds
    ratio: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "duration", seconds("slow_call.duration", self.duration))
        share("slow_call.ratio", self.ratio)


@dataclass(frozen=True, slots=True)
class Backoff:
    """A duration that grows with every round: ``min(maximum, base * factor ** round)``, less some jitter.

    Attributes:
        base: seconds in round 0; > 0.
        factor: growth from round to round; >= 1, default 2.
        maximum: seconds that are never exceeded; >= ``base``, default 300.
        jitter: share (0-1) of the duration over which it is spread downwards, default 0.1; 1 is "full jitter".

    Raises:
        ConfigurationError: a value is out of its range.
    """

    base: Seconds
    factor: float = 2.0
    maximum: Seconds = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        base, maximum = seconds("base", self.base), seconds("maximum", self.maximum)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "maximum", maximum)
        if not _is_a(self.factor, int | float) or not 1 <= self.factor < float("inf"):
            raise ConfigurationError("factor", self.factor, "must be a number >= 1", "pass e.g. 2.0")
        share("jitter", self.jitter, zero=True)
        if maximum < base:
            raise ConfigurationError("maximum", self.maximum, "must be >= base", "raise it to at least base")

    def duration(self, round_: int, draw: float) -> float:
        """Return the seconds of round ``round_`` (from 0), with ``draw`` a random number from [0, 1)."""
        base, maximum = seconds("base", self.base), seconds("maximum", self.maximum)
        return spread_down(exponential(base, self.factor, maximum, attempt=round_), self.jitter, draw)


def _check_function(setting: str, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(setting, type(value).__name__, "must be a function of one argument", "pass one")


class Always:
    """A function that answers every call with one value."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __call__(self, *_: object, **__: object) -> Any:
        return self._value


@dataclass(frozen=True)
class CircuitConfig:
    """When a circuit opens, for how long, and what counts as a failure. Frozen, validated, equal by value.

    Attributes:
        failure_threshold: failures in a row that open the circuit; >= 1. Default 5, and ``None`` if ``window`` is given
            (giving both is an error).
        window: ``CountWindow`` or ``TimeWindow`` to judge a share of failures instead; default ``None``.
        slow_call: ``SlowCall`` to open on slow answers, too; default ``None``.
        break_duration: seconds the circuit stays open (> 0, or a ``timedelta``), or a ``Backoff`` that grows with every
            opening that no closing came between; default 30.
        probes: calls admitted in one half-open round; >= 1, default 1.
        probe_timeout: seconds after which an unanswered probe is a failed probe; > 0. Default ``None``: ``timeout`` if
            that is set, else as long as the last break.
        overflow: what a call meets while all probes are out: ``"reject"`` (default) or ``"wait"`` for the decision.
        ramp: seconds over which the admitted share grows from 10 to 100 % after the probes passed; >= 0, default 0.
        failure: what counts as a failure: an exception class, a tuple of them, or a predicate; default ``Exception``.
        neutral: exceptions that count neither as failure nor as success, in the same form; default none.
            ``RejectedError``, cancellation, ``GeneratorExit``, ``KeyboardInterrupt`` and ``SystemExit`` always are.
        bad_result: predicate of a returned value; true makes the call a failure (the value is returned all the same).
        retry_after: predicate of an exception or a returned value; a number (> 0) opens the circuit at once for so
            many seconds, ``None`` is no opinion; default none. ``isp_perf.breaker.retry_after`` reads HTTP errors.
        fallback: what a rejected call answers instead of raising: a function of the call's own arguments, or a value.
            ``None`` (default): rejected calls raise ``CircuitOpenError``.
        timeout: seconds after which a call ends with ``TimeoutError``, a failure; > 0, default ``None``. Coroutine
            functions only: a plain function cannot be interrupted.

    Raises:
        ConfigurationError: a value is out of its range, or ``failure_threshold`` and ``window`` are both given.
    """

    failure_threshold: int | None = None
    window: CountWindow | TimeWindow | None = None
    slow_call: SlowCall | None = None
    break_duration: Seconds | Backoff = 30.0
    probes: int = 1
    probe_timeout: Seconds | None = None
    overflow: Literal["reject", "wait"] = "reject"
    ramp: Seconds = 0.0
    failure: ErrorSpec = Exception
    neutral: ErrorSpec = ()
    bad_result: Callable[[Any], object] | None = None
    retry_after: Callable[[Any], float | None] | None = None
    fallback: Any = None
    timeout: Seconds | None = None
    judge: Judge = field(init=False, repr=False, compare=False)
    backoff: Backoff = field(init=False, repr=False, compare=False)
    deadline: float | None = field(init=False, repr=False, compare=False, default=None)
    slow_after: float | None = field(init=False, repr=False, compare=False, default=None)
    stand_in: Callable[..., Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.window is None and self.failure_threshold is None:
            self._settle("failure_threshold", DEFAULT_FAILURE_THRESHOLD)
        if self.failure_threshold is not None:
            whole("failure_threshold", self.failure_threshold)
        self._settle_break()
        whole("probes", self.probes)
        for name in ("probe_timeout", "timeout"):
            if getattr(self, name) is not None:
                self._settle(name, seconds(name, getattr(self, name)))
        self._settle("deadline", self.timeout)
        self._settle("stand_in", self.fallback if callable(self.fallback) else Always(self.fallback))
        if self.slow_call is not None:
            self._settle("slow_after", self.slow_call.duration)
        self._settle("ramp", seconds("ramp", self.ramp, zero=True))
        check_spec("failure", self.failure)
        check_spec("neutral", self.neutral)
        self._settle("judge", Judge(self.failure, self.neutral))

    def _settle_break(self) -> None:
        if isinstance(self.break_duration, Backoff):
            self._settle("backoff", self.break_duration)
            return
        fixed = seconds("break_duration", self.break_duration)
        self._settle("break_duration", fixed)
        self._settle("backoff", Backoff(fixed, 1.0, fixed, 0.0))

    def _settle(self, name: str, value: object) -> None:
        """Write a normalised value; only construction does this."""
        object.__setattr__(self, name, value)

    def _check_kinds(self) -> None:
        if self.window is not None and not _is_a(self.window, CountWindow | TimeWindow):
            raise ConfigurationError("window", self.window, "must be a CountWindow or a TimeWindow", "pass one of them")
        if self.window is not None and self.failure_threshold is not None:
            raise ConfigurationError(
                "failure_threshold",
                self.failure_threshold,
                "a circuit opens on failures in a row or on the share in a window, not on both",
                "leave failure_threshold or window out",
            )
        if self.slow_call is not None and not _is_a(self.slow_call, SlowCall):
            raise ConfigurationError("slow_call", self.slow_call, "must be a SlowCall", "pass SlowCall(seconds, ratio)")
        if self.overflow not in {"reject", "wait"}:
            raise ConfigurationError("overflow", self.overflow, "must be 'reject' or 'wait'", "pass one of the two")
        _check_function("bad_result", self.bad_result)
        _check_function("retry_after", self.retry_after)

    @property
    def plain(self) -> bool:
        """Whether a closed circuit needs neither clock nor result: the cheapest path."""
        return self.slow_call is None and self.timeout is None and self.bad_result is None and self.retry_after is None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with ``changes``. A new ``window`` drops ``failure_threshold``, and the other way round.

        Raises:
            ConfigurationError: a name is no setting, or a value is out of its range.
        """
        known = {item.name for item in fields(self) if item.init}
        for name, value in changes.items():
            if name not in known:
                raise ConfigurationError(name, value, "is no setting of CircuitConfig", f"use {sorted(known)}")
        values = {name: getattr(self, name) for name in known}
        if changes.get("window") is not None:
            values["failure_threshold"] = None
        if changes.get("failure_threshold") is not None:
            values["window"] = None
        return type(self)(**{**values, **changes})

    @classmethod
    def from_env(cls, prefix: str, environ: Mapping[str, str] | None = None) -> Self:
        """Read a configuration from environment variables (or ``environ``); an empty variable is an unset one.

        The variables are ``prefix`` plus ``FAILURE_THRESHOLD``, ``BREAK_DURATION``, ``BACKOFF_FACTOR``,
        ``BACKOFF_MAXIMUM``, ``BACKOFF_JITTER``, ``PROBES``, ``PROBE_TIMEOUT``, ``OVERFLOW``, ``RAMP``, ``TIMEOUT``,
        ``WINDOW_SIZE`` or ``WINDOW_SECONDS``, ``FAILURE_RATIO``, ``MINIMUM_THROUGHPUT``, ``SLOW_CALL_DURATION`` and
        ``SLOW_CALL_RATIO``; an underscore is put after ``prefix`` if it lacks one. Durations are seconds.

        Raises:
            ConfigurationError: a variable is not a number or out of its range; the message names the variable.
        """
        start = prefix if not prefix or prefix.endswith("_") else prefix + "_"
        found = _Variables(start, os.environ if environ is None else environ)
        values: dict[str, Any] = found.numbers(
            failure_threshold=int, probes=int, break_duration=float, probe_timeout=float, ramp=float, timeout=float
        )
        overflow = found.text("overflow")
        if overflow is not None:
            values["overflow"] = overflow
        parts = _parts(found, values.get("break_duration", 30.0))
        return cls(**{**values, **parts})


class _Variables:
    """Environment variables of one prefix."""

    def __init__(self, prefix: str, environ: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._environ = environ

    def text(self, name: str) -> str | None:
        """Return the variable of a setting; ``None`` if unset or empty."""
        return self._environ.get(self._prefix + name.upper(), "").strip() or None

    def numbers(self, **kinds: type[int] | type[float]) -> dict[str, Any]:
        """Return the settings that are set, as numbers."""
        result: dict[str, Any] = {}
        for name, kind in kinds.items():
            text = self.text(name)
            if text is None:
                continue
            try:
                result[name] = kind(text)
            except ValueError:
                raise ConfigurationError(
                    self._prefix + name.upper(), text, f"must be a number ({kind.__name__})", "correct the variable"
                ) from None
        return result


def _parts(found: _Variables, base: float) -> dict[str, Any]:
    """Return window, slow call and backoff as far as their variables are set."""
    result: dict[str, Any] = {}
    judged = found.numbers(failure_ratio=float, minimum_throughput=int)
    size, span = found.numbers(window_size=int), found.numbers(window_seconds=float)
    if size:
        result["window"] = CountWindow(size["window_size"], **judged)
    elif span:
        result["window"] = TimeWindow(span["window_seconds"], **judged)
    elif judged:
        name = next(iter(judged))
        raise ConfigurationError(
            name.upper(), judged[name], "means nothing without a window", "set WINDOW_SIZE or WINDOW_SECONDS"
        )
    slow = found.numbers(slow_call_duration=float, slow_call_ratio=float)
    if slow:
        result["slow_call"] = SlowCall(slow.get("slow_call_duration", 0.0), slow.get("slow_call_ratio", 0.5))
    growth = found.numbers(backoff_factor=float, backoff_maximum=float, backoff_jitter=float)
    if growth:
        grown = {name.removeprefix("backoff_"): value for name, value in growth.items()}
        result["break_duration"] = Backoff(base, **grown)
    return result


WHATSAPP_CIRCUIT_CONFIG = CircuitConfig(failure_threshold=3, break_duration=30.0)
"""For the WhatsApp API: 3 failures in a row open it for 30 s."""

DATABASE_CIRCUIT_CONFIG = CircuitConfig(failure_threshold=5, break_duration=60.0)
"""For PostgreSQL: 5 failures in a row open it for 60 s."""

AI_CIRCUIT_CONFIG = CircuitConfig(failure_threshold=3, break_duration=45.0)
"""For the AI service (Gemini): 3 failures in a row open it for 45 s."""

REDIS_CIRCUIT_CONFIG = CircuitConfig(failure_threshold=3, break_duration=30.0)
"""For Redis: 3 failures in a row open it for 30 s."""
