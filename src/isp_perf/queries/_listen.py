"""Hears of the writes of other programs and drops what was read from their tables.

A thread with a connection of its own: it needs no event loop of the application, and hears also while that is busy.
Whatever may have been missed counts as written: at the start, after a lost connection, and while there is none.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Engine

from isp_perf.errors import ConfigurationError
from isp_perf.queries._compat import spawned
from isp_perf.queries._targets import engine_of
from isp_perf.queries._triggers import CHANNEL, require_channel
from isp_perf.queries._writes import ALL_TABLES, QueryCacheManager, tag_of, writes_of

__all__ = ["Listening", "listen"]

LOG = logging.getLogger("isp_perf.queries")

_BEAT: Final = 2.0  # seconds without news after which the connection is asked whether it lives
_RETRY: Final = 0.2  # seconds between two attempts to connect
_POLL: Final = 0.002
_EVERY_ERROR: Final = Exception  # whatever a driver raises: the next attempt is the answer


class Listening:
    """What ``listen`` started; also a context manager that stops it.

    Attributes:
        heard: how often a table was told of.
        gaps: how often everything was dropped, the start included.

    Args:
        manager: who is told.
        engine: the database.
        work: hears until it is told to stop, or the connection is lost.
    """

    gaps: int
    heard: int

    def __init__(self, manager: QueryCacheManager, engine: Engine, work: Callable[["Listening", Engine], None]) -> None:
        self.heard = 0
        self.gaps = 0
        self._manager = manager
        self._engine = engine
        self._work = work
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isp_perf listen", daemon=True)
        self._thread.start()

    def goes_on(self) -> bool:
        """Return whether ``stop`` was not called yet."""
        return not self._stop.is_set()

    def wait(self, timeout: float = 5.0) -> bool:
        """Wait until it hears, at most ``timeout`` seconds (>= 0), and return whether it does."""
        return self._ready.wait(timeout)

    def pause(self, seconds: float) -> bool:
        """Wait ``seconds``; return whether to go on."""
        return not self._stop.wait(seconds)

    def stop(self) -> None:
        """Stop hearing, and wait for the thread; calling it again does nothing."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def missed(self) -> None:
        """Drop everything, since anything may have been written."""
        self.gaps += 1
        self._manager.sync.invalidate_tags(ALL_TABLES)

    def began(self) -> None:
        """From here on nothing is missed."""
        self.missed()
        self._ready.set()

    def hear(self, table: str) -> None:
        """Drop what was read from ``table``."""
        self.heard += 1
        self._manager.sync.invalidate_tags(tag_of(table))

    def _run(self) -> None:
        while self.goes_on():
            try:
                self._work(self, self._engine)
            except _EVERY_ERROR as error:
                LOG.warning("the writes of other programs are not heard: %s", type(error).__name__)
            if self.goes_on():
                self._ready.clear()
                self.missed()
                self.pause(_RETRY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.stop()


def listen(manager: QueryCacheManager, engine: Any, *, channel: str = CHANNEL) -> Listening:
    """Drop cached queries when another program writes their tables.

    On PostgreSQL (asyncpg, psycopg) a connection of its own listens for what the triggers of ``invalidation_ddl`` send.
    On SQLite a file is asked every 2 ms whether another connection has committed; since it does not say what, every
    cached query is dropped then, after commits of this process too. A lost connection is opened again every 0.2 s;
    until then, and once more when it is there, everything is dropped.

    Args:
        manager: the ``CacheManager``; with Redis all its processes are told.
        engine: the database; sync or async.
        channel: the name given to ``invalidation_ddl``.

    Returns:
        A handle with ``wait()`` and ``stop()``; a daemon thread works for it.

    Raises:
        ConfigurationError: no way to hear of writes is known for this database or driver; ``channel`` is no plain name.
    """
    require_channel(channel)
    plain = engine_of(engine)
    name, driver = plain.dialect.name, plain.dialect.driver
    if name == "sqlite" and plain.url.database and "memory" not in str(plain.url):
        work: Callable[[Listening, Engine], None] = _poll
    elif name == "postgresql" and plain.dialect.is_async:
        work = _in_loop(channel)
    elif name == "postgresql" and driver == "psycopg":
        work = _by_psycopg(channel)
    else:
        rule = "writes of other programs are heard on PostgreSQL with asyncpg or psycopg, and from SQLite files"
        raise ConfigurationError("engine", f"{name}+{driver}", rule, "use one of these, or a short ttl")
    writes_of(plain, manager)
    return Listening(manager, plain, work)


def _own_connection(engine: Engine) -> Any:
    """Return a connection of the driver that no pool knows, opened as the engine opens its own."""
    connection: Any = engine.pool.recreate().connect()
    driver = connection.driver_connection
    connection.detach()
    return driver


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def _by_psycopg(channel: str) -> Callable[[Listening, Engine], None]:
    def work(listening: Listening, engine: Engine) -> None:
        connection: Any = _own_connection(engine)
        try:
            connection.rollback()
            connection.autocommit = True
            connection.execute(f"LISTEN {channel}")
            listening.began()
            while listening.goes_on():
                for notice in connection.notifies(timeout=0.2):
                    listening.hear(notice.payload)
                    if not listening.goes_on():
                        return
                connection.execute("SELECT 1")
        finally:
            connection.close()

    return work


def _in_loop(channel: str) -> Callable[[Listening, Engine], None]:
    def work(listening: Listening, engine: Engine) -> None:
        asyncio.run(_listen_async(listening, engine, channel))

    return work


async def _listen_async(listening: Listening, engine: Engine, channel: str) -> None:
    opened: list[Any] = []
    await spawned(lambda: opened.append(_own_connection(engine)))
    driver: Any = opened[0]
    try:
        if hasattr(driver, "add_listener"):
            await _by_asyncpg(listening, driver, channel)
        else:
            await _by_async_psycopg(listening, driver, channel)
    finally:
        await asyncio.wait_for(driver.close(), _BEAT)


async def _by_asyncpg(listening: Listening, driver: Any, channel: str) -> None:
    def hear(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
        listening.hear(payload)

    await driver.add_listener(channel, hear)
    listening.began()
    asked = monotonic()
    while listening.goes_on() and not driver.is_closed():
        await asyncio.sleep(0.1)
        if monotonic() - asked >= _BEAT:
            await asyncio.wait_for(driver.execute("SELECT 1"), _BEAT)
            asked = monotonic()


async def _by_async_psycopg(listening: Listening, driver: Any, channel: str) -> None:
    await driver.rollback()
    await driver.set_autocommit(True)
    await driver.execute(f"LISTEN {channel}")
    listening.began()
    while listening.goes_on():
        async for notice in driver.notifies(timeout=0.2):
            listening.hear(notice.payload)
            if not listening.goes_on():
                return
        await asyncio.wait_for(driver.execute("SELECT 1"), _BEAT)


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def _poll(listening: Listening, engine: Engine) -> None:
    """Ask on one connection whether another one has committed."""
    import sqlite3

    connection = sqlite3.connect(str(engine.url.database), timeout=_BEAT)
    try:
        ask = connection.execute
        known = ask("PRAGMA data_version").fetchone()
        listening.began()
        while listening.pause(_POLL):
            now = ask("PRAGMA data_version").fetchone()
            if now != known:
                known = now
                listening.missed()
    finally:
        connection.close()
