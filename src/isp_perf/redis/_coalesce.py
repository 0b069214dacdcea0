"""Concurrent GETs of one event-loop tick become one MGET, and each key is asked once.

Order is kept: collected keys are handed to the link before any other command is queued, so a GET never overtakes a
write of its tick and is never overtaken by one. An idle link is written through without waiting for the tick.
"""

from asyncio import Future, InvalidStateError
from typing import Any, cast

from redis.exceptions import NoPermissionError

from isp_perf.redis._client import PipelinedRedis
from isp_perf.redis._entry import Entry
from isp_perf.redis._lane import RETRYABLE
from isp_perf.redis._link import Link
from isp_perf.redis._pack import pack, pack_get

__all__ = ["CoalescingRedis", "Collector"]

_MOST_KEYS = 512  # of one MGET
_TEXT = frozenset({str, bytes})  # other keys might be equal without being the same on the wire


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

    def __init__(self, collector: "Collector", keys: list[str | bytes], waiting: list[Entry]) -> None:
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
            try:
                entry.set_result(value)
            except InvalidStateError:
                self._collector.discarded()

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
        self._loop = link.loop
        self._allowed = True
        self._waiting: dict[str | bytes, Entry] = {}

    def get(self, key: Any) -> "Future[Any]":
        """Return the future of a key's value."""
        collected = self._waiting
        if type(key) not in _TEXT:
            return self._link.send(pack_get(key))
        if not collected and not self._begin():
            return self._link.send(pack_get(key))
        future: Future[Any] = Future(loop=self._loop)
        waiting = collected.setdefault(key, future)
        if waiting is not future:
            self._share(key, waiting, future)
        return future

    def _begin(self) -> bool:
        """Return whether keys asked for now are to be collected, and see to it that they are released."""
        link = self._link
        if not self._allowed or link.through:
            return False
        link.held = self.release
        link.schedule()
        return True

    def _share(self, key: str | bytes, waiting: Entry, future: "Future[Any]") -> None:
        """Let one more caller wait for a key that is asked for already."""
        if isinstance(waiting, _Fan):
            waiting.futures.append(future)
        else:
            self._waiting[key] = _Fan([cast("Future[Any]", waiting), future])

    def release(self) -> int:
        """Queue what was collected and return the number of keys; those nobody waits for any more are not asked."""
        self._link.held = None
        collected, self._waiting = self._waiting, {}
        living = {key: entry for key, entry in collected.items() if not entry.done()}
        keys, entries = list(living), list(living.values())
        for start in range(0, len(keys), _MOST_KEYS):
            chunk, waiting = keys[start : start + _MOST_KEYS], entries[start : start + _MOST_KEYS]
            if len(chunk) == 1:
                self._link.queue(pack_get(chunk[0]), waiting[0])
            else:
                self._link.queue(pack(("MGET", *chunk)), _Joined(self, chunk, waiting))
        return len(keys)

    def discarded(self) -> None:
        """Count a value whose caller was cancelled or timed out."""
        self._link.stats.discarded_replies += 1

    def give_up(self, keys: list[str | bytes], waiting: list[Entry]) -> None:
        """Ask for each key alone, now and from now on."""
        self._allowed = False
        for key, entry in zip(keys, waiting, strict=True):
            self._link.queue(pack_get(key), entry)


class CoalescingRedis(PipelinedRedis):
    """A ``PipelinedRedis`` whose concurrent ``get`` calls are joined; made with ``coalesce=True``."""

    async def get(self, name: Any) -> Any:
        """Return the value of a key, or ``None``; a key of a wrong type may answer as absent."""
        link = self._state.here()
        if link is None or self._learnt.families or not self._plain_get:
            return await self.execute_command("GET", name, keys=[name])
        collector = link.collector
        if collector is None:
            collector = link.collector = Collector(link)
        try:
            reply = await collector.get(name)
        except RETRYABLE as error:
            return await self._recover(error, pack_get(name), self._ways["GET"], options={})
        if link.large:
            self._weigh(self._ways["GET"], ("GET", name), reply)
        return reply
