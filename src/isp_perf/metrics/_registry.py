"""The registry: what exists, what may be added, and the reading of everything at once."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from isp_perf.errors import ConfigurationError
from isp_perf.metrics._group import has_siblings
from isp_perf.metrics._instruments import Counter, Family, Gauge, Histogram, LeftOut
from isp_perf.metrics._lag import LoopWatch
from isp_perf.metrics._names import valid_labels, valid_name
from isp_perf.metrics._snapshot import Column, Merge, Readings, Snapshot, Spec, Steady, labelled, without

__all__ = ["ERRORS", "OVERFLOWED", "Exchange", "MetricRegistry", "Scope", "registry"]

Scope: TypeAlias = Literal["all", "worker"]
Source: TypeAlias = Callable[[Readings], None]
Derivation: TypeAlias = Callable[[Snapshot], Iterable[Column]]

OVERFLOWED = Spec(
    "isp_metrics_overflow_total", "counter", "Look-ups of a series that a full metric had no room for.", ("metric",)
)
ERRORS = Spec("isp_metrics_errors_total", "counter", "Readings that failed and were left out of a scrape.", ("metric",))
_SUFFIXES = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_count", "_sum", "_created"), "gauge": ()}
_INTERNAL_LIMIT = 1_000_000
_JOIN_TIMEOUT = 2.0  # seconds a scrape waits for the first meeting with the siblings
_log = logging.getLogger("isp_perf.metrics")
_Series = TypeVar("_Series", bound=Counter | Gauge | Histogram)


class Exchange(Protocol):
    """A place among sibling processes; see ``_workers``."""

    def gather(self) -> Snapshot:
        """Return the totals over all workers."""
        ...

    def publish(self) -> Snapshot:
        """Write this process's figures for its siblings."""
        ...

    def abandon(self) -> None:
        """Let go of what a forked child inherited."""
        ...


class Forked(Protocol):
    """Something that must begin anew in a forked child."""

    def after_fork(self) -> None:
        """Begin anew."""
        ...


