"""Keys that many tasks ask for one by one, loaded together: what GraphQL resolvers need.

Everything that is asked within one turn of the event loop becomes one call. Batches of one loader run one after the
other, each with a session of its own, so that no session is ever used by two tasks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from isp_perf.errors import ConfigurationError

__all__ = ["DataLoader"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST = 1000


class DataLoader(Generic[K, V]):
    """Coalesces loads by key; one per request.

    A key is loaded once in the life of the loader, and what it gave is kept: make a new loader for each request.

    Args:
        session_factory: an ``async_sessionmaker``, or anything that is called for an async context manager.
        load: ``async def load(session, keys)``, which returns a mapping of key to value, or a sequence with one value
            for each key in their order. A value that is an exception is raised for its key alone.
        missing: for a key that the mapping lacks ``"none"`` (default) gives ``None``, ``"error"`` raises ``KeyError``.
        max_batch: keys of one call; >= 1, default 1,000.

    Raises:
        ConfigurationError: ``missing`` is unknown, or ``max_batch`` below 1.
    """

    def __init__(
        self,
        session_factory: Callable[[], Any],
        load: Callable[[Any, list[K]], Awaitable[Mapping[K, V] | Sequence[V]]],
        *,
        missing: str = "none",
        max_batch: int = _MOST,
    ) -> None:
        if missing not in {"none", "error"}:
            raise ConfigurationError("missing", missing, "missing is 'none' or 'error'", "take one of the two")
        if isinstance(max_batch, bool) or max_batch < 1:
            raise ConfigurationError("max_batch", max_batch, "a batch has a number of keys >= 1", "leave it out")
        self._session_factory = session_factory
        self._load = load
        self._missing = missing
        self._max_batch = max_batch
        self._futures: dict[K, asyncio.Future[V]] = {}
        self._waiting: list[K] = []
        self._task: asyncio.Task[None] | None = None

    async def load(self, key: K) -> V:
        """Return the value of ``key``.

        Raises:
            KeyError: there is none, and ``missing="error"``.
            BaseException: what ``load`` raised, to everyone who waits for a key of its batch.
        """
        return await asyncio.shield(self._asked(key))

    async def load_many(self, keys: Iterable[K]) -> list[V]:
        """Return the values of ``keys`` in their order; raise the first error, as ``load`` does."""
        futures = [asyncio.shield(self._asked(key)) for key in keys]
        return list(await asyncio.gather(*futures))

    def clear(self, *keys: K) -> None:
        """Forget what is known of ``keys``, or of all keys, so that they are loaded again."""
        for key in keys or tuple(self._futures):
            future = self._futures.get(key)
            if future is not None and future.done():
                del self._futures[key]

    def _asked(self, key: K) -> "asyncio.Future[V]":
        future = self._futures.get(key)
        if future is None:
            future = self._futures[key] = asyncio.get_running_loop().create_future()
            self._waiting.append(key)
            if self._task is None:
                self._task = asyncio.ensure_future(self._run())
        return future

    async def _run(self) -> None:
        """Load what waits, batch after batch, until nothing waits any more."""
        try:
            await asyncio.sleep(0)  # one turn, in which others ask too
            while self._waiting:
                keys, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                await self._batch(keys)
        finally:
            self._task = None
            self._fail(self._waiting, asyncio.CancelledError())
            self._waiting = []

    async def _batch(self, keys: list[K]) -> None:
        try:
            async with self._session_factory() as session:
                by_key = _named(keys, await self._load(session, list(keys)))
        except BaseException as error:
            self._fail(keys, error)
            if not isinstance(error, Exception):
                raise
            return
        for key in keys:
            self._settle(key, by_key.get(key, self))

    def _settle(self, key: K, value: Any) -> None:
        future = self._futures.get(key)
        if future is None or future.done():
            return
        if value is self:
            value = KeyError(key) if self._missing == "error" else None
        if isinstance(value, BaseException):
            future.set_exception(value)
            future.exception()  # seen, also when every waiter has left
        else:
            future.set_result(value)

    def _fail(self, keys: Iterable[K], error: BaseException) -> None:
        """Give an error to all who wait for ``keys``, and let the keys be asked for again."""
        for key in keys:
            future = self._futures.pop(key, None)
            if future is None or future.done():
                continue
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
                future.exception()


def _named(keys: list[Any], found: Any) -> Mapping[Any, Any]:
    """Return what a load gave, by key."""
    if hasattr(found, "keys"):
        by_key: Mapping[Any, Any] = found
        return by_key
    if len(found) != len(keys):
        rule = f"{len(keys)} keys were asked for, and {len(found)} values came"
        raise ConfigurationError("load", "a sequence", rule, "return one value for each key, or a mapping")
    return dict(zip(keys, found, strict=True))
