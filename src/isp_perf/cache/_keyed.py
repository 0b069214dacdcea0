"""What is done by logical key: get, set, get or load, peek; flows for both colours."""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from isp_perf._runtime.drive import Failure, adrive
from isp_perf._runtime.flights import Flight, leading
from isp_perf.cache._ages import MISSING, handed_out, is_fresh
from isp_perf.cache._beyond import kept_locked, looked_up
from isp_perf.cache._config import CachePolicy, PolicyOptions, policy_with
from isp_perf.cache._engine import Call, Engine, Flow
from isp_perf.cache._flow import insert_locked, lifetime, local_ttl
from isp_perf.cache._local import Store
from isp_perf.cache._removal import Removal
from isp_perf.cache._scope import bypassing, fetch, mode_of
from isp_perf.cache._site import Site
from isp_perf.cache._stats import Counters

if TYPE_CHECKING:
    from isp_perf.cache._many import Together
    from isp_perf.typing import Clock, Codec

__all__ = ["KeySource", "Keys"]

_EVERY_ERROR: Final = Exception  # the error of one value is raised when the others are stored


class KeySource:
    """Values stored under keys of the user's own.

    Args:
        policy: how long they are kept.
        loader: fills a missing key; a function without arguments, sync or async.
        counters: what it counts into.
        codec: how they become bytes; ``None``: as the policy says, by default as plain values.
    """

    local_only = False
    hit_clock: "Clock | None" = None

    def __init__(
        self,
        policy: CachePolicy,
        counters: Counters,
        loader: Callable[[], Any] | None = None,
        *,
        codec: "Codec | None" = None,
    ) -> None:
        self.policy = policy
        self.counters = counters
        self.context = Context()
        self.tasks = True
        self.label = str(getattr(loader, "__qualname__", type(loader).__qualname__))
        self._loader = loader
        self._codec = codec

    @property
    def codec(self) -> "Codec":
        """The policy's codec, or the one for plain values."""
        if self._codec is None:
            from isp_perf.cache._codec import packed, plain_codec

            self._codec = plain_codec() if self.policy.codec is None else packed(self.policy.codec)
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


def _copying(flow: Flow, policy: CachePolicy) -> Flow:
    outcome = yield from flow
    return outcome if outcome.__class__ is Failure else handed_out(policy, outcome)


