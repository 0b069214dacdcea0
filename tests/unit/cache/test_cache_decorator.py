"""The decorated function: keys, colours, methods, errors."""

import asyncio
import inspect
import pickle
import traceback
from dataclasses import dataclass
from enum import StrEnum

import pytest

from isp_perf.cache import CacheManager
from isp_perf.errors import CacheRecursionError, CodecError, ConfigurationError
from isp_perf.testing import ManualClock


class Calls:
    """Counts the loads of a function."""

    def __init__(self):
        self.seen = []

    def __call__(self, *values):
        self.seen.append(values)
        return len(self.seen)


@pytest.fixture
def cache():
    return CacheManager()


def test_second_call_is_answered_from_the_cache(cache):
    """A plain function runs once per argument."""
    calls = Calls()

    @cache.cached("user:{user_id}", ttl=60)
    def user(user_id: int):
        """Find a user."""
        return calls(user_id)

    assert [user(1), user(1), user(2), user(user_id=2)] == [1, 1, 2, 2]
    assert user.__doc__ == "Find a user."
    assert str(inspect.signature(user)) == "(user_id: int)"
    assert user.__wrapped__(3) == 3


async def test_coroutine_function_stays_one(cache):
    """A cached coroutine function is a coroutine function and runs once per argument."""
    calls = Calls()

    @cache.cached("user_profile:{hash}", ttl=1800)
    async def profile(user_id: str):
        return calls(user_id)

    assert inspect.iscoroutinefunction(profile)
    assert await asyncio.create_task(profile("a")) == 1
    assert await profile("a") == 1
    assert profile.stats.hits == 1
    assert profile.stats.misses == 1


def test_default_keyword_and_position_are_one_key(cache):
    """f(1), f(x=1) and a default of 1 share one entry."""
    calls = Calls()

    @cache.cached()
    def load(x: int = 1, *, y: int = 2):
        return calls(x, y)

    assert load() == load(1) == load(x=1) == load(1, y=2) == 1
    assert load.key() == load.key(1, y=2)


def test_packed_arguments_work(cache):
    """Functions with *args and **kwargs are cached by all of them, keywords in any order."""
    calls = Calls()

    @cache.cached()
    def load(a, *rest, **options):
        return calls(a, rest, options)

    assert load(1, 2, x=1, y=2) == load(1, 2, y=2, x=1) == 1
    assert load(1, (2,), x=1, y=2) == 2
    assert calls.seen[0] == (1, (2,), {"x": 1, "y": 2})


def test_hash_tells_types_apart(cache):
    """Under {hash}, 1, True and 1.0, and a text and an equal enum member, are different calls."""
    calls = Calls()

    class Plan(StrEnum):
        gold = "gold"

    @cache.cached("a:{hash}")
    def by_int(x: int):
        return calls(x)

    @cache.cached("b:{hash}")
    def by_text(x: str):
        return calls(x)

    @cache.cached("c:{hash}")
    def untyped(x):
        return calls(x)

    for function, values in ((by_int, (1, True, 1.0)), (by_text, ("gold", Plan.gold)), (untyped, (1, True, 1.0))):
        first = [function(value) for value in values]
        assert len(set(first)) == len(values)
        assert [function(value) for value in values] == first


def test_template_follows_equality_unless_typed(cache):
    """In a template 1, True and 1.0 share a key; with typed=True they do not."""
    calls = Calls()

    @cache.cached("loose:{x}")
    def loose(x):
        return calls(x)

    @cache.cached("strict:{x}", typed=True)
    def strict(x):
        return calls(x)

    assert loose(1) == loose(True) == loose(1.0)
    assert loose.key(1) == loose.key(True) == loose.key(1.0)
    assert len({strict(1), strict(True), strict(1.0)}) == 3


def test_unhashable_arguments_are_keyed_by_content(cache):
    """Lists, dicts and sets may be arguments; equal content is one key."""
    calls = Calls()

    @cache.cached()
    def load(ids):
        return calls(tuple(ids))

    assert load([1, 2]) == load([1, 2]) == 1
    assert load((1, 2)) == 2
    assert load({"a": 1}) == load({"a": 1}) == 3


def test_unsupported_argument_names_the_parameter(cache):
    """An object without declared fields is a TypeError that names the parameter and never shows the value."""

    class Session:
        def __repr__(self):
            return "secret"

    @cache.cached()
    def load(session):
        return session

    with pytest.raises(
        TypeError, match=r"argument 'session': .*Session objects cannot be part of a cache key"
    ) as caught:
        load(Session())
    assert "secret" not in str(caught.value)


