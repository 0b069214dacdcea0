"""Concurrent GETs of one event-loop tick become one MGET, and each key is asked once.

Order is kept: collected keys are handed to the link before any other command is queued, so a GET never overtakes a
write of its tick and is never overtaken by one. An idle link is written through without waiting for the tick.
"""

from asyncio import Future, get_running_loop
from typing import Any, cast

from redis.exceptions import NoPermissionError

from isp_perf.redis._client import PipelinedRedis
from isp_perf.redis._entry import Entry
from isp_perf.redis._errors import UNEXECUTED, settled
from isp_perf.redis._lane import RETRYABLE
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack

__all__ = ["CoalescingRedis", "Collector"]

_MOST_KEYS = 512  # of one MGET


class _Fan:
    """Several callers who wait for one key."""

    __slots__ = ("futures",)

    def __init__(self, futures: list["Future[Any]"]) -> None:
        self.futures = futures

    def done(self) -> bool:
        """Return whether nobody waits any more."""
        return all(future.done() for future in self.futures)

    def set_result(self, value: Any, /) -> None:
        """Hand out the value."""
        for future in self.futures:
            if not future.done():
                future.set_result(value)

    def set_exception(self, error: Exception, /) -> None:
        """Tell everybody."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class _Joined:
    """The entry of one MGET: hands each value to whoever asked for its key."""

    __slots__ = ("_collector", "_keys", "_settled", "_waiting")

    def __init__(self, collector: "Collector", keys: list[bytes], waiting: list[Entry]) -> None:
        self._collector = collector
        self._keys = keys
        self._waiting = waiting
        self._settled = False

    def done(self) -> bool:
        """Return whether the reply came; callers who went away were left out when the keys were joined."""
        return self._settled

    def set_result(self, values: Any, /) -> None:
        """Hand out the values."""
        self._settled = True
        for entry, value in zip(self._waiting, values, strict=True):
            if not entry.done():
                entry.set_result(value)

    def set_exception(self, error: Exception, /) -> None:
        """Tell everybody; where MGET is forbidden, ask by GET instead and never again by MGET."""
        self._settled = True
        if isinstance(error, NoPermissionError):
            self._collector.give_up(self._keys, self._waiting)
            return
        for entry in self._waiting:
            if not entry.done():
                entry.set_exception(error)


class Collector:
    """Collects the keys asked for in one tick of a link.

    Args:
        link: the link the MGETs are queued on.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._allowed = True
        self._waiting: dict[bytes, Entry] = {}

    def get(self, key: Any) -> "Future[Any]":
        """Return the future of a key's value."""
        link = self._link
        if isinstance(key, str):
            key = key.encode()
        if type(key) is not bytes or not self._allowed or (link.idle and not self._waiting):
            return link.send(pack(("GET", key)))
        future: Future[Any] = link.loop.create_future()
        waiting = self._waiting.setdefault(key, future)
        if waiting is not future:
            self._share(key, waiting, future)
        elif link.held is None:
            link.held = self.release
            link.schedule()
        return future

    def _share(self, key: bytes, waiting: Entry, future: "Future[Any]") -> None:
        """Let one more caller wait for a key that is asked for already."""
        if isinstance(waiting, _Fan):
            waiting.futures.append(future)
        else:
            self._waiting[key] = _Fan([cast("Future[Any]", waiting), future])

    def release(self) -> None:
        """Queue what was collected; keys nobody waits for any more are not asked."""
        self._link.held = None
        collected, self._waiting = self._waiting, {}
        keys = [key for key, entry in collected.items() if not entry.done()]
        for start in range(0, len(keys), _MOST_KEYS):
            chunk = keys[start : start + _MOST_KEYS]
            waiting = [collected[key] for key in chunk]
            if len(chunk) == 1:
                self._link.queue(pack(("GET", chunk[0])), waiting[0])
            else:
                self._link.queue(pack(("MGET", *chunk)), _Joined(self, chunk, waiting))

    def give_up(self, keys: list[bytes], waiting: list[Entry]) -> None:
        """Ask for each key alone, now and from now on."""
        self._allowed = False
        for key, entry in zip(keys, waiting, strict=True):
            self._link.queue(pack(("GET", key)), entry)


class CoalescingRedis(PipelinedRedis):
    """A ``PipelinedRedis`` whose concurrent ``get`` calls are joined; made with ``coalesce=True``."""

    async def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``; a key of a wrong type may answer as absent."""
        state = self._state
        if state.loop is not get_running_loop() or (link := state.fast.link) is None:
            return await self.execute_command("GET", name)
        collector = link.collector
        if collector is None:
            collector = link.collector = Collector(link)
        try:
            return await collector.get(name)
        except RETRYABLE as error:
            return await self._recover(error, state.fast, pack(("GET", name)), way=self._ways["GET"])

    async def fetch(self, key: str | bytes) -> Any:
        """Return the value of a key; a server that refuses to work just now counts as one that was not reached."""
        try:
            return await self.get(key)
        except UNEXECUTED as error:
            raise settled(error) from error