async def _write_tasks(flows: list[Flow]) -> list[Any]:
    """Run ``flows`` at once: what they send in one tick of the loop leaves in one write."""

    async def one(flow: Flow) -> Any:
        try:
            return await adrive(flow)
        except _EVERY_ERROR as error:
            return Failure(error)

    return await asyncio.gather(*map(one, flows))


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
        self._sites = sites
        self._counters = Counters()
        self.store = Store(KeySource(CachePolicy(), self._counters), "", by_key=True)
        self.removal = Removal(engine, sites, self.store)

    def together(self, site: Site) -> "Together":
        """Return what answers several calls of ``site`` at once."""
        from isp_perf.cache._many import Together

        return Together(self._engine, site.batcher)

    def _call(self, key: str, policy: CachePolicy, options: PolicyOptions) -> Call:
        """Return a call for ``key``: under ``policy``, or as the function says whose key it is, with ``options``.

        Raises:
            ConfigurationError: an option out of range, or tags that the function does not take from its key.
        """
        owner, tags = self._owner(key)
        if owner is None:
            source = KeySource(policy_with(policy, **options), self._counters)
        else:
            if tags or "tags" in options:
                options = {**options, "tags": (*tags, *options.get("tags", ()))}
            source = KeySource(policy_with(owner.policy, **options), owner.counters, codec=owner.codec)
            source.label = owner.label
        return Call(source, self.store, (key,), native=False, values=())

    def _owner(self, key: str) -> tuple[Site | None, tuple[str, ...]]:
        """Return the function whose key it is, and the tags of the value under it."""
        for site in list(self._sites):
            tags = site.tags_of_key(key)
            if tags is not None:
                return site, tags
        return None, ()

    def _reading(self, key: str, policy: CachePolicy) -> Call:
        """Return a call that reads ``key``; the tags of what it finds come with it."""
        owner = next((site for site in list(self._sites) if site.has_key(key)), None)
        if owner is None:
            source = KeySource(policy, self._counters)
        else:
            source = KeySource(owner.untagged, owner.counters, codec=owner.codec)
        return Call(source, self.store, (key,), native=False, values=())

    def fetch(self, key: str, loader: Callable[[], Any], policy: CachePolicy, *, tasks: bool) -> Flow:
        """Return the value of ``key``, loaded by ``loader`` if neither level has it."""
        source = KeySource(policy, self._counters, loader)
        source.tasks = tasks
        call = Call(source, self.store, (key,), native=False, values=())
        if policy.isolate == "share":
            return fetch(self._engine, call, tasks=tasks)
        return _copying(fetch(self._engine, call, tasks=tasks), policy)

    def read(self, keys: Iterable[str], policy: CachePolicy, *, tasks: bool) -> Flow:
        """Return the values of those ``keys`` that either level has."""
        if bypassing(self._engine):
            return {}
        asked = dict.fromkeys(keys)
        found = self._remembered(asked)
        with self._engine.local.lock:
            self._read_locked(found, asked, policy)
        missing = [key for key in asked if key not in found]
        if missing:
            yield from self._read_remote(found, missing, policy, tasks=tasks)
        return found

    def _remembered(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return what the request scope of the running context has read already."""
        mode = mode_of(self._engine)
        if mode is None or mode.memo is None or leading() is not None:
            return {}
        return {key: mode.memo[key][0] for key in keys if key in mode.memo}

    def _read_locked(self, found: dict[str, Any], keys: Iterable[str], policy: CachePolicy) -> None:
        """Add to what was ``found`` what the local level has."""
        local = self._engine.local
        local.counters.retired += len(found)
        index = local.index_locked()
        for key in keys:
            entry = index.get(key)
            if key not in found and entry is not None and is_fresh(local, entry):
                entry.hits += 1
                found[key] = handed_out(policy if entry.home.by_key else entry.home.owner.policy, entry.value)

    def _read_remote(self, found: dict[str, Any], missing: list[str], policy: CachePolicy, *, tasks: bool) -> Flow:
        from isp_perf.cache._many import read_remote

        calls = [self._reading(key, policy) for key in missing] if self._engine.second is not None else []
        values = yield from read_remote(self._engine, calls, tasks=tasks)
        there = {key: value for key, value in zip(missing, values, strict=False) if value is not MISSING}
        found |= there
        with self._engine.local.lock:
            self._engine.local.counters.remote_hits += len(there)
            self._engine.local.counters.misses += len(missing) - len(there)

    def write(self, key: str, value: Any, policy: CachePolicy, *, options: PolicyOptions, tasks: bool) -> Flow:
        """Store ``value`` under ``key`` in both levels; loads of it in progress are not stored."""
        yield from self.write_call(self._call(key, policy, options), value, tasks=tasks)

    def write_many(
        self, mapping: Mapping[str, Any], policy: CachePolicy, *, options: PolicyOptions, tasks: bool
    ) -> Flow:
        """Store each value of ``mapping`` under its key; the remote level hears of all in one write."""
        flows = [self.write(key, value, policy, options=options, tasks=tasks) for key, value in mapping.items()]
        outcomes = yield partial(_write_tasks if tasks else self._write_here, flows)
        for outcome in outcomes:
            if outcome.__class__ is Failure:
                return outcome
        return None

    def _write_here(self, flows: list[Flow]) -> list[Any]:
        from isp_perf.cache._lanes import is_order, perform_lanes, side_by_side

        return side_by_side(flows, is_order, perform_lanes)

    def write_call(self, call: Call, value: Any, *, tasks: bool) -> Flow:
        """Store ``value`` as the result of ``call``."""
        value = handed_out(call.source.policy, value)
        ttl = lifetime(call.source.policy, value)
        local, key = self._engine.local, call.key()
        shared = self._engine.second is not None and not call.source.local_only
        written = Flight.make()
        written.lead_by(None, tasks=tasks)
        written.tags = frozenset(call.tags())
        with local.lock:
            self.removal.detach_locked({key}.__contains__)
            # What is shared comes back from the remote level with the next call, under the marks that prove it.
            self._replace_locked(call, key, value=value, ttl=0.0 if shared else local_ttl(call.source.policy, ttl))
            self.removal.writes[written] = key
        try:
            if shared:
                from isp_perf.cache._reading import put_remote

                yield from put_remote(self._engine, call, written, value=value, ttl=ttl)
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
        claims = yield from looked_up(self._engine, {call.key(): call}, tasks=tasks)
        for claim in claims.values():
            with local.lock:
                kept_locked(self._engine, call, claim)
            return claim.found[0]
        return default

    def _replace_locked(self, call: Call, key: str, *, value: Any, ttl: float) -> None:
        """Put the value where the key already lives, so that the function it belongs to finds it."""
        local = self._engine.local
        entry = local.index_locked().get(key)
        if entry is not None:
            call = call._replace(store=entry.home, slot=entry.slot, native=entry.slot in entry.home.hot)
            local.remove_locked(entry)
        if ttl > 0:
            insert_locked(local, call, value=value, ttl=ttl, load_seconds=0.0, tags=frozenset(call.tags()))
