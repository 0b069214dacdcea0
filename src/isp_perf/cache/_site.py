"""One decorated function: its key plan, its stores, and the wrapper that stands in front of it."""

import inspect
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from functools import cached_property, partial
from itertools import count
from time import monotonic, perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from isp_perf._core.keys import HASH, Field, Template, parse_template
from isp_perf._core.kinds import record_fields
from isp_perf._runtime.drive import Failure, adrive, drive
from isp_perf._runtime.specialize import parameters, specialize
from isp_perf.cache._config import CachePolicy, policy_with
from isp_perf.cache._direct import ShortWay, is_direct, short_way, slot_test
from isp_perf.cache._engine import Call, Engine
from isp_perf.cache._forms import Form, Forms
from isp_perf.cache._keyplan import KeyPlan, annotated_types
from isp_perf.cache._scope import MODE, fetch
from isp_perf.cache._stats import Counters, count_hits
from isp_perf.cache._store import FINE_TTL, Store
from isp_perf.errors import ConfigurationError

if TYPE_CHECKING:
    from isp_perf.cache._batcher import Batcher
    from isp_perf.cache._figures import CacheStats
    from isp_perf.typing import Clock, Codec

__all__ = ["Site"]

_POSITIONAL: Final = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
_tokens: Final = count(1)

# The fast lookup is left before anything else runs, so that a loader's error gets no context of ours. Any error of a
# lookup (an unhashable argument, a strange __hash__) means: the slow path, which names the parameter, has to answer.
# A call copies one reference per closure cell, so the three objects that a hit does not need share one cell, $rare.
_LOOKUP = """
try:
    $found = {place}[{slot}]
except $rare[0]:
    pass
else:
{hit}"""
_HIT = "$found.hits += 1\nreturn {value}\n"
_FORMS: Final[Mapping[Form, str]] = {
    "plain": "{body}",
    "asking": "if $rare[3]() is None:\n{indented}",
    "timed": "$started = $rare[-2]()\n{body}",
}
_TIMED_HIT = "$found.hits += 1\n$given = {value}\n$rare[-1]($started)\nreturn $given\n"
_LONG_WAY = """
$found = {wait}$rare[1]($values)
"""
_SHORT_WAY = """
$flight = $rare[6]({asked})
if $flight is None:
    $found = {wait}$rare[1]($values)
else:
    try:
        $found = {wait}$rare[4]($args)
    except $rare[5] as $error:
        $found = $rare[8]($flight, $error, $values)
    else:
        $found = $rare[7]($flight, $found, $values)
"""
_END = """
if $found.__class__ is $rare[2]:
    try:
        raise $found.error
    finally:
        del $found
return {value}
"""


