"""The hottest keys, written to a file without their values, and loaded from it when the next process starts."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any, Final, cast
from uuid import UUID

from isp_perf._core.eviction import Entry
from isp_perf._runtime.drive import Failure, adrive, drive
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._report import WarmReport
from isp_perf.cache._scope import fetch
from isp_perf.cache._site import Site
from isp_perf.cache._store import Store
from isp_perf.errors import ConfigurationError

__all__ = ["read_calls", "warm_calls_here", "warm_calls_in_tasks", "write_hottest"]

_FORMAT: Final = 1
_ANY_ERROR: Final = Exception  # a loader may raise anything; the report says what
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})

Progress = Callable[[int, int], None]


def write_hottest(path: str | os.PathLike[str], hottest: Iterable[tuple[Entry, Store]]) -> int:
    """Write the calls behind ``hottest`` to ``path``, readable by the owner only; return how many there are."""
    rows = [row for entry, home in hottest if (row := _row(entry, home)) is not None]
    target = Path(path)
    draft = target.with_name(f"{target.name}.{token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, "calls": rows}, file)
    draft.replace(target)
    return len(rows)


def _row(entry: Entry, home: Store) -> dict[str, Any] | None:
    """Return template and arguments of a call, if both can be written down."""
    site: object = home.owner
    if not isinstance(site, Site):
        return None
    arguments = site.plan.arguments(entry.slot)
    if arguments is None:
        return None
    written = {name: _written(value) for name, value in arguments.items()}
    return None if None in written.values() else {"template": site.template, "arguments": written}


def _written(value: object) -> list[Any] | None:
    if value.__class__ in _SCALARS:
        return [value]
    return [str(value), "uuid"] if value.__class__ is UUID else None


def _read(written: list[Any]) -> Any:
    return written[0] if len(written) == 1 else UUID(written[0])


def read_calls(path: str | os.PathLike[str], engine: Engine) -> list[Call]:
    """Return the calls in ``path`` whose functions exist and still take these arguments.

    Raises:
        ConfigurationError: the file is not one that ``snapshot`` wrote.
        OSError: it cannot be read.
    """
    rows = _rows(Path(path).read_text(encoding="utf-8"), str(path))
    sites = {site.template: site for site in list(engine.sites) if isinstance(site, Site)}
    found = [_call(sites.get(template), arguments) for template, arguments in rows]
    return [call for call in found if call is not None]


def _rows(text: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(text)
        rows = cast("list[Mapping[str, Any]]", content["calls"] if content["format"] == _FORMAT else None)
        return [(str(row["template"]), {name: _read(each) for name, each in row["arguments"].items()}) for row in rows]
    except (ValueError, TypeError, KeyError, LookupError, AttributeError):
        raise ConfigurationError(
            "path", path, "a file that snapshot() wrote", "write one with await manager.snapshot(path)"
        ) from None


def _call(site: Site | None, arguments: dict[str, Any]) -> Call | None:
    try:
        return None if site is None else site.call(site.bound((), arguments))
    except TypeError:  # the function has other parameters now
        return None


@dataclass(slots=True)
class _Loads:
    """What became of the calls so far."""

    total: int
    progress: Progress | None
    started: float = field(default_factory=monotonic)
    done: int = 0
    loaded: list[str] = field(default_factory=list[str])
    failed: dict[str, Exception] = field(default_factory=dict[str, Exception])

    def ended(self, call: Call, outcome: Any) -> None:
        template = cast("Site", call.source).template
        error = outcome.error if outcome.__class__ is Failure else None
        if isinstance(error, Exception):
            self.failed.setdefault(template, error)
        else:
            self.loaded.append(template)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def report(self) -> WarmReport:
        return WarmReport(loaded=tuple(self.loaded), failed=self.failed, seconds=monotonic() - self.started)


def _outcome_here(engine: Engine, call: Call) -> Any:
    try:
        return drive(fetch(engine, call, tasks=False))
    except _ANY_ERROR as error:
        return Failure(error)


def warm_calls_here(engine: Engine, calls: list[Call], progress: Progress | None) -> WarmReport:
    """Make the calls of plain functions in this thread, hottest first."""
    plain = [call for call in calls if not cast("Site", call.source).asynchronous]
    loads = _Loads(len(plain), progress)
    for call in plain:
        loads.ended(call, _outcome_here(engine, call))
    return loads.report()


async def warm_calls_in_tasks(
    engine: Engine, calls: list[Call], progress: Progress | None, *, concurrency: int
) -> WarmReport:
    """Make the calls, ``concurrency`` at a time, hottest first; plain functions in threads."""
    gate = asyncio.Semaphore(concurrency)
    loads = _Loads(len(calls), progress)

    async def make(call: Call) -> None:
        async with gate:
            if cast("Site", call.source).asynchronous:
                try:
                    outcome = await adrive(fetch(engine, call, tasks=True))
                except _ANY_ERROR as error:
                    outcome = Failure(error)
            else:
                outcome = await asyncio.to_thread(_outcome_here, engine, call)
        loads.ended(call, outcome)

    await asyncio.gather(*map(make, calls))
    return loads.report()
