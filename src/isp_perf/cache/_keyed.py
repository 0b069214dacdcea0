"""What is done by logical key: get, set, get or load, peek; flows for both colours."""

import inspect
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any
from weakref import WeakSet

from isp_perf._runtime.flights import Flight
from isp_perf.cache._ages import MISSING, is_fresh
from isp_perf.cache._codec import MsgpackCodec
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._exchange import Flow, decoded, keep_remote
from isp_perf.cache._flow import insert_locked, lifetime, local_ttl
from isp_perf.cache._local import Store
from isp_perf.cache._removal import Removal
from isp_perf.cache._scope import bypassing, fetch
from isp_perf.cache._site import Site
from isp_perf.cache._stats import Counters
from isp_perf.cache._tags import Versions, made_versions, read_tagged, tags_of
from isp_perf.typing import Clock, Codec

__all__ = ["KeySource", "Keys"]


class KeySource:
    """Values stored under keys of the user's own.

    Args:
        policy: how long they are kept.
        loader: fills a missing key; a function without arguments, sync or async.
        counters: what it counts into.
    """

    local_only = False
    hit_clock: Clock | None = None

    def __init__(self, policy: CachePolicy, counters: Counters, loader: Callable[[], Any] | None) -> None:
        self.policy = policy
        self.counters = counters
        self.context = Context()
        self.tasks = True
        self.label = str(getattr(loader, "__qualname__", type(loader).__qualname__))
        self._loader = loader
        self._codec = policy.codec

    @property
    def codec(self) -> Codec | MsgpackCodec:
        """The policy's codec, or the one for plain values."""
        if self._codec is None:
            self._codec = MsgpackCodec()
        return self._codec

    def key_of(self, slot: Any, token: str) -> str:
        """Return the logical key, which the slot holds."""
        return token + str(slot[0])

    def tags(self, _values: tuple[Any, ...], /) -> tuple[str, ...]:
        """Return the tags, which are literal here."""
        return tuple(self.policy.tags)

    def step(self, _values: tuple[Any, ...], /) -> Callable[[], Any]:
        """Return the loader as a step."""
        return self._load if self.tasks else self._load_here

    def _load_here(self) -> Any:
        return self._loader() if self._loader is not None else None

    async def _load(self) -> Any:
        value = self._load_here()
        return await value if inspect.isawaitable(value) else value