def test_wrong_call_is_the_interpreters_own_error(cache):
    """A call that the function would refuse is refused with the function's name before the cache runs."""

    @cache.cached()
    def load(x):
        return x

    with pytest.raises(TypeError, match=r"load\(\) missing 1 required positional argument"):
        load()


def test_methods_have_a_store_per_instance_and_let_it_go():
    """An instance has its own entries, held weakly; class and static methods are keyed by class and arguments."""
    cache = CacheManager()
    calls = Calls()

    class Reader:
        @cache.cached()
        def read(self, x):
            return calls(x)

        @classmethod
        @cache.cached()
        def kind(cls, x):
            return cls.__name__, calls(x)

        @staticmethod
        @cache.cached()
        def free(x):
            return calls(x)

    class Other(Reader):
        pass

    one, two = Reader(), Reader()
    assert [one.read(1), one.read(1), two.read(1)] == [1, 1, 2]
    assert Reader.kind(1) == Reader.kind(1) == ("Reader", 3)
    assert Other.kind(1) == ("Other", 4)
    assert Reader.free(1) == one.free(1) == 5
    size = cache.stats().l1_size
    del one
    assert cache.stats().l1_size == size - 1
    assert Reader.read(two, 1) == 2
    Reader.read.invalidate(two, 1)
    assert two.read(1) == 6


def test_value_objects_share_their_entries(cache):
    """Methods of dataclasses are keyed by the fields; templates may name attributes of self."""
    calls = Calls()

    @dataclass(frozen=True)
    class Line:
        number: int

        @cache.cached()
        def usage(self):
            return calls(self.number)

    class Customer:
        def __init__(self, identity):
            self.id = identity

        @cache.cached("customer:{self.id}")
        def bill(self):
            return calls(self.id)

    assert Line(1).usage() == Line(1).usage() == 1
    assert Line(2).usage() == 2
    assert Customer("a").bill() == Customer("a").bill() == 3
    assert Customer.bill.key(Customer("a")) == "customer:a"


def test_loader_errors_pass_unwrapped_with_one_frame_of_ours(cache):
    """A KeyError of the loader reaches the caller without context, and the traceback shows the user's line."""

    @cache.cached()
    def load(x):
        raise KeyError(x)

    with pytest.raises(KeyError) as caught:
        load(1)
    assert caught.value.__context__ is None
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames[1:]] == ["load", "load"]
    assert "raise KeyError(x)" in frames[-1].line


def test_stop_iteration_of_a_loader_passes(cache):
    """StopIteration is an error like any other."""

    @cache.cached()
    def load(x):
        return next(iter(()))

    with pytest.raises(StopIteration):
        load(1)


def test_recursive_load_is_an_error_not_a_deadlock(cache):
    """A loader that asks for its own key, directly or through another function, gets CacheRecursionError."""

    @cache.cached("direct:{x}")
    def direct(x):
        return direct(x)

    @cache.cached("one:{x}")
    def one(x):
        return two(x)

    @cache.cached("two:{x}")
    def two(x):
        return one(x)

    with pytest.raises(CacheRecursionError, match="direct"):
        direct(1)
    with pytest.raises(CacheRecursionError, match="one"):
        one(1)


def test_recursion_over_other_keys_is_fine(cache):
    """A recursive function over smaller arguments works."""

    @cache.cached()
    def fibonacci(n: int):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(30) == 832040
    assert fibonacci.stats.loads == 31


def test_generators_are_refused(cache):
    """Generators and async generators cannot be cached."""

    def numbers():
        yield 1

    async def stream():
        yield 1

    for function in (numbers, stream):
        with pytest.raises(ConfigurationError, match="a generator can be read only once"):
            cache.cached()(function)


def test_results_that_can_be_used_once_are_refused(cache):
    """A coroutine or generator as a result is a CodecError."""

    @cache.cached()
    def load():
        return (number for number in ())

    with pytest.raises(CodecError, match="generator must not be cached"):
        load()


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("user:{name}", {}, r"\{name\} names no parameter"),
        ("user", {}, "a template without a field"),
        ("user:{user_id", {}, "braces come in pairs"),
        ("user:{user_id!r}", {}, "a field is a parameter or an attribute"),
        ("user:{user_id}", {"ttl": -1}, "ttl=-1: must be a number of seconds >= 0"),
        ("user:{user_id}", {"ttl": float("nan")}, "ttl=nan"),
        ("user:{user_id}", {"l1_ttl": -1}, "l1_ttl=-1"),
        ("user:{user_id}", {"jitter": 2}, "jitter=2"),
        ("user:{user_id}", {"cache_none": -1}, "cache_none=-1"),
        ("user:{user_id}", {"when": 1}, "when='int'"),
        ("user:{user_id}", {"grace": 1}, "grace='given': this is no field of CachePolicy"),
    ],
)
def test_bad_settings_are_one_clear_error(cache, key, options, message):
    """Each wrong setting is a ConfigurationError with setting, value, rule and fix when the function is decorated."""
    with pytest.raises(ConfigurationError, match=message) as caught:

        @cache.cached(key, **options)
        def load(user_id):
            return user_id

    assert caught.value.fix