class Site:
    """One decorated function.

    Args:
        engine: the manager's levels.
        function: what is decorated.
        template: the key template; ``None`` for the qualified name and ``{hash}``.
        policy: how long results are kept.

    Raises:
        ConfigurationError: a generator function, a template that does not fit, ``private`` without a field.
    """

    asynchronous: bool
    batcher: "Batcher | None"
    context: Context
    counters: Counters
    engine: Engine
    function: Callable[..., Any]
    hit_clock: "Clock | None"
    identity: tuple[str, str, int]
    label: str
    plan: KeyPlan
    policy: CachePolicy
    signature: inspect.Signature
    store: Store
    template: str

    def __init__(
        self, engine: Engine, function: Callable[..., Any], *, template: str | None, policy: CachePolicy
    ) -> None:
        declared = parameters(function)
        _refuse_generators(function)
        self.engine = engine
        self.function = function
        self.policy = policy
        self.label = _name_of(function)
        # A bound method of another instance is another function: its values are that instance's.
        self.identity = (getattr(function, "__module__", ""), self.label, id(getattr(function, "__self__", None)))
        self.asynchronous = inspect.iscoroutinefunction(function)
        self.counters = Counters()
        self.context = copy_context()
        self.batcher = None
        self._codec: Codec | None = None
        names = [parameter.name for parameter in declared]
        owner = _owner(function, names)
        self.template = template if template is not None else _default_template(function, names)
        parsed = parse_template(self.template, names)
        _require_identity(parsed, private=policy.private)
        self.plan = KeyPlan(
            parsed,
            declared,
            types=annotated_types(function, names),
            typed=policy.typed,
            owner=owner if Field(HASH) in parsed.fields else None,
            secret=engine.digest_key,
        )
        self.signature = inspect.signature(function)
        self._tags = [parse_template(tag, names, setting="tags") for tag in policy.tags]
        self._kinds = [parameter.kind for parameter in declared]
        self._names = names
        self._plain = _POSITIONAL.issuperset(self._kinds)
        self.hit_clock = _hit_clock(engine.local.clock, policy)
        self.store = self._make_store()
        self._forms = Forms(self._specialized, engine.local.lock, engine.hit_times)
        self._shelves: dict[int, dict[Any, Any]] = {}
        self._instances: dict[int, tuple[ref[Any], Store]] = {}

    def _make_store(self) -> Store:
        store = Store(self, "")
        store.ttl = self.policy.steady or 0.0
        store.ordered = self.hit_clock is None and store.ttl >= FINE_TTL and not self.policy.staged
        return store

    @property
    def local_only(self) -> bool:
        """Whether keys name an instance, which no other process has."""
        return self.plan.owner == "self"

    @property
    def codec(self) -> "Codec":
        """The policy's codec, or the one for the return annotation."""
        if self._codec is None:
            from isp_perf.cache._codec import codec_for

            self._codec = codec_for(self.function, self.policy.codec)
        return self._codec

    def wrapper(self) -> FunctionType:
        """Return the function that stands in front of the decorated one."""
        return self._forms.wrapper()

    def switch_locked(self, *, asking: bool) -> None:
        """Let the wrapper ask for the mode of its context, or not."""
        if self.plan.native:
            self._forms.take_locked("asking" if asking else "plain")

    def sample(self) -> None:
        """Let the wrapper time its next hit, unless it asks for modes."""
        if self.plan.native:
            self._forms.sample()

    def _specialized(self, form: Form) -> FunctionType:
        given = "$own({0})" if self.policy.isolate == "copy" else "{0}"
        short = self._short_way()
        body = self._lookup(form, given.format("$found.value")) if self.plan.native else ""
        body = _FORMS[form].format(body=body, indented=_indented(body))
        wait, slow = ("await ", self.amiss) if self.asynchronous else ("", self.miss)
        body += _LONG_WAY.format(wait=wait) if short is None else _SHORT_WAY.format(wait=wait, asked=self._asked())
        body += _END.format(value=given.format("$found"))
        timing = (perf_counter_ns, self._forms.timed)
        names: dict[str, Any] = {
            "clock": self.hit_clock,
            "guard": self.plan.guard,
            "hot": self.store.hot,
            "id": id,
            "rare": (Exception, slow, Failure, MODE.get, self.function, BaseException, *(short or ()), *timing),
            "shelves": self._shelves,
        }
        if self.policy.isolate == "copy":
            from isp_perf.cache._copies import own

            names["own"] = own
        return specialize(self.function, body, names, asynchronous=self.asynchronous)

    def _asked(self) -> str:
        return self.plan.expression() + (", $values" if self.policy.tags else "")

    def _short_way(self) -> ShortWay | None:
        fits = slot_test(self.plan) if self._plain and is_direct(self.policy) else None
        return None if fits is None else short_way(self, fits)

    def _lookup(self, form: Form, value: str) -> str:
        hit = (_TIMED_HIT if form == "timed" else _HIT).format(value=value)
        place = "$shelves[$id($param_0)]" if self.local_only else "$hot"
        slot = self.plan.expression()
        return _LOOKUP.format(place=place, slot=slot, hit=_indented(self._question(slot, hit)))

    def _question(self, slot: str, hit: str) -> str:
        asked: list[str] = []
        if self.hit_clock is not None:
            asked.append("$clock() < $found.due")
        if self.plan.guard is not None:
            asked.append(f"{slot}.__class__ is $guard")
        return f"if {' and '.join(asked)}:\n" + _indented(hit) if asked else hit

    def call(self, values: tuple[Any, ...]) -> Call:
        """Return what a call with these bound values asks for."""
        store, token = self.store, ""
        if self.local_only:
            if record_fields(values[0]) is not None:
                return Call(self, store, (self.plan.key(values, ""),), native=False, values=values)
            store = self._store_of(values[0])
            token = store.token
        slot, native = self.plan.slot(values, token)
        return Call(self, store, slot, native, values)

    def bound(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values that the function would get, defaults applied."""
        arguments = self.signature.bind(*args, **keywords)
        arguments.apply_defaults()
        return tuple(arguments.arguments.values())

    def key_of(self, slot: Any, token: str) -> str:
        """Return the logical key of a slot."""
        return self.plan.key_of(slot, token)

    def tags(self, values: tuple[Any, ...], /) -> tuple[str, ...]:
        """Return the tags of what a call returns."""
        return tuple(self.plan.tag(template, values) for template in self._tags)

    def has_key(self, key: str) -> bool:
        """Return whether ``key`` is one of this function's."""
        return not self.local_only and self.plan.texts(key) is not None

    @cached_property
    def untagged(self) -> CachePolicy:
        """The policy without tags, for what is stored with tags of its own."""
        return policy_with(self.policy, tags=())

    def tags_of_key(self, key: str) -> tuple[str, ...] | None:
        """Return the tags of the value under a logical key; ``None`` if it is no key of this function.

        Raises:
            ConfigurationError: a tag names a field that is not in the key.
        """
        texts = None if self.local_only else self.plan.texts(key)
        if texts is None:
            return None
        tags = [self.plan.tag_of_texts(template, texts) for template in self._tags]
        if None in tags:
            raise ConfigurationError(
                "tags", self.policy.tags, f"{self.label} takes them from arguments that are not in its key", "use .put"
            )
        return tuple(map(str, tags))

    def step(self, values: tuple[Any, ...]) -> Callable[[], Any]:
        """Return the call of the function as a step."""
        if self._plain:
            return partial(self.function, *values)
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for name, kind, value in zip(self._names, self._kinds, values, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                positional += value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                keywords |= value
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                keywords[name] = value
            else:
                positional.append(value)
        return partial(self.function, *positional, **keywords)

    def miss(self, values: tuple[Any, ...]) -> Any:
        """Answer a call of a plain function that the wrapper could not answer."""
        return drive(fetch(self.engine, self.call(values), tasks=False))

    async def amiss(self, values: tuple[Any, ...]) -> Any:
        """Answer a call of a coroutine function that the wrapper could not answer."""
        return await adrive(fetch(self.engine, self.call(values), tasks=True))

    def stores(self) -> list[Store]:
        """Return the store, and those of living instances."""
        return [self.store, *(store for _, store in list(self._instances.values()))]

    def stats(self) -> "CacheStats":
        """Return the statistics of this function."""
        from isp_perf.cache._figures import snapshot

        with self.engine.local.lock:
            for store in self.stores():
                store.fold_locked(self.engine.local.counters)
            entries = [entry for store in self.stores() for entry in store.entries()]
            frozen = self.counters.copy()
        return snapshot(frozen, living_hits=count_hits(entries), size=len(entries))

    def _store_of(self, instance: Any) -> Store:
        """Return the store of ``instance``, which is held weakly: its entries go when it goes."""
        identity = id(instance)
        with self.engine.local.lock:
            known = self._instances.get(identity)
            if known is not None and known[0]() is instance:
                return known[1]
            store = Store(self, f"%o{next(_tokens)}:", group=self.store)
            try:
                watch = ref(instance, partial(self._gone, identity))
            except TypeError:
                raise TypeError(
                    "argument 'self': its class allows no weak references; add __weakref__ to its __slots__, or name "
                    "fields of it in the key template"
                ) from None
            self._instances[identity] = (watch, store)
            self._shelves[identity] = store.hot
            return store

    def _gone(self, identity: int, _watch: object) -> None:
        """Forget an instance at once, since its address may be used again."""
        self._shelves.pop(identity, None)
        _, store = self._instances.pop(identity, (None, None))
        if store is not None:
            with self.engine.local.lock:
                store.fold_locked(self.engine.local.counters)
                for entry in store.entries():
                    self.engine.local.remove_locked(entry)


def _indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


def _owner(function: Callable[..., Any], names: list[str]) -> str | None:
    """Return the first parameter of a method, if it is one; a class body shows in the qualified name."""
    qualname = str(getattr(function, "__qualname__", ""))
    surrounding = qualname.rpartition(".")[0]
    if names and names[0] in {"self", "cls"} and surrounding and not surrounding.endswith("<locals>"):
        return names[0]
    return None


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _hit_clock(clock: "Clock", policy: CachePolicy) -> "Clock | None":
    """Return the clock to compare with on each hit; ``None`` if the reaper is exact enough."""
    shortest = policy.fresh if policy.local is None else min(policy.fresh, policy.local)
    return None if clock is monotonic and shortest >= FINE_TTL else clock


def _require_identity(template: Template, *, private: bool) -> None:
    if private and not template.fields:
        raise ConfigurationError(
            "private", private, "a private key names whose data it is", "add a field or {hash} to the key"
        )


def _default_template(function: Callable[..., Any], names: list[str]) -> str:
    name = f"{function.__module__}.{_name_of(function)}"
    return name.replace("{", "{{").replace("}", "}}") + (":{hash}" if names else "")


def _refuse_generators(function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            "function", function.__qualname__, "a generator can be read only once", "return a list and cache that"
        )