class Keys:
    """The by-key operations of one manager.

    Args:
        engine: the levels.
        sites: the decorated functions.
    """

    removal: Removal
    store: Store

    def __init__(self, engine: Engine, sites: "WeakSet[Site]") -> None:
        self._engine = engine
        self._counters = Counters()
        self.store = Store(KeySource(CachePolicy(), self._counters, None), "", by_key=True)
        self.removal = Removal(engine, sites, self.store)

    def call(self, key: str, policy: CachePolicy, loader: Callable[[], Any] | None) -> Call:
        """Return a call for ``key``."""
        return Call(KeySource(policy, self._counters, loader), self.store, (key,), native=False, values=())

    def fetch(self, key: str, loader: Callable[[], Any], policy: CachePolicy, *, tasks: bool) -> Flow:
        """Return the value of ``key``, loaded by ``loader`` if neither level has it."""
        source = KeySource(policy, self._counters, loader)
        source.tasks = tasks
        call = Call(source, self.store, (key,), native=False, values=())
        return fetch(self._engine, call, tasks=tasks)

    def read(self, keys: Iterable[str], policy: CachePolicy, *, tasks: bool) -> Flow:
        """Return the values of those ``keys`` that either level has."""
        if bypassing(self._engine):
            return {}
        found: dict[str, Any] = {}
        missing: list[str] = []
        local = self._engine.local
        with local.lock:
            index = local.index_locked()
            for key in dict.fromkeys(keys):
                entry = index.get(key)
                if entry is not None and is_fresh(local, entry):
                    entry.hits += 1
                    found[key] = entry.value
                else:
                    missing.append(key)
        if missing and self._engine.second is not None:
            data, versions = yield from read_tagged(self._engine.second, self._engine.ops(tasks=tasks), missing)
            for key, framed in data.items():
                self._take(found, self.call(key, policy, None), framed, versions=versions)
        local.counters.misses += len(set(missing) - found.keys())
        return found

    def _take(self, found: dict[str, Any], call: Call, data: bytes, *, versions: Versions) -> None:
        result = decoded(self._engine, call, data, versions=versions)
        if result is MISSING:
            return
        value, rest = result
        found[call.slot[0]] = value
        local = self._engine.local
        with local.lock:
            tags = tags_of(data)
            insert_locked(local, call, value=value, ttl=rest, load_seconds=0.0, tags=tags)
            local.counters.remote_hits += 1

    def write(self, key: str, value: Any, policy: CachePolicy, *, tasks: bool) -> Flow:
        """Store ``value`` under ``key`` in both levels; loads of it in progress are not stored."""
        call = self.call(key, policy, None)
        yield from self.write_call(call, value, tasks=tasks)

    def write_call(self, call: Call, value: Any, *, tasks: bool) -> Flow:
        """Store ``value`` as the result of ``call``."""
        ttl = lifetime(call.source.policy, value)
        local, key = self._engine.local, call.key()
        written = Flight()
        written.lead_by(None, tasks=tasks)
        written.tags = frozenset(call.tags())
        versions = yield from self._versions(call, tasks=tasks)
        with local.lock:
            self.removal.detach_locked({key}.__contains__)
            self._replace_locked(call, key, value=value, ttl=local_ttl(call.source.policy, ttl))
            self.removal.writes[written] = key
        try:
            if ttl and not call.source.local_only:
                yield from keep_remote(self._engine, call, written, value=value, ttl=ttl, versions=versions)
            elif self._engine.second is not None:
                yield from self._engine.second.delete(self._engine.ops(tasks=tasks), (key,))
        finally:
            self.removal.writes.pop(written, None)

    def reload(self, call: Call, *, tasks: bool) -> Flow:
        """Load and store the value of ``call``, whatever is cached."""
        return (yield from fetch(self._engine, call, tasks=tasks, reload=True))

    def peek(self, call: Call, default: Any, *, tasks: bool) -> Flow:
        """Return the cached value of ``call`` without loading, or ``default``; counts as nothing."""
        if bypassing(self._engine):
            return default
        local = self._engine.local
        with local.lock:
            entry = local.find_locked(call.store, call.slot)
            if entry is not None and is_fresh(local, entry):
                return entry.value
        if self._engine.second is None or call.source.local_only:
            return default
        key = call.key()
        data, versions = yield from read_tagged(self._engine.second, self._engine.ops(tasks=tasks), [key])
        result: Any = decoded(self._engine, call, data[key], versions=versions) if key in data else MISSING
        return default if result is MISSING else result[0]

    def _replace_locked(self, call: Call, key: str, *, value: Any, ttl: float) -> None:
        """Put the value where the key already lives, so that the function it belongs to finds it."""
        local = self._engine.local
        entry = local.index_locked().get(key)
        if entry is not None:
            call = call._replace(store=entry.home, slot=entry.slot, native=entry.slot in entry.home.hot)
            local.remove_locked(entry)
        if ttl > 0:
            insert_locked(local, call, value=value, ttl=ttl, load_seconds=0.0, tags=frozenset(call.tags()))

    def _versions(self, call: Call, *, tasks: bool) -> Flow:
        """Return the versions of the tags of ``call``, made where there were none."""
        if not call.source.policy.tags or self._engine.second is None or call.source.local_only:
            return {}
        second, ops, tags = self._engine.second, self._engine.ops(tasks=tasks), call.tags()
        _, versions = yield from read_tagged(second, ops, (), tags=tags)
        return (yield from made_versions(second, ops, tags, versions=versions, ttl=call.source.policy.fresh))
