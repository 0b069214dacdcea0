"""Counter, gauge, histogram: the objects a program counts with, and their labelled families.

A series is an object with a plain number: ``counter.n += 1`` is one attribute addition, no lock, no call. In CPython
such an addition, whose right side is a constant or a local name, is not interrupted between its load and its store
(the interpreter switches threads at calls and backward jumps), so threads lose no update; CPython does not promise
this, and the race test runs on every supported version. Nothing here takes a lock after a series exists, so counting
from a signal handler, a garbage collector callback or ``__del__`` cannot deadlock.
"""

import logging
import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

from isp_perf._core.histogram import CELLS, LARGEST, cell_of
from isp_perf._core.histogram import quantile as cell_quantile
from isp_perf.errors import ConfigurationError
from isp_perf.metrics._names import clean
from isp_perf.metrics._snapshot import Column, Exemplar, Key, Spec

__all__ = ["OVERFLOW", "Counter", "Family", "Gauge", "Histogram", "LeftOut"]

OVERFLOW = "__overflow__"  # every label of the series that takes what a full family has no room for
_HUGE = 1 << 62  # whole units; keeps sums of user-bounded histograms within 64 bits
_LAST_EXACT = 15  # cells up to here hold one value each
_EXEMPLAR_LIMIT = 128  # characters of all names and values, as OpenMetrics has it
_log = logging.getLogger("isp_perf.metrics")


class Counter:
    """One series that only goes up.

    Attributes:
        n: the count. ``counter.n += 1`` is the fastest way to count, and as good as ``inc``.
    """

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: float = 0

    def inc(self, n: float = 1) -> None:
        """Add ``n`` (>= 0; whole numbers stay exact).

        Raises:
            ConfigurationError: ``n`` is negative or not a number.
        """
        if not n >= 0:
            raise ConfigurationError("n", n, "a counter only goes up", "use a gauge for what also goes down")
        self.n += n

    def read(self) -> float:
        """Return the count."""
        return self.n