def test_private_needs_an_identity(cache):
    """With private=True a key without a field is refused."""
    with pytest.raises(ConfigurationError, match="a private key names whose data it is"):

        @cache.cached("me", private=True)
        def load():
            return 1


def test_two_functions_cannot_share_a_template(cache):
    """The second function with a template is refused, unless it is the first one imported again."""

    def make():
        @cache.cached("user:{x}")
        def same(x):
            return x

        return same

    kept = [make(), make()]
    with pytest.raises(ConfigurationError, match="already has this template"):

        @cache.cached("user:{x}")
        def rival(x):
            return x

    assert kept[0](1) == kept[1](1) == 1


def test_expired_means_gone_with_a_manual_clock():
    """With an injected clock a value is served up to, and never at, the end of its ttl."""
    clock = ManualClock()
    cache = CacheManager(clock=clock)
    calls = Calls()

    @cache.cached(ttl=10)
    def load(x: int):
        return calls(x)

    assert load(1) == 1
    clock.advance(9.999)
    assert load(1) == 1
    clock.advance(0.001)
    assert load(1) == 2
    assert load.stats.expirations == 1


def test_ttl_zero_keeps_nothing(cache):
    """ttl=0 calls the function every time."""
    calls = Calls()

    @cache.cached(ttl=0)
    def load(x):
        return calls(x)

    assert [load(1), load(1)] == [1, 2]


def test_none_is_a_value_and_has_its_own_rules():
    """None is kept by default, with its own ttl, or not at all, as cache_none says."""
    clock = ManualClock()
    cache = CacheManager(clock=clock)
    calls = Calls()

    @cache.cached("kept:{x}")
    def kept(x):
        calls(x)

    @cache.cached("short:{x}", cache_none=5)
    def short(x):
        calls(x)

    @cache.cached("never:{x}", cache_none=False)
    def never(x):
        calls(x)

    for function in (kept, kept, short, short, never, never):
        assert function(1) is None
    assert len(calls.seen) == 4
    clock.advance(5)
    short(1)
    kept(1)
    assert len(calls.seen) == 5


def test_when_decides_what_is_kept(cache):
    """A result for which `when` is false is returned and not stored."""
    calls = Calls()

    @cache.cached(when=lambda result: result > 1)
    def load(x):
        return calls(x)

    assert [load(1), load(1), load(1)] == [1, 2, 2]


async def test_methods_of_an_async_function(cache):
    """invalidate, refresh, peek, put, many and key work for coroutine functions as for plain ones."""
    calls = Calls()

    @cache.cached("n:{x}")
    async def load(x: int):
        return calls(x)

    assert await load.peek(1, default="none") == "none"
    assert await load(1) == 1
    assert await load.peek(1) == 1
    assert await load.refresh(1) == 2
    assert await load(1) == 2
    await load.put("mine", 1)
    assert await load(1) == "mine"
    receipt = await load.invalidate(1)
    assert receipt.delivered
    assert not receipt.queued
    assert await load.many([1, 2, 1]) == [3, 4, 3]
    assert load.key(1) == "n:1"


def test_methods_of_a_plain_function(cache):
    """The same methods are plain functions for a plain function."""
    calls = Calls()

    @cache.cached("n:{x}")
    def load(x: int):
        return calls(x)

    assert load(1) == 1
    assert load.refresh(1) == 2
    load.put("mine", 1)
    assert load.peek(1) == "mine"
    assert load(1) == "mine"
    assert load.invalidate(1).delivered
    assert load.many([1, 2, 1]) == [3, 4, 3]
    assert load.stats.as_dict()["l1_size"] == 2


def test_pickles_by_name():
    """A decorated function is pickled by its qualified name, as any function."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level


module_cache = CacheManager()


@module_cache.cached()
def module_level(x):
    return x


def test_colliding_parameter_names_are_harmless(cache):
    """Parameters may have the names that the wrapper uses itself."""

    @cache.cached()
    def load(hot, miss, entry, Exception, outcome, id, type, guard):
        return (hot, miss, entry, Exception, outcome, id, type, guard)

    assert load(1, 2, 3, 4, 5, 6, 7, 8) == load(1, 2, 3, 4, 5, 6, 7, 8) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert load.stats.hits == 1