class MetricRegistry:
    """Holds metrics and reads them on request; nothing is computed until somebody asks.

    Args:
        limit: series a metric with labels may have (>= 1); further label values share one ``__overflow__`` series.
        shared: give totals over all workers of a server. The default registry does; of one process there can be one.

    Attributes:
        sharing: whether ``share`` has nothing left to do.
        loops: the event loops whose lag is measured.
        overhead_ns: time spent on reading and writing metrics so far, in nanoseconds.
        forked: what else must begin anew in a forked child, held weakly.
    """

    loops: LoopWatch
    overhead_ns: int
    sharing: bool

    def __init__(self, *, limit: int = 1000, shared: bool = False) -> None:
        if limit < 1:
            raise ConfigurationError("limit", limit, "a metric needs at least one series", "pass a number >= 1")
        self.limit = limit
        self._shared = shared
        self.sharing = not shared
        self._exchange: Exchange | None = None
        self.overhead_ns = 0
        self.loops = LoopWatch()
        self.forked: weakref.WeakSet[Forked] = weakref.WeakSet()
        self._joined = threading.Event()
        self._steady = Steady()
        self._baseline: Snapshot | None = None
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._families: dict[str, Family[Any]] = {}
        self._sources: list[Source] = []
        self._derivations: list[Derivation] = []
        self._overflows = self._own(OVERFLOWED)
        self._errors = self._own(ERRORS)
        if shared and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @overload
    def counter(self, name: str, help: str) -> Counter: ...
    @overload
    def counter(self, name: str, help: str, labels: Sequence[str]) -> Family[Counter]: ...
    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter | Family[Counter]:
        """Return the counter ``name``; ``_total`` is appended if it is missing.

        Asking again with the same definition returns the same counter.

        Args:
            name: non-empty UTF-8 text, such as ``jobs_total``; no prefix is added.
            help: one sentence for people.
            labels: label names; without labels the answer is the one series itself.

        Raises:
            ConfigurationError: name or labels are invalid, or another metric has the name.
        """
        full = valid_name(name).removesuffix("_total") + "_total"
        return self._define(Spec(full, "counter", help, valid_labels(labels)), Counter)

    @overload
    def gauge(self, name: str, help: str, *, merge: Merge = "sum") -> Gauge: ...
    @overload
    def gauge(self, name: str, help: str, labels: Sequence[str], *, merge: Merge = "sum") -> Family[Gauge]: ...
    def gauge(self, name: str, help: str, labels: Sequence[str] = (), *, merge: Merge = "sum") -> Gauge | Family[Gauge]:
        """Return the gauge ``name``; see ``counter``.

        Args:
            name: as for ``counter``.
            help: as for ``counter``.
            labels: as for ``counter``.
            merge: how the values of several workers become one: sum, min, max, mean or latest. Dead workers drop out.

        Raises:
            ConfigurationError: as for ``counter``, or ``merge`` is none of the five.
        """
        if merge not in {"sum", "min", "max", "mean", "latest"}:
            raise ConfigurationError("merge", merge, "one of sum, min, max, mean, latest", 'write merge="sum"')
        return self._define(Spec(valid_name(name), "gauge", help, valid_labels(labels), merge), Gauge)

    @overload
    def histogram(
        self, name: str, help: str, *, buckets: Sequence[float] | None = None, whole: bool | None = None
    ) -> Histogram: ...
    @overload
    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float] | None = None,
        whole: bool | None = None,
    ) -> Family[Histogram]: ...
    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] | None = None,
        whole: bool | None = None,
    ) -> Histogram | Family[Histogram]:
        """Return the histogram ``name``; see ``counter``.

        Args:
            name: as for ``counter``.
            help: as for ``counter``.
            labels: as for ``counter``; ``le`` is reserved.
            buckets: inclusive upper bounds in ascending order, ``+Inf`` is implied; ``None`` for log-linear cells
                (320 cells, at most 6.25 % error), shown as one bucket per octave.
            whole: values are whole numbers (bytes, rows) up to 4e12, not seconds up to 73 minutes kept in whole
                nanoseconds; ``None``: whole if the name ends in ``_bytes``.

        Raises:
            ConfigurationError: as for ``counter``, or the buckets do not ascend.
        """
        exact = valid_name(name).endswith("_bytes") if whole is None else whole
        checked = valid_labels(labels, reserved=("le",))
        spec = Spec(valid_name(name), "histogram", help, checked, whole=exact)
        if buckets is not None:
            spec = replace(spec, bounds=_bounds(buckets, spec.scale))
        return self._define(spec, lambda: Histogram(spec))

    def source(self, read: Source, specs: Iterable[Spec]) -> None:
        """Add a function that reads records of others into every snapshot; one that raises is counted and left out.

        Args:
            read: adds its readings.
            specs: the families it uses; their names are taken from now on.
        """
        with self._lock:
            self._reserve_locked(specs)
            self._sources.append(read)

    def derive(self, derive: Derivation, specs: Iterable[Spec]) -> None:
        """Add a function that computes further columns from the totals, after workers were merged.

        Args:
            derive: returns the columns.
            specs: the families it returns; their names are taken from now on.
        """
        with self._lock:
            self._reserve_locked(specs)
            self._derivations.append(derive)

    def local(self) -> Snapshot:
        """Return what this process has counted."""
        began = time.perf_counter_ns()
        readings = Readings()
        for read in list(self._sources):
            with LeftOut(getattr(read, "__name__", "source"), self._failed):
                read(readings)
        columns = readings.columns()
        with self._lock:
            families = list(self._families.items())
        exemplars: dict[str, Any] = {}
        for name, family in families:
            columns[name] = family.read(self._failed)
            if family.spec.kind == "histogram" and (found := family.exemplars()):
                exemplars[name] = found
        snapshot = Snapshot(columns, time.time_ns(), exemplars)
        spent = time.perf_counter_ns() - began
        self.overhead_ns += spent
        if self._baseline is not None:
            snapshot = without(snapshot, self._baseline)
        snapshot.columns = self._steady.columns(snapshot.columns)
        return snapshot

    def share(self) -> None:
        """Join the other workers of this server, in a thread of its own; the first request does this by itself.

        Not at import: a server that loads the application before it forks its workers must not have threads then.
        """
        with self._lock:
            if self.sharing:
                return
            self.sharing = True
            # Imported here and not in the thread: a fork in the middle of an import leaves half a module to the child.
            join = _joiner()
            threading.Thread(target=self._join, args=(join,), name="isp_perf metrics start", daemon=True).start()

    def publish(self) -> None:
        """Write this worker's figures for its siblings now; done once a second and at exit anyway."""
        if self._exchange is not None:
            self._exchange.publish()

    def collect(self, scope: Scope = "all") -> Snapshot:
        """Return the totals over all workers, or of this one (``scope="worker"``), with everything derived.

        May wait up to 50 ms for siblings: call it in a thread, not on an event loop.
        """
        snapshot = self.local() if scope == "worker" else self._gathered()
        columns = dict(snapshot.columns)
        merged = Snapshot(columns, snapshot.time_ns, snapshot.exemplars)
        for derive in list(self._derivations):
            with LeftOut(getattr(derive, "__name__", "derivation"), self._failed):
                columns.update({column.spec.name: column for column in derive(merged)})
        merged.columns = dict(sorted(columns.items()))
        return merged

    def _gathered(self) -> Snapshot:
        self.share()
        if not self._shared:
            return self.local()
        self._joined.wait(_JOIN_TIMEOUT)
        exchange = self._exchange
        return self._labelled() if exchange is None else exchange.gather()

    def _join(self, join: Callable[[Callable[[], Snapshot]], Exchange]) -> None:
        try:
            self._exchange = join(self.local)
        except OSError as error:
            _log.warning("metrics are of this process only, not of all workers: %s", error)
        self._joined.set()

    def _labelled(self) -> Snapshot:
        """Return this process's figures where totals cannot be had: among siblings each series says whose it is."""
        snapshot = self.local()
        return labelled(snapshot, "worker", str(os.getpid())) if has_siblings(os.environ) else snapshot

    def _after_fork(self) -> None:
        """Begin anew in a forked child: what the parent counted is the parent's."""
        self._lock = threading.RLock()
        for one in (*self._families.values(), *self.forked):
            one.after_fork()
        if self._exchange is not None:
            self._exchange.abandon()
        self._exchange = None
        self._joined = threading.Event()
        self.sharing = False
        self._baseline = None
        self._baseline = self.local()

    def _define(self, spec: Spec, create: Callable[[], _Series]) -> _Series | Family[_Series]:
        with self._lock:
            family: Family[_Series] | None = self._families.get(spec.name)
            if family is None or family.spec != spec:
                family = self._new_locked(spec, create)
        return family if spec.labels else family.labels()

    def _reserve_locked(self, specs: Iterable[Spec]) -> None:
        for spec in specs:
            self._names.update(dict.fromkeys(_taken(spec), spec.name))

    def _new_locked(self, spec: Spec, create: Callable[[], _Series]) -> Family[Any]:
        taken = _taken(spec)
        for name in taken:
            if name in self._names:
                raise ConfigurationError(
                    "name",
                    spec.name,
                    f"{self._names[name]} has {name} already, defined otherwise",
                    "choose another name",
                )
        self._names.update(dict.fromkeys(taken, spec.name))
        family = Family(spec, create, limit=self.limit, overflowed=self._overflowed)
        self._families[spec.name] = family
        return family

    def _own(self, spec: Spec) -> Family[Counter]:
        family = Family(spec, Counter, limit=_INTERNAL_LIMIT, overflowed=self._overflowed)
        self._families[spec.name] = family
        self._names[spec.base] = self._names[spec.name] = spec.name
        return family

    def _overflowed(self, name: str) -> None:
        self._overflows.labels(name).n += 1

    def _failed(self, name: str) -> None:
        self._errors.labels(name).n += 1


def _taken(spec: Spec) -> list[str]:
    """Return every name that a family writes."""
    return [spec.base, spec.name, *(spec.base + suffix for suffix in _SUFFIXES[spec.kind])]


def _joiner() -> Callable[[Callable[[], Snapshot]], Exchange]:
    """Return the function that joins the siblings; one that refuses where the system has no file locks (Windows)."""
    try:
        from isp_perf.metrics._workers import join
    except ImportError:
        return _alone
    return join


def _alone(_: Callable[[], Snapshot]) -> Exchange:
    raise OSError("this system has no file locks")


def _bounds(buckets: Sequence[float], scale: int) -> tuple[int, ...]:
    """Return user-given bounds in whole units, without the implied last one."""
    given = [bound for bound in buckets if bound != float("inf")]
    bounds = tuple(round(bound * scale) for bound in given)
    if not bounds or bounds[0] < 0 or any(low >= high for low, high in pairwise(bounds)):
        raise ConfigurationError(
            "buckets", tuple(buckets), "bounds are >= 0 and ascend by at least one unit", "sort them, drop repeats"
        )
    return bounds


registry: MetricRegistry = MetricRegistry(shared=True)
"""The default registry, with totals over all workers."""
