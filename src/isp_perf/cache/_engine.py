"""The levels of one manager together, and what one call asks of them."""

from collections.abc import Callable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

from isp_perf._runtime.background import Background
from isp_perf.cache._config import CachePolicy
from isp_perf.cache._gate import Gate
from isp_perf.cache._hit_times import HitTimes
from isp_perf.cache._local import Keyed, LocalLevel, Store

if TYPE_CHECKING:
    from isp_perf.cache._asking import Asker
    from isp_perf.cache._events import Events
    from isp_perf.cache._remote import SecondLevel
    from isp_perf.typing import Clock, Codec, Observer

__all__ = ["Call", "Engine", "Flow", "Source"]

Flow = Generator[Callable[[], Any], Any, Any]
"""A slow path: yields steps to wait for, see ``_runtime.drive``."""


class Source(Keyed, Protocol):
    """Where values come from: a decorated function, or a key with its loader.

    Attributes:
        label: what to call it in errors: the function, never the key.
        policy: how long and when its values are kept.
        context: the context that background loads copy.
    """

    label: str
    policy: CachePolicy
    context: Context

    @property
    def local_only(self) -> bool:
        """Whether its keys mean nothing in another process."""
        ...

    @property
    def codec(self) -> "Codec":
        """How its values become bytes."""
        ...

    def tags(self, values: tuple[Any, ...], /) -> tuple[str, ...]:
        """Return the tags of what a call returns."""
        ...

    def step(self, values: tuple[Any, ...], /) -> Callable[[], Any]:
        """Return the call of the loader as a step."""
        ...


class Call(NamedTuple):
    """One call that the wrapper could not answer.

    Attributes:
        source: where the value comes from.
        store: where it is kept.
        slot: its key there.
        native: whether the slot is the arguments themselves.
        values: the bound arguments.
    """

    source: Source
    store: Store
    slot: Any
    native: bool
    values: tuple[Any, ...]

    def tags(self) -> tuple[str, ...]:
        """Return the tags of the value."""
        return self.source.tags(self.values) if self.source.policy.tags else ()

    def key(self) -> str:
        """Return the logical key."""
        return self.source.key_of(self.slot, self.store.token)


class Switched(Protocol):
    """A decorated function whose wrapper has several codes."""

    def sample(self) -> None:
        """Time its next hit."""
        ...

    def switch_locked(self, *, asking: bool) -> None:
        """Let the wrapper ask for the mode of its context, or not."""
        ...


class Engine:
    """The levels behind a manager.

    Attributes:
        asked: whether a call has more to ask than the local level: a context, an observer, a remote level.
        contexts: how many reasons there are to look at a call before it is answered: open contexts, an observer.
        events: tells the observer; ``None`` without one.
        sites: the decorated functions.
        local: the local level.
        second: the remote level; ``None`` without one.
        asker: asks it; ``None`` without one.
        gate: limits loads while it is out of use.
        prefix: the namespace.
        sampler: is shown hits of the remote level; ``None`` without an auditor.
        background: runs loads without a caller.
        wall: seconds that all processes share, for the moment of expiry in frames.
    """

    __slots__ = (
        "_modes",
        "asked",
        "asker",
        "background",
        "contexts",
        "events",
        "gate",
        "hit_times",
        "local",
        "prefix",
        "sampler",
        "second",
        "sites",
        "wall",
    )

    asked: bool
    background: Background
    contexts: int
    gate: Gate
    hit_times: HitTimes
    local: LocalLevel
    prefix: str

    def __init__(self, local: LocalLevel) -> None:
        self.local = local
        self.background = Background()
        self.second: SecondLevel | None = None
        self.asker: Asker | None = None
        self.gate = Gate(local.lock)
        self.wall: Clock = local.clock
        self.prefix = ""
        self.sampler: Callable[[Call, Any, int], None] | None = None
        self.contexts = 0
        self.asked = False
        self._modes = 0
        self.events: Events | None = None
        self.sites: WeakSet[Switched] = WeakSet()
        self.hit_times = HitTimes()

    def attach(self, second: "SecondLevel | None", asker: "Asker | None") -> None:
        """Have ``second`` as the remote level from now on, or none."""
        self.second = second
        self.asker = asker
        self._note_asked()

    def _note_asked(self) -> None:
        self.asked = self.second is not None or self.contexts > 0
        with self.local.lock:
            self.local.ask_locked(asked=self.asked)

    def admit(self, site: Switched) -> None:
        """Take note of a decorated function."""
        with self.local.lock:
            self.sites.add(site)
            if self._modes:
                site.switch_locked(asking=True)

    def open_context(self) -> None:
        """Let the wrappers ask for the mode of their context."""
        with self.local.lock:
            self.contexts += 1
            self._modes += 1
            self._note_asked()
            if self._modes == 1:
                self._switch_locked()

    def close_context(self) -> None:
        """Let them ask no longer, if this was the last open context."""
        with self.local.lock:
            self.contexts -= 1
            self._modes -= 1
            self._note_asked()
            if not self._modes:
                self._switch_locked()

    def _switch_locked(self) -> None:
        for site in self.sites:
            site.switch_locked(asking=self._modes > 0)

    def sample_hits(self, number: int) -> None:
        """Let the next ``number`` wrappers, in turns, time a hit each."""
        with self.local.lock:
            sites = list(self.sites)
            places = self.hit_times.turn_locked(len(sites), number)
        for place in places:
            sites[place].sample()

    def observe(self, observer: "Observer | None", name: str) -> None:
        """Tell ``observer`` from now on, or nobody."""
        with self.local.lock:
            self.contexts += (observer is not None) - (self.events is not None)
            self.events = None if observer is None else self._events(observer, name)
            self._note_asked()

    def _events(self, observer: "Observer", name: str) -> "Events":
        from isp_perf.cache._events import Events

        events = Events(observer, name, self.local.lock)
        events.start(self.local.counters)
        return events

    def count_remote(self, call: Call, value: Any, times: int = 1) -> None:
        """Count ``times`` hits of the remote level, which had ``value``."""
        with self.local.lock:
            for counters in (self.local.counters, call.source.counters):
                counters.remote_hits += times
        if self.sampler is not None:
            self.sampler(call, value, times)

    def tell(self) -> None:
        """Tell the observer what has left the local level; call it outside the lock."""
        if self.events is not None:
            self.events.tell_left(self.local.counters)

    def digest_key(self) -> bytes:
        """Return the key of the digests in cache keys: the same in every process of the namespace."""
        return self.prefix.encode()[:64]