class Gauge:
    """One series that goes up and down, or is asked when it is read."""

    __slots__ = ("_function", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self._function: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        """Set the gauge to ``value``; NaN hides the series."""
        self.value = value

    def inc(self, n: float = 1) -> None:
        """Add ``n``."""
        self.value += n

    def dec(self, n: float = 1) -> None:
        """Subtract ``n``."""
        self.value -= n

    def set_function(self, function: Callable[[], float] | None) -> None:
        """Let ``function()`` answer whenever the gauge is read; ``None`` goes back to the value that was set.

        It is called in a thread of its own time, so it must not touch an event loop. If it raises, the series is left
        out of that scrape and ``isp_metrics_errors_total`` counts it.
        """
        self._function = function

    def read(self) -> float:
        """Return the present value."""
        return self.value if self._function is None else float(self._function())


class Histogram:
    """One distribution: counts per cell and an exact sum.

    Values are kept as whole units (nanoseconds where the unit is seconds), so that sums over workers are exact.
    Without bounds of the user's own the cells are log-linear and a quantile is at most 6.25 % off.

    Args:
        spec: bounds and unit of the family.
    """

    __slots__ = ("_bounds", "_exemplars", "_scale", "cells", "total")

    def __init__(self, spec: Spec) -> None:
        self._bounds = spec.bounds
        self._scale = spec.scale
        self._exemplars: dict[int, Exemplar] | None = None
        self.cells: list[int] = [0] * (CELLS if spec.bounds is None else len(spec.bounds) + 1)
        self.total: int = 0

    def observe(self, value: float, *, exemplar: Mapping[str, str] | None = None) -> None:
        """Count one observation.

        Args:
            value: in the family's unit (seconds unless the name says otherwise). Below 0 counts as 0, above the top
                of the layout (73 minutes, 4 TiB) as the top; NaN is not counted.
            exemplar: labels of one example, such as ``{"trace_id": "..."}``, shown in OpenMetrics; 128 characters.

        Raises:
            ConfigurationError: the exemplar is too long.
        """
        if math.isnan(value):
            return
        units = round(min(max(value * self._scale, 0.0), _HUGE))
        self.observe_units(units)
        if exemplar is not None:
            self._remember(units, value, exemplar)

    def observe_units(self, units: int) -> None:
        """Count one observation given in whole units (ns, bytes): what the toolkit's own timers call."""
        if self._bounds is not None:
            self.cells[bisect_left(self._bounds, units)] += 1
            self.total += units
            return
        if not 0 <= units <= LARGEST:
            units = 0 if units < 0 else LARGEST
        if units > _LAST_EXACT:  # the arithmetic of cell_of, written out: a call costs as much as all of it
            shift = units.bit_length() - 4
            cell = (shift << 3) + (units >> shift)
        else:
            cell = units
        self.cells[cell] += 1
        self.total += units

    @property
    def log_linear(self) -> bool:
        """Whether the cells are those of the log-linear layout, not bounds of the user's own."""
        return self._bounds is None

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(list(self.cells))

    @property
    def sum(self) -> float:
        """Sum of the observations in the family's unit."""
        return self.total / self._scale

    def quantile(self, share: float) -> float | None:
        """Return the value below which ``share`` (0-1) of the observations lie, or ``None`` without observations."""
        if self._bounds is not None:
            return None
        found = cell_quantile(list(self.cells), share)
        return None if found is None else found / self._scale

    def read(self) -> list[int]:
        """Return a copy of the cells, followed by the sum in whole units."""
        return [*self.cells, self.total]

    def exemplars(self) -> dict[int, Exemplar]:
        """Return the last exemplar of each cell."""
        return dict(self._exemplars or {})

    def _remember(self, units: int, value: float, exemplar: Mapping[str, str]) -> None:
        labels = {clean(name): clean(text) for name, text in exemplar.items()}
        length = sum(len(name) + len(text) for name, text in labels.items())
        if length > _EXEMPLAR_LIMIT:
            raise ConfigurationError(
                "exemplar", f"{length} characters", f"at most {_EXEMPLAR_LIMIT} characters", "keep only the trace id"
            )
        if self._exemplars is None:
            self._exemplars = {}
        cell = cell_of(units) if self._bounds is None else bisect_left(self._bounds, units)
        self._exemplars[cell] = (labels, value, time.time())


Series = TypeVar("Series", bound=Counter | Gauge | Histogram)


class LeftOut:
    """Leaves a reading that raises out of the scrape, and reports it: ``with LeftOut(name, failed): ...``.

    Args:
        name: the metric or source being read.
        failed: called with ``name`` if the block raised an ``Exception``.
    """

    __slots__ = ("_failed", "_name")

    def __init__(self, name: str, failed: Callable[[str], None]) -> None:
        self._name = name
        self._failed = failed

    def __enter__(self) -> None:
        """Begin the reading."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Report and swallow an ``Exception``; anything stronger goes on."""
        if kind is None or not issubclass(kind, Exception):
            return False
        _log.debug("reading %s failed", self._name, exc_info=error)
        self._failed(self._name)
        return True


def _counts(series: list[Any]) -> list[float]:
    return [one.n for one in series]  # half the time of map(attrgetter("n"), series)


class Family(Generic[Series]):
    """A metric with labels; ``labels(...)`` returns the series to count with.

    Keep the series where it is used often: finding it costs about ten times as much as counting.

    Args:
        spec: name, kind, help, labels.
        create: makes a series.
        limit: series after which new label values share one ``__overflow__`` series.
        overflowed: called with the family's name for each lookup that ended there.
    """

    __slots__ = ("_create", "_limit", "_lock", "_order", "_overflowed", "_series", "_version", "spec")

    spec: Spec

    def __init__(
        self, spec: Spec, create: Callable[[], Series], *, limit: int, overflowed: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self._create = create
        self._limit = limit
        self._overflowed = overflowed
        self._series: dict[Any, Series] = {}
        self._version = 0
        self._order: tuple[int, list[Key], list[Series]] = (0, [], [])
        # Re-entrant: making a series may run the garbage collector, whose callbacks may make another one.
        self._lock = threading.RLock()

    def labels(self, *values: object, **named: object) -> Series:
        """Return the series with these label values, made on first use.

        Args:
            values: label values in the order of the label names; anything but text is written as text.
            named: the same by name. Give all labels one way or the other.

        Raises:
            ConfigurationError: the labels given are not the family's.
        """
        if named:
            values = self._by_name(values, named)
        if len(values) != len(self.spec.labels):
            raise self._mismatch(f"{len(values)} values")
        try:
            return self._series[values]
        except (KeyError, TypeError):
            return self._find(tuple([clean(value) for value in values]))

    def read(self, failed: Callable[[str], None]) -> Column:
        """Return the family's series; a gauge that raises is left out, and ``failed`` hears of it."""
        keys, series = self._ordered()
        if self.spec.kind == "counter":
            return Column(self.spec, keys, _counts(series))
        if self.spec.kind == "histogram":
            return Column(self.spec, keys, [one.read() for one in series])
        values: list[Any] = [math.nan] * len(keys)
        for index, one in enumerate(series):
            with LeftOut(self.spec.name, failed):
                values[index] = one.read()
        return Column(self.spec, keys, values)

    def exemplars(self) -> dict[Key, dict[int, Exemplar]]:
        """Return the exemplars of the family's series, where there are any."""
        keys, series = self._ordered()
        found = {key: one.exemplars() for key, one in zip(keys, series, strict=True) if isinstance(one, Histogram)}
        return {key: cells for key, cells in found.items() if cells}

    def after_fork(self) -> None:
        """Give a forked child a lock that no thread of its parent holds."""
        self._lock = threading.RLock()

    def _by_name(self, values: tuple[object, ...], named: Mapping[str, object]) -> tuple[object, ...]:
        try:
            ordered = tuple([named[name] for name in self.spec.labels])
        except KeyError:
            raise self._mismatch(tuple(named)) from None
        if values or len(named) != len(ordered):
            raise self._mismatch(tuple(named))
        return ordered

    def _find(self, key: Key) -> Series:
        found = self._series.get(key)
        if found is not None:
            return found
        first_overflow = False
        with self._lock:
            if len(self._series) >= self._limit:
                key = (OVERFLOW,) * len(key)
                first_overflow = key not in self._series
            made = self._series.setdefault(key, self._create())
            self._version += 1
        if key and key[0] == OVERFLOW:
            self._overflowed(self.spec.name)
        if first_overflow:
            _log.warning(
                "metric %s has %d series: further label values share one, %s", self.spec.name, self._limit, OVERFLOW
            )
        return made

    def _ordered(self) -> tuple[list[Key], list[Series]]:
        version, keys, series = self._order
        if version != self._version:
            with self._lock:
                version = self._version
                added = list(self._series)[len(keys) :]  # none is ever removed
                keys = sorted([*keys, *added])  # sorting a sorted list with a tail takes little more than a copy
                series = [self._series[key] for key in keys]
                self._order = (version, keys, series)
        return keys, series

    def _mismatch(self, given: object) -> ConfigurationError:
        return ConfigurationError(
            "labels", given, f"{self.spec.name} has the labels {self.spec.labels}", "give each of them once"
        )
